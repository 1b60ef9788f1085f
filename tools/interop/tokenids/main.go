// Command tokenids encodes and decodes for `make interop-tokenizers`: it reads one JSON string a line, and for each writes a line with the ids that
// internal/tokenizer gives it (with and without what the post-processor adds), and the texts of these ids (without and with special tokens).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/shardpress/shardpress/internal/tokenizer"
)

type answer struct {
	IDs    []int  `json:"ids"`
	Plain  []int  `json:"plain"`
	Text   string `json:"text"`
	Whole  string `json:"whole"`
	Tokens int    `json:"tokens"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tokenids:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: tokenids TOKENIZER.json < LINES > ANSWERS")
	}
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	t, err := tokenizer.Parse(data)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	in, enc := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(out)
	for in.More() {
		var text string
		if err := in.Decode(&text); err != nil {
			return err
		}
		a := answer{IDs: t.Encode(text, true), Plain: t.Encode(text, false)}
		a.Text, a.Whole, a.Tokens = t.Decode(a.IDs, true), t.Decode(a.IDs, false), len(a.IDs)
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	return out.Flush()
}
