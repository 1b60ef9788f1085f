package model

import "errors"

// Errors that callers may tell apart with errors.Is. The message names the file, key, tensor, block or token.
var (
	// ErrUnsupported: the checkpoint asks for something that nothing here computes.
	ErrUnsupported = errors.New("model not supported")
	// ErrConfig: config.json contradicts itself or the tensors.
	ErrConfig = errors.New("config and tensors do not agree")
	// ErrNotFinite: a weight or an activation is not a finite number.
	ErrNotFinite = errors.New("not a finite number")
	// ErrContext: a sequence is longer than the model's context.
	ErrContext = errors.New("sequence too long")
	// ErrToken: a token is not in the model's vocabulary, or the vocabulary is another's.
	ErrToken = errors.New("token not in the vocabulary")
	// ErrSampling: no token can be chosen the way that was asked for.
	ErrSampling = errors.New("sampling not possible")
)
