// Command storytext writes stories of the seeded grammar (internal/story) and
// prints what a perfect model would spend on them.
//
//	go run ./tools/storytext -seed 1 -stories 1000 -format jsonl -out stories.jsonl
//
// Format text puts the line <|endoftext|> after every story; jsonl writes
// {"text":...,"bits":...}, a story a line.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/shardpress/shardpress/internal/story"
)

func main() {
	seed := flag.Uint64("seed", 1, "seed of the stories")
	count := flag.Int("stories", 10, "how many stories")
	format := flag.String("format", "text", "text or jsonl")
	out := flag.String("out", "", "file to write (default: standard output)")
	flag.Parse()
	if err := run(*seed, *count, *format, *out); err != nil {
		fmt.Fprintln(os.Stderr, "storytext:", err)
		os.Exit(1)
	}
}

func run(seed uint64, count int, format, out string) error {
	if format != "text" && format != "jsonl" {
		return fmt.Errorf("unknown format %q: use text or jsonl", format)
	}
	f := os.Stdout
	if out != "" {
		var err error
		if f, err = os.Create(out); err != nil {
			return fmt.Errorf("create output: %w", err)
		}
	}
	total, err := write(f, seed, count, format)
	if out != "" {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	nats := total.bits * math.Ln2
	_, err = fmt.Fprintf(os.Stderr, "seed %d: %d stories, %d bytes, %.4f nats (%.4f a story, %.6f a byte); mean over all stories of the grammar: %.4f nats\n",
		seed, count, total.bytes, nats, nats/float64(max(count, 1)), nats/float64(max(total.bytes, 1)), total.entropy*math.Ln2)
	return err
}

type totals struct {
	bytes         int64 // of the stories, without what stands between them
	bits, entropy float64
}

func write(w io.Writer, seed uint64, count int, format string) (totals, error) {
	var t totals
	stories, err := story.New(seed)
	if err != nil {
		return t, err
	}
	t.entropy = stories.Entropy()
	b := bufio.NewWriter(w)
	lines := json.NewEncoder(b)
	lines.SetEscapeHTML(false)
	for range count {
		text, bits, err := stories.Next()
		if err != nil {
			return t, err
		}
		t.bytes += int64(len(text))
		t.bits += bits
		if format == "jsonl" {
			err = lines.Encode(struct {
				Text string  `json:"text"`
				Bits float64 `json:"bits"`
			}{text, bits})
		} else {
			_, err = fmt.Fprintf(b, "%s\n<|endoftext|>\n", text)
		}
		if err != nil {
			return t, err
		}
	}
	return t, b.Flush()
}
