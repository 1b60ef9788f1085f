package local_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/task"
)

// The moments of a run at which a stored object is damaged.
const (
	onceWritten  = "once written"
	beforePlaced = "before it is placed"
	afterPlaced  = "after it is placed"
	atAssembly   = "at the assembly"
)

// damages are what may happen to a file.
func damages() map[string]func(path string) error {
	if testing.Short() {
		return map[string]func(string) error{"deleted": os.Remove, "flipped": flip}
	}
	return map[string]func(string) error{
		"deleted": os.Remove,
		"truncated": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.Truncate(path, info.Size()/2)
		},
		"flipped": flip,
		"replaced": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(path+"~", b, 0o600); err != nil {
				return err
			}
			return os.Rename(path+"~", path)
		},
	}
}

// flip changes a byte in place. A file system's clock ticks every few milliseconds:
// the byte is written until the time of the file has moved on, as it has for
// whoever damages a file later than within the tick in which it was written.
func flip(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return err
	}
	at := before.Size() / 2
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1
	for {
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
		if now, err := f.Stat(); err != nil || !now.ModTime().Equal(before.ModTime()) {
			return err
		}
	}
}

// objects finds the files of a store that belong to a task and have that name, or
// those of a run.
func objects(store string, id task.ID, name string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(store, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			return err
		}
		if e.IsDir() && strings.HasPrefix(e.Name(), ".") && path != store {
			return fs.SkipDir
		}
		of := id.String()
		if strings.HasPrefix(name, "runs/") {
			of = "runs"
		}
		if !e.IsDir() && e.Name() == filepath.Base(name) && strings.Contains(path, "/"+of+"/") {
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

// harm damages an object of a run once, at a moment.
type harm struct {
	store, moment, name string
	unit                coordinator.Unit
	damage              func(string) error

	once sync.Once
	done bool
	err  error
}

func (h *harm) strike() {
	h.once.Do(func() {
		paths, err := objects(h.store, h.unit.ID, h.name)
		h.err, h.done = err, len(paths) > 0
		for _, path := range paths {
			h.err = errors.Join(h.err, h.damage(path))
		}
	})
}

func (h *harm) intercept(c *call, do func() error) error {
	mine := c.on == "store" && c.op == "put" && strings.HasSuffix(c.key, filepath.Base(h.name)) &&
		(strings.Contains(c.key, h.unit.ID.String()) || strings.HasPrefix(h.name, "runs/") && strings.HasPrefix(c.key, "runs/"))
	place := c.on == "out" && c.op == "copy" && c.key == h.unit.File
	assemble := c.on == "out" && c.op == "put" && c.key == "config.json"
	if h.moment == beforePlaced && place || h.moment == atAssembly && assemble {
		h.strike()
	}
	err := do()
	if h.moment == onceWritten && mine || h.moment == afterPlaced && place {
		h.strike()
	}
	return err
}

// TestEveryDamageOfTheStore damages each object of the store in turn, in each way
// and at each moment, and wants the result of a calm run.
func TestEveryDamageOfTheStore(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 2)
	want := calm(t, model)
	_, plan, err := local.Open(t.Context(), mustJob(t, model, ""))
	if err != nil {
		t.Fatal(err)
	}
	for i, unit := range plan.Units {
		if testing.Short() && i > 0 {
			break
		}
		for _, name := range []string{"task.json", "result.json", "shard.safetensors", "linears.json", "runs/plan.json", "runs/pin"} {
			for way, damage := range damages() {
				for _, moment := range []string{onceWritten, beforePlaced, afterPlaced, atAssembly} {
					if strings.HasPrefix(name, "runs/") && (i > 0 || moment == beforePlaced || moment == afterPlaced) {
						continue
					}
					t.Run(fmt.Sprintf("unit %d %s %s %s", i, strings.ReplaceAll(name, "/", " "), way, moment), func(t *testing.T) {
						t.Parallel()
						out := filepath.Join(t.TempDir(), "out")
						h := &harm{store: local.DefaultStore(out), moment: moment, name: name, unit: unit, damage: damage}
						j := mustJob(t, model, out)
						j.Workers = 2
						j.Wrap = tapped(h.intercept)
						if _, err := local.Run(t.Context(), j); err != nil {
							t.Error(err)
						}
						if !h.done || h.err != nil {
							t.Errorf("no damage was done: %v", h.err)
						}
						if err := same(out, want); err != nil {
							t.Error(err)
						}
					})
				}
			}
		}
	}
}

// TestEveryDamageOfTheOutput does the same to the files of the result while it is
// being made.
func TestEveryDamageOfTheOutput(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 1)
	want := calm(t, model)
	for name := range want {
		if name == coordinator.ManifestFile {
			continue // with it the result is finished
		}
		for way, damage := range damages() {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				out := filepath.Join(t.TempDir(), "out")
				j := mustJob(t, model, out)
				struck := false
				j.Wrap = tapped(func(c *call, do func() error) error {
					err := do()
					if c.on == "out" && (c.op == "put" || c.op == "copy") && c.key == name && !struck {
						struck = true
						err = errors.Join(err, damage(filepath.Join(out, name)))
					}
					return err
				})
				if _, err := local.Run(t.Context(), j); err != nil || !struck {
					t.Errorf("%v, struck: %v", err, struck)
				}
				if err := same(out, want); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestDamageBetweenRuns damages what an earlier run left, before the same result is
// made elsewhere from the same store.
func TestDamageBetweenRuns(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 2)
	want := calm(t, model)
	_, plan, err := local.Open(t.Context(), mustJob(t, model, ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"task.json", "result.json", "shard.safetensors", "linears.json"} {
		for way, damage := range damages() {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				first := filepath.Join(dir, "first")
				if _, err := local.Run(t.Context(), mustJob(t, model, first)); err != nil {
					t.Fatal(err)
				}
				for _, u := range plan.Units {
					paths, err := objects(local.DefaultStore(first), u.ID, name)
					if err != nil || len(paths) != 1 {
						t.Fatalf("%d objects %s, %v", len(paths), name, err)
					}
					if err := damage(paths[0]); err != nil {
						t.Fatal(err)
					}
				}
				if err := finish(t.Context(), model, filepath.Join(dir, "second"), want); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestBytesOfTheStoreAreLinked holds the decorators to what they must let through:
// else damage of the store would spare the result, and tests prove nothing.
func TestBytesOfTheStoreAreLinked(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	j := mustJob(t, tinyModel(t, 1), out)
	j.Wrap = tapped(func(_ *call, do func() error) error { return do() })
	if _, err := local.Run(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(out, "*.safetensors"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink != 2 {
			t.Errorf("%s has %d names, want one in the store and one in the result", f, st.Nlink)
		}
	}
}
