package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// maxFile bounds the files read here, in bytes: the largest published tokenizer.json has some 35 MB.
const maxFile = 256 << 20

// config is what this package heeds of tokenizer_config.json. The rest speaks to the classes of transformers.
type config struct {
	Class   string          `json:"tokenizer_class"`
	AddBOS  *bool           `json:"add_bos_token"`
	AddEOS  *bool           `json:"add_eos_token"`
	BOS     json.RawMessage `json:"bos_token"`
	EOS     json.RawMessage `json:"eos_token"`
	Unknown json.RawMessage `json:"unk_token"`
	Pad     json.RawMessage `json:"pad_token"`
	Chat    json.RawMessage `json:"chat_template"`
}

// Load reads tokenizer.json of a checkpoint's directory, and tokenizer_config.json and chat_template.jinja if they are there. An error names the file.
func Load(dir fs.FS) (*Tokenizer, error) {
	data, err := read(dir, "tokenizer.json")
	if err != nil {
		return nil, err
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer.json: %w", err)
	}
	data, err = read(dir, "tokenizer_config.json")
	if err == nil {
		if err := t.configure(data); err != nil {
			return nil, fmt.Errorf("read tokenizer_config.json: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	data, err = read(dir, "chat_template.jinja") // counts before the other, as in transformers
	if err == nil {
		t.chat = string(data)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return t, nil
}

func read(dir fs.FS, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read %s: %w", name, invalidf("it has more than %d bytes", maxFile))
	}
	return data, nil
}

// configure takes what tokenizer_config.json says over tokenizer.json.
func (t *Tokenizer) configure(data []byte) error {
	var c config
	if err := json.Unmarshal(data, &c); err != nil {
		return invalidf("%w", err)
	}
	for _, s := range []struct {
		key  string
		raw  json.RawMessage
		into *int
	}{{"bos_token", c.BOS, &t.special.BOS}, {"eos_token", c.EOS, &t.special.EOS}, {"unk_token", c.Unknown, &t.special.Unknown}, {"pad_token", c.Pad, &t.special.Pad}} {
		id, err := t.named(s.raw)
		if err != nil {
			return fmt.Errorf("%s: %w", s.key, err)
		}
		*s.into = id
	}
	var err error
	if t.chat, err = chatTemplate(c.Chat); err != nil {
		return fmt.Errorf("chat_template: %w", err)
	}
	if c.Class != "LlamaTokenizer" && c.Class != "LlamaTokenizerFast" {
		return nil
	}
	// This class of transformers does not take the post-processor of the file, but makes its own of these two.
	t.post = post{}
	if c.AddBOS == nil || *c.AddBOS {
		if t.special.BOS < 0 {
			return invalidf("add_bos_token of %s is on, and there is no bos_token", c.Class)
		}
		t.post.before = []int{t.special.BOS}
	}
	if c.AddEOS != nil && *c.AddEOS {
		if t.special.EOS < 0 {
			return invalidf("add_eos_token of %s is on, and there is no eos_token", c.Class)
		}
		t.post.after = []int{t.special.EOS}
	}
	return nil
}

// named gives the id of a token that the configuration names, by its text or by an object with its content; -1 for null.
func (t *Tokenizer) named(raw json.RawMessage) (int, error) {
	if absent(raw) {
		return -1, nil
	}
	var token string
	if json.Unmarshal(raw, &token) != nil {
		var c struct {
			Content *string `json:"content"`
		}
		if err := json.Unmarshal(raw, &c); err != nil || c.Content == nil {
			return -1, invalidf("it is neither a string nor an object with content")
		}
		token = *c.Content
	}
	id, ok := t.ID(token)
	if !ok {
		return -1, invalidf("token %q is not in tokenizer.json", token)
	}
	return id, nil
}
