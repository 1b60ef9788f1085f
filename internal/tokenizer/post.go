package tokenizer

import (
	"encoding/json"
	"fmt"
)

// post is what post-processors put around a single text.
type post struct {
	before, after []int
}

// template is a part of a TemplateProcessing: a token or the text. Type ids belong to models of another kind.
type template struct {
	SpecialToken *struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	} `json:"Sequence"`
}

func parsePostProcessor(raw json.RawMessage, depth int) (post, error) {
	if absent(raw) {
		return post{}, nil
	}
	kind, err := kind(raw, depth)
	if err != nil {
		return post{}, err
	}
	switch kind {
	case "Sequence":
		var c struct {
			Type       string            `json:"type"`
			Processors []json.RawMessage `json:"processors"`
		}
		if err := strict(raw, &c); err != nil {
			return post{}, err
		}
		var all post
		for i, raw := range c.Processors {
			p, err := parsePostProcessor(raw, depth+1)
			if err != nil {
				return post{}, fmt.Errorf("processors[%d]: %w", i, err)
			}
			all.before = append(p.before[:len(p.before):len(p.before)], all.before...)
			all.after = append(all.after, p.after...)
		}
		return all, nil
	case "ByteLevel": // it is about offsets
		var c byteLevelSettings
		return post{}, strict(raw, &c)
	case "TemplateProcessing":
		return parseTemplate(raw)
	case "RobertaProcessing", "BertProcessing":
		return parseRoberta(raw)
	}
	return post{}, unsupported("type", kind)
}

func parseTemplate(raw json.RawMessage) (post, error) {
	var c struct {
		Type    string          `json:"type"`
		Single  []template      `json:"single"`
		Pair    json.RawMessage `json:"pair"` // two texts are never encoded together here
		Special map[string]struct {
			ID     string   `json:"id"`
			IDs    []int64  `json:"ids"`
			Tokens []string `json:"tokens"`
		} `json:"special_tokens"`
	}
	if err := strict(raw, &c); err != nil {
		return post{}, err
	}
	var p post
	seen := false
	for i, part := range c.Single {
		switch {
		case (part.SpecialToken == nil) == (part.Sequence == nil):
			return post{}, invalidf("TemplateProcessing: single[%d] is neither a SpecialToken nor a Sequence", i)
		case part.Sequence != nil:
			if seen || part.Sequence.ID != "A" {
				return post{}, invalidf("TemplateProcessing: single has sequence %q at %d; it takes A once", part.Sequence.ID, i)
			}
			seen = true
		default:
			special, ok := c.Special[part.SpecialToken.ID]
			if !ok || len(special.IDs) == 0 {
				return post{}, invalidf("TemplateProcessing: token %q has no ids in special_tokens", part.SpecialToken.ID)
			}
			for _, id := range special.IDs {
				if err := checkID(id, part.SpecialToken.ID); err != nil {
					return post{}, err
				}
				if seen {
					p.after = append(p.after, int(id))
				} else {
					p.before = append(p.before, int(id))
				}
			}
		}
	}
	if !seen {
		return post{}, invalidf("TemplateProcessing: single does not have the sequence A")
	}
	return p, nil
}

// parseRoberta reads the two that put one token before a text and one after it.
func parseRoberta(raw json.RawMessage) (post, error) {
	var c struct {
		Type           string            `json:"type"`
		Sep            []json.RawMessage `json:"sep"`
		Cls            []json.RawMessage `json:"cls"`
		TrimOffsets    *bool             `json:"trim_offsets"`
		AddPrefixSpace *bool             `json:"add_prefix_space"`
	}
	if err := strict(raw, &c); err != nil {
		return post{}, err
	}
	cls, err := tokenAndID(c.Cls)
	if err != nil {
		return post{}, fmt.Errorf("cls: %w", err)
	}
	sep, err := tokenAndID(c.Sep)
	if err != nil {
		return post{}, fmt.Errorf("sep: %w", err)
	}
	return post{[]int{cls}, []int{sep}}, nil
}

func tokenAndID(raw []json.RawMessage) (int, error) {
	if len(raw) != 2 {
		return 0, invalidf("it has %d members, not a token and its id", len(raw))
	}
	var token string
	var id int64
	if err := strict(raw[0], &token); err != nil {
		return 0, err
	}
	if err := strict(raw[1], &id); err != nil {
		return 0, err
	}
	return int(id), checkID(id, token)
}

func checkID(id int64, token string) error {
	if id < 0 || id >= maxID {
		return invalidf("token %q has id %d, which is not within 0 and %d", token, id, maxID-1)
	}
	return nil
}
