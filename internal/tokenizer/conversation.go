package tokenizer

import (
	"encoding/json"
	"errors"

	"github.com/shardpress/shardpress/internal/tokenizer/chat"
)

// ErrNoChat is found in the error of Chat for a model without a chat template: it was trained on plain text.
var ErrNoChat = errors.New("the model has no chat template")

// Chat writes a conversation as the text that the model was trained to continue. Its tokens stand in it as they are written: Encode it without adding
// special tokens. BOS and EOS are filled in where the options leave them out. A template that is not understood is an error here, and not when
// the tokenizer is loaded: whoever measures perplexity does not need it.
func (t *Tokenizer) Chat(messages []chat.Message, o chat.Options) (string, error) {
	if t.chat == "" {
		return "", ErrNoChat
	}
	tmpl, err := chat.Parse(t.chat)
	if err != nil {
		return "", err
	}
	if o.BOS == "" {
		o.BOS, _ = t.Token(t.special.BOS)
	}
	if o.EOS == "" {
		o.EOS, _ = t.Token(t.special.EOS)
	}
	return tmpl.Render(messages, o)
}

// chatTemplate reads the member of tokenizer_config.json: a template, or a list of them by name, of which one is the default.
func chatTemplate(raw json.RawMessage) (string, error) {
	if absent(raw) {
		return "", nil
	}
	var source string
	if json.Unmarshal(raw, &source) == nil {
		return source, nil
	}
	var list []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return "", invalidf("it is neither a template nor a list of them")
	}
	for _, c := range list {
		if c.Name == "default" {
			return c.Template, nil
		}
	}
	return "", nil
}
