package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/story"
)

// TestFormatsAgree reads both formats back: the same texts, whose bits sum to the printed total.
func TestFormatsAgree(t *testing.T) {
	t.Parallel()
	var lines, text bytes.Buffer
	total, err := write(&lines, 3, 20, "jsonl")
	if err != nil {
		t.Fatal(err)
	}
	same, err := write(&text, 3, 20, "text")
	if err != nil || same != total {
		t.Fatalf("totals %v and %v, error %v", total, same, err)
	}
	stories, err := story.New(0)
	if err != nil {
		t.Fatal(err)
	}
	var bits float64
	var size int64
	var joined strings.Builder
	for line := range strings.Lines(lines.String()) {
		var s struct {
			Text string
			Bits float64
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		again, err := stories.Bits(s.Text)
		if err != nil || math.Abs(again-s.Bits) > 1e-9 {
			t.Errorf("bits %v, from the text %v, error %v", s.Bits, again, err)
		}
		bits += s.Bits
		size += int64(len(s.Text))
		joined.WriteString(s.Text + "\n<|endoftext|>\n")
	}
	if math.Abs(bits-total.bits) > 1e-9 || size != total.bytes {
		t.Errorf("%v bits and %d bytes in the lines, %v and %d in the totals", bits, size, total.bits, total.bytes)
	}
	if joined.String() != text.String() {
		t.Error("formats hold different stories")
	}
}

func TestRunErrors(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "stories")
	if err := run(1, 1, "xml", out); err == nil || !strings.Contains(err.Error(), "xml") {
		t.Errorf("unknown format: error %v", err)
	}
	if err := run(1, 1, "text", filepath.Join(out, "below")); err == nil {
		t.Error("an output that cannot be created: no error")
	}
	if err := run(1, 2, "text", out); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(out); err != nil || strings.Count(string(b), "<|endoftext|>\n") != 2 {
		t.Errorf("%d bytes, error %v", len(b), err)
	}
}
