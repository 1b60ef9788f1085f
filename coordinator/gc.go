package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Collected says what a garbage collection took away, or would take.
type Collected struct {
	Tasks    int   `json:"tasks"`    // whole tasks that were not used for long enough
	Attempts int   `json:"attempts"` // attempts that no result refers to
	Runs     int   `json:"runs"`     // records of runs
	Bytes    int64 `json:"bytes"`    // of objects; bytes that a result still links to stay on the disk
	Kept     int   `json:"kept"`     // tasks that stay
	KeptSize int64 `json:"kept_bytes"`
}

// group is the objects below one task or run.
type group struct {
	kind, name string // "tasks" and the ID, or "runs" and the run
	objects    []objstore.Info
	bytes      int64
	newest     time.Time
}

// Collect removes from a store that nobody works on what was not written for
// longer than age, by the store's own clock: tasks with their results, and records
// of runs. Outputs of attempts that lost or died go at any age. A result goes
// before the bytes it names, so that an interrupted collection leaves only
// garbage.
func Collect(ctx context.Context, store objstore.Bucket, age time.Duration, dry bool) (Collected, error) {
	var c Collected
	now, err := storeTime(ctx, store)
	if err != nil {
		return c, err
	}
	remove := func(info objstore.Info) error {
		c.Bytes += info.Size
		if dry {
			return nil
		}
		return store.Delete(ctx, info.Key)
	}
	finish := func(g *group) error {
		if g == nil {
			return nil
		}
		old := now.Sub(g.newest) >= age
		switch {
		case g.kind == "runs" && old:
			c.Runs++
		case g.kind == "tasks" && old:
			c.Tasks++
		case g.kind == "tasks":
			c.Kept++
			return c.attempts(ctx, store, g, remove)
		default:
			return nil
		}
		for _, first := range []bool{true, false} {
			for _, info := range g.objects {
				if strings.HasSuffix(info.Key, "/result.json") == first {
					if err := remove(info); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	for _, kind := range []string{"runs", "tasks"} {
		var g *group
		for info, err := range store.List(ctx, kind+"/") {
			if err != nil {
				return c, fmt.Errorf("list store: %w", err)
			}
			parts := strings.Split(info.Key, "/")
			name := parts[1]
			if kind == "tasks" && len(parts) > 2 {
				name = parts[2]
			}
			if g == nil || g.name != name {
				if err := finish(g); err != nil {
					return c, err
				}
				g = &group{kind: kind, name: name}
			}
			g.objects = append(g.objects, info)
			g.bytes += info.Size
			if info.ModTime.After(g.newest) {
				g.newest = info.ModTime
			}
		}
		if err := finish(g); err != nil {
			return c, err
		}
	}
	return c, nil
}

// attempts removes outputs that the task's result does not name.
func (c *Collected) attempts(ctx context.Context, store objstore.Bucket, g *group, remove func(objstore.Info) error) error {
	c.KeptSize += g.bytes
	id, err := task.ParseID(g.name)
	if err != nil {
		return nil //nolint:nilerr // nothing of ours: leave it
	}
	attempt := ""
	b, err := readObject(ctx, store, task.ResultKey(id))
	if err != nil && !errors.Is(err, objstore.ErrNotExist) {
		return err
	}
	if r, perr := task.ParseResult(id, b); err == nil && perr == nil {
		attempt = r.Attempt
	}
	dead := map[string]bool{}
	for _, info := range g.objects {
		rest := strings.TrimPrefix(info.Key, task.Prefix(id))
		own, _, nested := strings.Cut(rest, "/")
		if !nested || own == attempt {
			continue
		}
		dead[own] = true
		c.KeptSize -= info.Size
		if err := remove(info); err != nil {
			return err
		}
	}
	c.Attempts += len(dead)
	return nil
}

// storeTime asks the store what time it is, by writing to it: clocks of two
// machines are never compared.
func storeTime(ctx context.Context, store objstore.Bucket) (time.Time, error) {
	const key = "clock"
	info, err := store.Put(ctx, key, strings.NewReader("?"), 1, objstore.PutOptions{})
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	if err := store.Delete(ctx, key); err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	return info.ModTime, nil
}
