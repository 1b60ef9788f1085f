package shard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// OutputConfig returns the config.json of a result: the source's bytes with the quantization_config replaced, added as the last member,
// or removed when quantization is nil. Everything else keeps its bytes and its place. What the source said of its own quantization goes,
// since its weights were decoded.
func OutputConfig(source, quantization json.RawMessage) (json.RawMessage, error) {
	if len(source) == 0 {
		if quantization == nil {
			return nil, nil
		}
		return nil, fmt.Errorf("write %s: the source has none, and loaders find the quantization in it: %w; add the model's %s or choose format %s",
			ConfigName, ErrMissing, ConfigName, FormatDense)
	}
	out, err := DropConfigMember(source, "compression_config")
	if err != nil {
		return nil, err
	}
	for _, part := range []string{"text_config", "llm_config", "language_config"} {
		if out, err = dropNested(out, part); err != nil {
			return nil, err
		}
	}
	if quantization == nil {
		return DropConfigMember(out, "quantization_config")
	}
	return SetConfigMember(out, "quantization_config", quantization)
}

// dropNested removes the quantization from a part of the configuration that is an object itself.
func dropNested(source json.RawMessage, part string) (json.RawMessage, error) {
	members, _, err := locate(source)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if m.key != part || source[m.value] != '{' {
			continue
		}
		inner := source[m.value:m.end]
		for _, key := range []string{"quantization_config", "compression_config"} {
			if inner, err = DropConfigMember(inner, key); err != nil {
				return nil, err
			}
		}
		return splice(source, m.value, m.end, inner), nil
	}
	return source, nil
}

// position tells where a member of an object stands: from key to the end of value.
type position struct {
	key               string
	start, value, end int
}

// locate finds the members of the object that source is, and the place of its closing brace.
func locate(source json.RawMessage) (members []position, end int, err error) {
	s := &scanner{file: ConfigName, text: source, python: true}
	s.space()
	start := s.pos + 1
	err = s.object(func(key string) error {
		for start < s.pos && source[start] != '"' {
			start++
		}
		s.space()
		value := s.pos
		if _, err := s.skip(); err != nil {
			return err
		}
		members = append(members, position{key, start, value, s.pos})
		start = s.pos
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	end = s.pos - 1
	return members, end, s.end()
}

func splice(source json.RawMessage, from, to int, with []byte) json.RawMessage {
	out := make(json.RawMessage, 0, len(source)-(to-from)+len(with))
	out = append(append(out, source[:from]...), with...)
	return append(out, source[to:]...)
}

// DropConfigMember removes a member of the outermost object, if it is there, with its comma.
func DropConfigMember(source json.RawMessage, key string) (json.RawMessage, error) {
	members, _, err := locate(source)
	if err != nil {
		return nil, err
	}
	for i, m := range members {
		switch {
		case m.key != key:
		case i+1 < len(members):
			return splice(source, m.start, members[i+1].start, nil), nil
		case i > 0:
			return splice(source, members[i-1].end, m.end, nil), nil
		default:
			return splice(source, m.start, m.end, nil), nil
		}
	}
	return source, nil
}

// SetConfigMember replaces the value of a member of the outermost object, or adds the member as the last one, indented like the others.
func SetConfigMember(source json.RawMessage, key string, value json.RawMessage) (json.RawMessage, error) {
	members, end, err := locate(source)
	if err != nil {
		return nil, err
	}
	indent := ""
	if len(members) > 0 {
		before := string(source[:members[0].start])
		if i := strings.LastIndexByte(before, '\n'); i >= 0 {
			indent = before[i+1:]
		}
	}
	var text bytes.Buffer
	if indent == "" {
		err = json.Compact(&text, value)
	} else {
		err = json.Indent(&text, value, indent, indent)
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: value of %q: %w", ConfigName, key, err)
	}
	for _, m := range members {
		if m.key == key {
			return splice(source, m.value, m.end, text.Bytes()), nil
		}
	}
	member := appendString(nil, key)
	if len(members) == 0 {
		return splice(source, end, end, append(append(member, ':'), text.Bytes()...)), nil
	}
	separator := ", "
	if indent != "" {
		separator = ",\n" + indent
	}
	last := members[len(members)-1]
	return splice(source, last.end, last.end, append(append(append([]byte(separator), member...), ": "...), text.Bytes()...)), nil
}
