package shard

import "errors"

// Errors that callers may tell apart with errors.Is. The message around them names the file, the tensor and the remedy.
var (
	// ErrMalformed: the bytes break the rules of their format.
	ErrMalformed = errors.New("malformed")
	// ErrMissing: something the checkpoint refers to is not there.
	ErrMissing = errors.New("missing")
	// ErrDuplicate: two things have one name.
	ErrDuplicate = errors.New("duplicate")
	// ErrUnsupported: well-formed, but nothing here can use it.
	ErrUnsupported = errors.New("unsupported")
	// ErrSourceChanged: a source file is no longer the one that the manifest describes.
	ErrSourceChanged = errors.New("source file changed")
	// ErrDamaged: bytes that were uploaded are not in the store as they were.
	ErrDamaged = errors.New("damaged upload")
	// ErrUnreachable: the place of the source did not answer; asking again may help.
	ErrUnreachable = errors.New("source cannot be reached")
	// ErrOrder: a writer was given other bytes than its layout promises.
	ErrOrder = errors.New("write out of order")
	// ErrFused: an engine would fuse linears that were not treated alike.
	ErrFused = errors.New("fused linears differ")
)
