// Package tokenizer turns text into the token ids of a model and back, from the tokenizer.json that lies beside its weights (the format of the
// Hugging Face library tokenizers).
//
// It knows byte-pair encoding in the two forms that the families of internal/model use: over bytes, each written as one printable character (GPT-2,
// Llama-3, Qwen2 and later), and over characters with a token for every byte as the last resort (Llama-2, Mistral). Around it stand, in
// this order, added tokens, a normalizer, a pre-tokenizer, the model and a post-processor; a decoder goes the other way. Ids equal
// those of tokenizers 0.22, quirks included: perplexities are compared to the digit, and one id that differs is a different text.
//
// Whatever the file asks for and this package does not do is refused by its name with ErrUnsupported. Nothing is approximated.
package tokenizer

import (
	"errors"
	"fmt"
)

var (
	// ErrInvalid is found in the error of a file that contradicts its format or itself.
	ErrInvalid = errors.New("invalid tokenizer")
	// ErrUnsupported is found in the error of a file that asks for what this package does not do.
	ErrUnsupported = errors.New("not supported")
)

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// unsupported refuses a kind of component, or a setting of one, and names it.
func unsupported(what string, name any) error {
	return fmt.Errorf("%s %q: %w", what, fmt.Sprint(name), ErrUnsupported)
}
