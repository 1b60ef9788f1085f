package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/machine"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/objstore/hub"
)

// jobFlags are the flags that say what to compress and how.
type jobFlags struct {
	model      string
	recipe     string
	set        []string
	hashSource bool
}

func (f *jobFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.model, "model", "", "checkpoint: a Hugging Face directory, a .safetensors file, or hf://owner/name@revision (required)")
	c.Flags().StringVar(&f.recipe, "recipe", "", "preset (see shardpress recipes) or YAML file (required)")
	c.Flags().StringArrayVar(&f.set, "set", nil, "change the recipe: key=value, such as group=32 or output.format=dense (repeatable)")
	c.Flags().BoolVar(&f.hashSource, "hash-source", false, "identify source files by their SHA-256, which reads them once more, rather than by inode, size and time")
	for _, name := range []string{"model", "recipe"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic("shardpress: internal error: " + err.Error())
		}
	}
}

// job makes the job that the flags describe.
func (f *jobFlags) job() (*local.Job, error) {
	r, err := loadRecipe(f.recipe, f.set)
	if err != nil {
		return nil, err
	}
	s, err := salt()
	if err != nil {
		return nil, err
	}
	k, err := kernel()
	if err != nil {
		return nil, err
	}
	j := &local.Job{Model: f.model, Recipe: r, HashSource: f.hashSource, Salt: s, Kernel: k}
	if strings.HasPrefix(f.model, hub.Scheme) {
		if j.Hub, err = source.HubFromEnv(os.Getenv); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// loadRecipe finds a preset or reads a file, and applies the settings to it.
func loadRecipe(name string, set []string) (*recipe.Recipe, error) {
	r, err := recipe.Preset(name)
	if err != nil {
		text, ferr := os.ReadFile(name)
		switch {
		case ferr == nil:
			if r, err = recipe.Parse(name, text); err != nil {
				return nil, err
			}
		case errors.Is(ferr, fs.ErrNotExist) && filepath.Ext(name) == "" && !strings.ContainsRune(name, filepath.Separator):
			return nil, err // meant as a preset
		default:
			return nil, &usageError{fmt.Errorf("read recipe: %w", ferr)}
		}
	}
	overrides := make([][2]string, len(set))
	for i, kv := range set {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, &usageError{fmt.Errorf("--set %s: want key=value", kv)}
		}
		overrides[i] = [2]string{strings.TrimSpace(key), strings.TrimSpace(value)}
	}
	if err := r.SetAll(overrides); err != nil {
		return nil, fmt.Errorf("--%w", err) // "--set group=32: ..."
	}
	return r, r.Validate()
}

// newFile says whether a file could be written to path, before the work that it is
// to tell of.
func newFile(flag, path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return &usageError{fmt.Errorf("%s %s: is a directory: name a file", flag, path)}
	}
	info, err := os.Stat(filepath.Dir(path))
	if err == nil && !info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return &usageError{fmt.Errorf("%s %s: there is no directory %s: make it first", flag, path, filepath.Dir(path))}
	}
	return nil
}

// fleetFlags are the flags that say who does the work.
type fleetFlags struct {
	workers int
	memory  string
	store   string
}

// register names the flags; store says where the store is by default.
func (f *fleetFlags) register(c *cobra.Command, store string) {
	c.Flags().IntVar(&f.workers, "workers", runtime.GOMAXPROCS(0), "tasks at once")
	c.Flags().StringVar(&f.memory, "memory", "", "memory that tasks at once may need together, such as 512M or 8G (default three quarters of the machine's)")
	c.Flags().StringVar(&f.store, "store", "", "directory of the store (default "+store+")")
}

func (f *fleetFlags) apply(j *local.Job) error {
	if f.workers < 1 {
		return &usageError{fmt.Errorf("--workers %d: want at least 1", f.workers)}
	}
	j.Workers, j.Store = f.workers, f.store
	if f.memory == "" {
		j.Memory = machine.Memory() / 4 * 3
		return nil
	}
	n, err := parseBytes(f.memory)
	if err != nil {
		return &usageError{fmt.Errorf("--memory %s: %w", f.memory, err)}
	}
	j.Memory = n
	return nil
}

// parseBytes reads a size: a number with an optional suffix K, M, G or T, binary.
func parseBytes(s string) (int64, error) {
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	shift := 0
	if i := strings.IndexAny(number, "KMGT"); i >= 0 && i == len(number)-1 {
		shift = 10 * (1 + strings.IndexByte("KMGT", number[i]))
		number = number[:i]
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return 0, errors.New("want a size such as 512M or 8G")
	}
	return n << shift, nil
}

// formatBytes writes a size for people.
func formatBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return fmt.Sprintf("%.2f %s", v, units[i])
}
