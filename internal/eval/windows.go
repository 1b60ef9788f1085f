package eval

import (
	"errors"
	"fmt"
)

// Errors that callers may tell apart with errors.Is.
var (
	// ErrText: there is nothing, or too little, to judge by.
	ErrText = errors.New("text too short")
	// ErrOptions: options contradict one another or the model.
	ErrOptions = errors.New("invalid evaluation")
)

// window is a run of tokens that the model sees at once.
type window struct {
	begin, end int // tokens
	from       int // first token that counts; those before it are only seen
}

// windows cuts a text of n tokens. With a stride as large as the window it is the convention of GPTQ's evaluation (Frantar et al.,
// 2022, and its code): windows side by side, of which all tokens but the first count, and what does not fill the last is dropped. With a
// smaller stride every token but the text's first counts once, in the first window that holds it, and the last window may be
// shorter. With context in front of every window its first token counts too.
func windows(n int, o Options) ([]window, error) {
	switch {
	case o.Window < 2 || o.Stride < 1 || o.Stride > o.Window:
		return nil, fmt.Errorf("window of %d tokens and stride of %d: %w: a window has at least 2, a stride at least 1 and at most the window", o.Window, o.Stride, ErrOptions)
	case n == 0:
		return nil, fmt.Errorf("the text is empty: %w", ErrText)
	case n < o.Window:
		return nil, fmt.Errorf("the text has %d tokens, a window %d: %w; give more text or a smaller window", n, o.Window, ErrText)
	}
	first := 1
	if len(o.Prefix) > 0 {
		first = 0
	}
	var all []window
	scored := 0
	for begin := 0; begin < n; begin += o.Stride {
		end := min(begin+o.Window, n)
		if o.Stride == o.Window && end-begin < o.Window {
			break
		}
		all = append(all, window{begin, end, max(scored, begin+first)})
		if scored = end; end == n {
			break
		}
	}
	return all, nil
}
