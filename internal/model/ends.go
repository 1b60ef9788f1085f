package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/shardpress/shardpress/shard"
)

const (
	generationName = "generation_config.json"
	generationMax  = 1 << 20 // bytes; published ones have some hundred
)

// Ends reads which tokens end a text: eos_token_id of generation_config.json in a checkpoint's directory, of config.json if the file is not
// there. None may.
func (m *Model) Ends(dir fs.FS) ([]int, error) {
	f, err := dir.Open(generationName)
	if errors.Is(err, fs.ErrNotExist) {
		if m.ck.Config == nil {
			return nil, nil
		}
		ends, err := parseEnds(m.ck.Config)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", shard.ConfigName, err)
		}
		return ends, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", generationName, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, generationMax+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", generationName, err)
	}
	if len(data) > generationMax {
		return nil, fmt.Errorf("read %s: it has more than %d bytes: %w", generationName, generationMax, ErrConfig)
	}
	ends, err := parseEnds(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", generationName, err)
	}
	return ends, nil
}

// parseEnds reads eos_token_id, which may be a token or a list of them.
func parseEnds(data []byte) ([]int, error) {
	var c struct {
		End json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if c.End == nil || string(c.End) == "null" {
		return nil, nil
	}
	var one int
	if json.Unmarshal(c.End, &one) == nil {
		return []int{one}, nil
	}
	var many []int
	if err := json.Unmarshal(c.End, &many); err != nil {
		return nil, fmt.Errorf("eos_token_id: want a token or a list of them: %w", ErrConfig)
	}
	return many, nil
}
