// Synth writes a checkpoint with the true names, shapes and types of a published model and weights made up from a generator, so that
// memory and speed can be measured on large models that nobody has to download.
//
//	go run ./tools/synth --config config.json --layers 8 --out DIR
//	go run ./tools/synth --config config.json --shapes shapes.json.gz --layers 2 --out DIR
//
// The same arguments give the same bytes everywhere: each tensor has its own generator, seeded by its name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"time"

	"github.com/shardpress/shardpress/shard"
)

// defaultFileBytes is the size at which Hugging Face's own writer starts a new file.
const defaultFileBytes = 5_000_000_000

type options struct {
	config    string
	shapes    string
	layers    int
	experts   int
	vocab     int
	out       string
	fileBytes int64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "synth:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var o options
	flags := flag.NewFlagSet("synth", flag.ContinueOnError)
	flags.StringVar(&o.config, "config", "", "config.json of the model to imitate")
	flags.StringVar(&o.shapes, "shapes", "", "list of tensors to write in place of those that the model type implies: JSON, or JSON in gzip")
	flags.IntVar(&o.layers, "layers", 0, "decoder blocks to write (0: as many as the config says)")
	flags.IntVar(&o.experts, "experts", 0, "experts to keep of each mixture (0: all of them)")
	flags.IntVar(&o.vocab, "vocab", 0, "rows of embedding and head to keep (0: all of them)")
	flags.StringVar(&o.out, "out", "", "directory to write, absent or empty")
	flags.Int64Var(&o.fileBytes, "file-bytes", defaultFileBytes, "start a new file before one grows beyond this")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("read arguments: %q is not a flag", flags.Arg(0))
	}
	if o.config == "" || o.out == "" {
		return errors.New("read arguments: --config and --out are both needed")
	}
	if o.fileBytes <= 0 {
		return fmt.Errorf("read arguments: --file-bytes %d is not positive", o.fileBytes)
	}

	config, raw, err := readConfig(o.config, o.layers)
	if err != nil {
		return err
	}
	tensors, err := tensorsOf(config, o.shapes)
	if err != nil {
		return err
	}
	if o.experts > 0 {
		tensors = keepExperts(tensors, o.experts)
		if raw, err = replace(raw, o.experts, "n_routed_experts", "num_local_experts", "num_experts"); err != nil {
			return err
		}
	}
	if o.vocab > 0 {
		tensors = cutRows(tensors, o.vocab, "embed_tokens.weight", "lm_head.weight")
		if raw, err = replace(raw, o.vocab, "vocab_size"); err != nil {
			return err
		}
	}
	files, err := divide(tensors, o.fileBytes)
	if err != nil {
		return err
	}
	if err := makeEmpty(o.out); err != nil {
		return err
	}
	start := time.Now()
	total, err := writeCheckpoint(ctx, o.out, files, raw)
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	fmt.Fprintf(stdout, "%s: %d tensors, %d blocks, %d bytes in %d files, %.0f MB/s\n", o.out, len(tensors), config.Layers, total, len(files),
		float64(total)/1e6/max(seconds, 1e-9))
	return nil
}

// tensorsOf lists the tensors to write, from the file of shapes when there is one.
func tensorsOf(config config, shapes string) ([]shard.TensorSpec, error) {
	if shapes == "" {
		return imply(config)
	}
	tensors, err := readShapes(shapes)
	if err != nil {
		return nil, err
	}
	return keepBlocks(tensors, config.Layers), nil
}

// makeEmpty makes the directory, or finds it empty: bytes of another checkpoint must not end up beside ours.
func makeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("make output directory: %w", err)
		}
	case err != nil:
		return fmt.Errorf("read output directory: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("use output directory %s: it holds %s and %d more: name an empty or absent one", dir, entries[0].Name(), len(entries)-1)
	}
	return nil
}
