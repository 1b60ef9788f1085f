// Package chat writes a conversation as the one text that a model was trained to continue, by the chat_template of its tokenizer_config.json.
//
// Templates are programs in Jinja. This package runs the part of that language that the templates of Llama-2, Llama-3, Mistral, Qwen2 and Qwen3 are written in,
// in the environment that transformers 4.57 gives them: blocks trimmed, raise_exception there, loops that break and continue. A statement, filter, test,
// method or function beyond that is refused by its name when the template is parsed. strftime_now is the one exception: it is not defined here, because
// the same conversation must be the same text tomorrow. Templates test for it and fall back to a date of their own; Vars may set date_string.
//
// A template is from a stranger: it reads nothing but its variables, and the steps it takes and the text it makes are bounded.
package chat

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrInvalid is found in the error of a template that is not well formed.
	ErrInvalid = errors.New("invalid chat template")
	// ErrUnsupported is found in the error of a template that uses what this package does not know.
	ErrUnsupported = errors.New("not supported")
	// ErrRefused is found in the error of a conversation that the template itself refuses (raise_exception).
	ErrRefused = errors.New("the chat template refuses the conversation")
	// ErrRender is found in the error of a template that fails while it runs.
	ErrRender = errors.New("the chat template fails")
)

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

func failf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRender, fmt.Errorf(format, args...))
}

func unsupported(what, name string) error {
	return fmt.Errorf("%s %q: %w", what, name, ErrUnsupported)
}

// Bounds of a template and of what it does.
const (
	maxTemplate = 1 << 17 // bytes
	maxText     = 1 << 24 // bytes of any string
	maxList     = 1 << 16 // members
	maxSteps    = 1 << 20 // expressions and statements
	maxDepth    = 64      // of nesting
)

// Message is one turn of a conversation. Roles are "system", "user" and "assistant".
type Message struct {
	Role, Content string
}

// Options are what a template may ask for beside the messages.
type Options struct {
	// AddGenerationPrompt ends the text where the assistant's next turn begins.
	AddGenerationPrompt bool
	// BOS and EOS are the tokens that begin and end a text, as they are written.
	BOS, EOS string
	// Vars are further variables, such as "enable_thinking": booleans, integers and strings.
	Vars map[string]any
}

// Template is a parsed chat template. It does not change: any number of goroutines may render it at once.
type Template struct {
	body []statement
}

// Parse reads a template. Its error is ErrInvalid or ErrUnsupported and names what is at fault.
func Parse(source string) (*Template, error) {
	if len(source) > maxTemplate {
		return nil, fmt.Errorf("parse chat template: %w", invalidf("it has %d bytes, more than %d", len(source), maxTemplate))
	}
	tokens, err := lex(source)
	if err != nil {
		return nil, fmt.Errorf("parse chat template: %w", err)
	}
	p := &parser{tokens: tokens}
	body, end, err := p.block()
	if err == nil && end != "" {
		err = invalidf("line %d: %s without a beginning", p.line(), end)
	}
	if err != nil {
		return nil, fmt.Errorf("parse chat template: %w", err)
	}
	return &Template{body}, nil
}

// Render writes a conversation. Tokens such as "<s>" stand in the text as they are written: encode it without adding special tokens again.
func (t *Template) Render(messages []Message, o Options) (string, error) {
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = newDict("role", m.Role, "content", m.Content)
	}
	vars := map[string]any{
		"messages": list, "add_generation_prompt": o.AddGenerationPrompt, "bos_token": o.BOS, "eos_token": o.EOS, "tools": nil, "documents": nil,
	}
	for name, v := range o.Vars {
		switch v.(type) {
		case bool, int, string:
			vars[name] = v
		default:
			return "", fmt.Errorf("render chat template: variable %s is a %T, not a boolean, an integer or a string", name, v)
		}
	}
	e := &env{scopes: []map[string]any{vars}}
	var out strings.Builder
	e.out = &out
	if err := e.run(t.body); err != nil {
		return "", fmt.Errorf("render chat template: %w", err)
	}
	return out.String(), nil
}
