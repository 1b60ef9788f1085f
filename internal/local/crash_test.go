package local_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shardpress/shardpress/internal/local"
)

// childEnv makes the test binary a run of its own, which can be killed.
const childEnv = "SHARDPRESS_TEST_CHILD"

// child says what such a process does.
type child struct {
	Model, Out string
	Workers    int
	Overwrite  bool
	// CrashAt is the operation, from 1, after which the process kills itself.
	CrashAt int64
	// Tell prints a line after each operation.
	Tell bool
}

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	if err := c.run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (c *child) run() error {
	j, err := newJob(c.Model, c.Out)
	if err != nil {
		return err
	}
	j.Workers, j.Overwrite = c.Workers, c.Overwrite
	var n atomic.Int64
	j.Wrap = tapped(func(op *call, do func() error) error {
		err := do()
		if n.Add(1) == c.CrashAt {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {} // the signal is on its way
		}
		if c.Tell {
			fmt.Println(op.on, op.op, op.key)
		}
		return err
	})
	_, err = local.Run(context.Background(), j)
	if errors.Is(err, local.ErrComplete) {
		return nil
	}
	return err
}

// command is the process that does c.
func (c *child) command(ctx context.Context) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	return cmd, nil
}

// killed reports whether a process died of SIGKILL.
func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// stop and resume hold a process still where it is.
func stop(cmd *exec.Cmd) error   { return cmd.Process.Signal(syscall.SIGSTOP) }
func resume(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGCONT) }

// crashPoints kills a process after its n-th operation, for n = 1 and every
// stride-th after it, until one ends undisturbed. After each death the same
// command must end with the same bytes. begin makes what a process starts from.
func crashPoints(t *testing.T, stride int64, c child, begin func(out string) error, want map[string]string) {
	t.Helper()
	var next, points atomic.Int64
	next.Store(1 - stride)
	var ended atomic.Bool
	base := t.TempDir()
	one := func(n int64) error {
		dir := filepath.Join(base, fmt.Sprint(n))
		defer os.RemoveAll(dir)
		c := c
		c.Out, c.CrashAt = filepath.Join(dir, "out"), n
		if err := begin(c.Out); err != nil {
			return err
		}
		cmd, err := c.command(t.Context())
		if err != nil {
			return err
		}
		text, err := cmd.CombinedOutput()
		switch {
		case err == nil:
			ended.Store(true)
			return same(c.Out, want)
		case !killed(err):
			return fmt.Errorf("%w\n%s", err, text)
		}
		points.Add(1)
		j, err := newJob(c.Model, c.Out)
		if err != nil {
			return err
		}
		j.Overwrite, j.Workers = c.Overwrite, c.Workers
		if _, err := local.Run(t.Context(), j); err != nil && !errors.Is(err, local.ErrComplete) {
			return fmt.Errorf("run again: %w", err)
		}
		return same(c.Out, want)
	}
	var g sync.WaitGroup
	for range 2 {
		g.Go(func() {
			for !ended.Load() && t.Context().Err() == nil {
				n := next.Add(stride)
				if err := one(n); err != nil {
					t.Errorf("killed after operation %d: %v", n, err)
				}
			}
		})
	}
	g.Wait()
	t.Logf("%d crash points", points.Load())
	if n := points.Load() * stride; n < 50 {
		t.Errorf("only %d operations: are they counted?", n)
	}
}

func stride(full int64) int64 {
	if testing.Short() {
		return full
	}
	return 1
}

func TestEveryCrashPointEndsWithTheSameBytes(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 2)
	crashPoints(t, stride(19), child{Model: model, Workers: 1}, func(string) error { return nil }, calm(t, model))
}

// TestEveryCrashPointOfAReplacement is the same where a finished result of another
// recipe is replaced.
func TestEveryCrashPointOfAReplacement(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 1)
	begin := func(out string) error {
		j, err := newJob(model, out)
		if err != nil {
			return err
		}
		if err := j.Recipe.Set("bits", "8"); err != nil {
			return err
		}
		_, err = local.Run(t.Context(), j)
		return err
	}
	crashPoints(t, stride(19), child{Model: model, Workers: 2, Overwrite: true}, begin, calm(t, model))
}

// TestKilledAgainAndAgain kills a longer run from outside at moments that it does
// not choose, and lets the next one go on, until it was killed twenty times.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	kills := 20
	if testing.Short() {
		kills = 2
	}
	model := tinyModel(t, 12)
	want := calm(t, model)
	random := rand.New(rand.NewPCG(20, 20))
	base := t.TempDir()
	for n, round := 0, 0; n < kills; round++ {
		out := filepath.Join(base, fmt.Sprint(round), "out")
		for ended := false; !ended && n < kills; {
			var err error
			if ended, err = killAfter(t, &child{Model: model, Out: out, Workers: 2, Tell: true}, 1+random.IntN(90)); err != nil {
				t.Fatal(err)
			}
			if !ended {
				n++
			}
		}
		if err := finish(t.Context(), model, out, want); err != nil {
			t.Fatalf("round %d, after %d kills: %v", round, n, err)
		}
	}
}

// killAfter kills the process when it has printed so many lines. It reports
// whether the process ended before.
func killAfter(t *testing.T, c *child, lines int) (ended bool, err error) {
	t.Helper()
	cmd, err := c.command(t.Context())
	if err != nil {
		return false, err
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	var tail []string
	n := 0
	for s := bufio.NewScanner(pipe); s.Scan(); {
		tail = append(tail[max(0, len(tail)-9):], s.Text())
		if n++; n == lines {
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return false, err
			}
		}
	}
	err = cmd.Wait()
	if err != nil && !killed(err) {
		return false, fmt.Errorf("%w\n%s", err, strings.Join(tail, "\n"))
	}
	return err == nil, nil
}
