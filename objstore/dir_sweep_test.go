//go:build unix

package objstore_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/shardpress/shardpress/objstore"
)

// childEnv names the store in which the test binary is to write half an object.
const childEnv = "OBJSTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if root := os.Getenv(childEnv); root != "" {
		putAndHang(root)
	}
	os.Exit(m.Run())
}

// putAndHang writes half an object, says so, and waits to be killed.
func putAndHang(root string) {
	d, err := objstore.OpenDir(root)
	if err != nil {
		panic(err)
	}
	_, err = d.Put(context.Background(), "tasks/a/result", objstore.FromWriter(func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 3<<20)); err != nil {
			return err
		}
		io.WriteString(os.Stdout, "half\n")
		io.Copy(io.Discard, os.Stdin) // ends only if the parent died
		return errors.New("not killed")
	}), 6<<20, objstore.PutOptions{IfAbsent: true})
	panic(err)
}

// A writer that is killed leaves nothing under the name, and what it leaves
// elsewhere is swept.
func TestDirKilled(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+d.Root())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "half\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child was not killed")
	}
	if _, err := d.Stat(t.Context(), "tasks/a/result"); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("Stat: %v, want ErrNotExist", err)
	}
	for info, err := range d.List(t.Context(), "") {
		t.Errorf("List gives %+v, %v", info, err)
	}
	if left := tree(t, d.Root()); len(left) != 1 {
		t.Fatalf("left over: %q, want one temporary file", left)
	}
	if n, err := d.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("Sweep of what is an hour old: %d, %v", n, err)
	}
	if n, err := d.Sweep(t.Context(), 0); n != 1 || err != nil {
		t.Errorf("Sweep: %d, %v; want 1", n, err)
	}
	checkTree(t, d)
	if _, err := d.Put(t.Context(), "tasks/a/result", objstore.FromWriter(func(io.Writer) error { return nil }), 0, objstore.PutOptions{IfAbsent: true}); err != nil {
		t.Errorf("Put after the crash: %v", err)
	}
}

// Age counts from the last write, and only .tmp is swept.
func TestDirSweepAge(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	mustPut(t, d, "kept", "x")
	now := time.Now()
	for name, age := range map[string]time.Duration{"young": time.Minute, "old": 3 * time.Hour, "older": 300 * time.Hour, "ahead": -time.Hour} {
		path := filepath.Join(d.Root(), ".tmp", name)
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(d.Root(), "kept"), now, now.Add(-1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Sweep(t.Context(), 2*time.Hour); n != 2 || err != nil {
		t.Errorf("Sweep: %d, %v; want 2", n, err)
	}
	checkTree(t, d, ".tmp/ahead", ".tmp/young", "kept")
}

// A Put whose temporary file is swept fails, and says why.
func TestDirSweptPut(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	_, err := d.Put(t.Context(), "a", objstore.FromWriter(func(w io.Writer) error {
		n, err := d.Sweep(t.Context(), 0)
		if n != 1 {
			t.Errorf("swept %d files, want 1", n)
		}
		return err
	}), -1, objstore.PutOptions{})
	if err == nil || errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("Put: %v", err)
	}
	checkTree(t, d)
}
