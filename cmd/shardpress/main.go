// Command shardpress compresses language models: `shardpress --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// Exit codes, documented in the root command's help.
const (
	exitFailed      = 1
	exitInvalid     = 2
	exitUnverified  = 3
	exitInterrupted = 130
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with its surroundings as arguments.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second Ctrl-C ends the process at once, which loses nothing
	}()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := known(root, args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(stderr, "shardpress: interrupted; nothing is lost, run the same command again to go on")
		return exitInterrupted
	}
	fmt.Fprintf(stderr, "shardpress: %v\n", err)
	return exitCode(err)
}

// exitCode says whose fault an error is.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case errors.Is(err, errUnverified):
		return exitUnverified
	case errors.As(err, &usage), errors.Is(err, compress.ErrInvalid), errors.Is(err, task.ErrInvalid),
		errors.Is(err, shard.ErrMalformed), errors.Is(err, shard.ErrMissing), errors.Is(err, shard.ErrDuplicate),
		errors.Is(err, shard.ErrUnsupported), errors.Is(err, shard.ErrFused), errors.Is(err, objstore.ErrRoot):
		return exitInvalid
	}
	return exitFailed
}

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "shardpress",
		Short: "Compress language models that are too big for one machine",
		Long: `Shardpress compresses language models. It shards a checkpoint by layer, hands the
layers to workers as tasks, and puts their results together to a checkpoint that
inference engines load. Any worker, and shardpress itself, may be killed at any
time: the same command goes on where it was and ends with the same bytes.

Exit codes: 0 success; 1 the run failed; 2 the command line, the recipe or the
checkpoint is not valid; 3 verify found differences; 130 interrupted.

Environment: SHARDPRESS_KERNEL=scalar|avx2|avx512 chooses the instructions (the
best by default; the bytes are the same with all of them). Of a fleet:
SHARDPRESS_STORE, SHARDPRESS_S3_ENDPOINT, NATS_URL, NATS_CREDS and NATS_NKEY stand
for the flags of these names. The store's account: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_REGION, AWS_CA_BUNDLE and
what else the AWS tools read. The model hub: HF_TOKEN, HF_ENDPOINT. Traces and
metrics: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL,
OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER and OpenTelemetry's others.`,
		Example: `  shardpress demo
  shardpress compress --model ./Llama-3.1-8B --recipe w4a16-rtn --out ./Llama-3.1-8B-w4a16
  shardpress verify --model ./Llama-3.1-8B ./Llama-3.1-8B-w4a16`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	root.AddCommand(newCompress(), newPlan(), newInspect(), newVerify(), newEval(), newGenerate(), newRecipes(), newGC(), newDemo(), newVersion(),
		newBroker(), newCoordinator(), newWorker(), newRuns(), newStatus(), newCancel(), newLogs(), newDoctor(), newHealth())
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

// known refuses commands that there are none of, which cobra answers with help or
// several lines.
func known(root *cobra.Command, args []string) error {
	root.SuggestionsMinimumDistance = 2
	if _, _, err := root.Find(args); err == nil {
		return nil
	}
	for _, name := range args {
		if strings.HasPrefix(name, "-") {
			continue
		}
		if near := root.SuggestionsFor(name); len(near) > 0 {
			return &usageError{fmt.Errorf("unknown command %q: did you mean %s? (see %s --help)", name, near[0], root.Name())}
		}
		return &usageError{fmt.Errorf("unknown command %q (see %s --help)", name, root.Name())}
	}
	return nil
}

// wrapArgs makes wrong arguments, missing flags and empty values usage errors.
func wrapArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		err := check(c, args)
		if err == nil {
			err = c.ValidateRequiredFlags()
		}
		if err == nil {
			err = filled(c, args)
		}
		if err != nil {
			return &usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
		}
		return nil
	}
}

// filled refuses values that are empty: they come from variables that are not set,
// and an empty path would mean the working directory.
func filled(c *cobra.Command, args []string) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" && err == nil {
			err = fmt.Errorf("--%s: the value is empty: is a variable not set?", f.Name)
		}
	})
	for _, a := range args {
		if a == "" && err == nil {
			err = errors.New("an argument is empty: is a variable not set?")
		}
	}
	return err
}

func kernel() (compress.Kernel, error) {
	k := compress.Kernel(os.Getenv("SHARDPRESS_KERNEL"))
	switch k {
	case compress.KernelBest, compress.KernelScalar, compress.KernelAVX2, compress.KernelAVX512:
		return k, nil
	}
	return "", &usageError{fmt.Errorf("SHARDPRESS_KERNEL=%s: want scalar, avx2 or avx512", k)}
}
