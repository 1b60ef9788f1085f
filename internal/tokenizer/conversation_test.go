package tokenizer

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/shardpress/shardpress/internal/tokenizer/chat"
)

func TestChat(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/kinds/llama2.json")
	if err != nil {
		t.Fatal(err)
	}
	const config = `{"bos_token":"<s>","eos_token":"</s>","chat_template":`
	for _, c := range []struct {
		config, file, want string
		is                 error
	}{
		{config: config + `"{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"}`, want: "<s>hello</s>"},
		{config: config + `[{"name":"tools","template":"t"},{"name":"default","template":"d"}]}`, want: "d"},
		{config: config + `"config"}`, file: "file {{ messages | length }}", want: "file 1"},
		{config: config + `null}`, is: ErrNoChat},
		{config: config + `"{{ frob() }}"}`, is: chat.ErrUnsupported},
		{config: config + `"{{ raise_exception('no') }}"}`, is: chat.ErrRefused},
	} {
		dir := fstest.MapFS{"tokenizer.json": {Data: data}, "tokenizer_config.json": {Data: []byte(c.config)}}
		if c.file != "" {
			dir["chat_template.jinja"] = &fstest.MapFile{Data: []byte(c.file)}
		}
		tok, err := Load(dir)
		if err != nil {
			t.Errorf("%s: %v", c.config, err)
			continue
		}
		got, err := tok.Chat([]chat.Message{{Role: "user", Content: "hello"}}, chat.Options{})
		if got != c.want || !errors.Is(err, c.is) {
			t.Errorf("%s: %q, %v; want %q, %v", c.config, got, err, c.want, c.is)
		}
	}
	dir := fstest.MapFS{"tokenizer.json": {Data: data}, "tokenizer_config.json": {Data: []byte(config + `7}`)}}
	if _, err := Load(dir); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "chat_template") {
		t.Errorf("a template that is a number: %v", err)
	}
}
