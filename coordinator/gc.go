package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Collected says what a garbage collection took away, or would take.
type Collected struct {
	Tasks    int   `json:"tasks"`    // whole tasks that were not used for long enough
	Attempts int   `json:"attempts"` // attempts that no result refers to
	Runs     int   `json:"runs"`     // records of runs
	Sources  int   `json:"sources"`  // checkpoints that were uploaded
	Bytes    int64 `json:"bytes"`    // of objects; bytes that a result still links to stay on the disk
	Kept     int   `json:"kept"`     // tasks that stay
	KeptSize int64 `json:"kept_bytes"`
}

// group is the objects below one task or run.
type group struct {
	kind, name string // "tasks" and the ID, "runs" and the run, or "sources" and the ID
	objects    []objstore.Info
	bytes      int64
	newest     time.Time
}

// CollectOptions say what a garbage collection may take.
type CollectOptions struct {
	// Age is how long something must not have been written or used before it goes.
	Age time.Duration
	// Dry only counts.
	Dry bool
	// Idle says that no run works on the store: pins are left from runs that died.
	Idle bool
}

// Collect removes from a store what was not written or used for long enough, by the
// store's own clock: tasks with their results, records of runs, and checkpoints that
// were uploaded. A task or an upload is in use by the runs whose records are younger.
// What a pinned run names stays at any age. Outputs of attempts that lost or died go at any age, except those of
// pinned runs. A result goes before the bytes it names, so that an interrupted
// collection leaves only garbage.
func Collect(ctx context.Context, store objstore.Bucket, o CollectOptions) (Collected, error) {
	now, err := storeTime(ctx, store)
	if o.Dry && errors.Is(err, objstore.ErrReadOnly) {
		now, err = newest(ctx, store)
	}
	if err != nil {
		return Collected{}, err
	}
	c := &collection{CollectOptions: o, store: store, now: now, pinned: map[task.ID]bool{}, used: map[task.ID]bool{}, open: map[string]bool{}, sources: map[string]bool{}}
	// A run that was submitted is kept until it is over, however long nobody drives it.
	open, err := OpenRuns(ctx, store)
	if err != nil {
		return Collected{}, err
	}
	for _, run := range open {
		c.open[run] = true
	}
	// Runs first: they say which tasks and uploads are in use.
	for _, kind := range []string{"runs", "tasks", "sources"} {
		if err := c.groups(ctx, kind); err != nil {
			return c.done, err
		}
	}
	return c.done, nil
}

// collection is a garbage collection under way.
type collection struct {
	CollectOptions
	store        objstore.Bucket
	now          time.Time
	pinned, used map[task.ID]bool
	open         map[string]bool // runs that are not over
	sources      map[string]bool // locations that kept runs read
	done         Collected
}

// groups gathers the objects of each run or task and settles its fate.
func (c *collection) groups(ctx context.Context, kind string) error {
	var g *group
	finish := func() error {
		switch {
		case g == nil:
			return nil
		case g.kind == "runs":
			return c.run(ctx, g)
		case g.kind == "sources":
			return c.source(ctx, g)
		default:
			return c.task(ctx, g)
		}
	}
	for info, err := range c.store.List(ctx, kind+"/") {
		if err != nil {
			return fmt.Errorf("list store: %w", err)
		}
		parts := strings.Split(info.Key, "/")
		name := parts[1]
		if kind == "tasks" && len(parts) > 2 {
			name = parts[2]
		}
		if g == nil || g.name != name {
			if err := finish(); err != nil {
				return err
			}
			g = &group{kind: kind, name: name}
		}
		g.objects = append(g.objects, info)
		g.bytes += info.Size
		if info.ModTime.After(g.newest) {
			g.newest = info.ModTime
		}
	}
	return finish()
}

// run collects the record of a run, or notes what the run keeps.
func (c *collection) run(ctx context.Context, g *group) error {
	prefix := "runs/" + g.name + "/"
	keep := map[task.ID]bool(nil)
	if c.now.Sub(g.newest) < c.Age {
		keep = c.used
	}
	for _, info := range g.objects {
		if info.Key == prefix+PinName && !c.Idle && c.now.Sub(info.ModTime) < PinExpires {
			keep = c.pinned
		}
	}
	if c.open[g.name] {
		keep = c.pinned
	}
	if keep == nil {
		c.done.Runs++
		return c.remove(ctx, g, prefix+PlanName)
	}
	switch sub, err := ReadSubmission(ctx, c.store, g.name); {
	case err == nil:
		c.sources[sub.Source] = true
	case !errors.Is(err, objstore.ErrNotExist) && !errors.Is(err, objstore.ErrTooLarge) && !errors.Is(err, task.ErrInvalid):
		return err
	}
	o, err := ReadOutline(ctx, c.store, g.name)
	if err != nil || o == nil { // without it the tasks are kept by their own age
		return err
	}
	for _, u := range o.Units {
		keep[u.Task] = true
	}
	return nil
}

// source collects a checkpoint that was uploaded.
func (c *collection) source(ctx context.Context, g *group) error {
	if c.sources[source.Uploaded(g.name)] || c.now.Sub(g.newest) < c.Age {
		c.done.KeptSize += g.bytes
		return nil
	}
	c.done.Sources++
	return c.remove(ctx, g, "sources/"+g.name+"/source.json") // what makes it a checkpoint
}

// task collects a task, or what its attempts left behind.
func (c *collection) task(ctx context.Context, g *group) error {
	id, err := task.ParseID(g.name)
	if err != nil {
		return nil //nolint:nilerr // nothing of ours: leave it
	}
	switch {
	case c.pinned[id]:
		c.done.Kept++
		c.done.KeptSize += g.bytes
		return nil
	case c.used[id] || c.now.Sub(g.newest) < c.Age:
		c.done.Kept++
		return c.attempts(ctx, id, g)
	}
	c.done.Tasks++
	return c.remove(ctx, g, task.ResultKey(id))
}

// remove removes the objects of a group, the one named first first.
func (c *collection) remove(ctx context.Context, g *group, first string) error {
	for _, turn := range []bool{true, false} {
		for _, info := range g.objects {
			if (info.Key == first) == turn {
				if err := c.delete(ctx, info); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *collection) delete(ctx context.Context, info objstore.Info) error {
	c.done.Bytes += info.Size
	if c.Dry {
		return nil
	}
	return c.store.Delete(ctx, info.Key)
}

// attempts removes outputs that the task's result does not name.
func (c *collection) attempts(ctx context.Context, id task.ID, g *group) error {
	c.done.KeptSize += g.bytes
	attempt := ""
	b, err := objstore.ReadAll(ctx, c.store, task.ResultKey(id), task.MaxResult)
	if err != nil && !errors.Is(err, objstore.ErrNotExist) && !errors.Is(err, objstore.ErrTooLarge) {
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
		c.done.KeptSize -= info.Size
		if err := c.delete(ctx, info); err != nil {
			return err
		}
	}
	c.done.Attempts += len(dead)
	return nil
}

// newest is the time of the last write to a store that cannot be asked: it is
// that late at least by the store's clock. Ages count from it, so that more may be
// old than a dry collection says.
func newest(ctx context.Context, store objstore.Bucket) (last time.Time, err error) {
	for info, err := range store.List(ctx, "") {
		if err != nil {
			return last, fmt.Errorf("list store: %w", err)
		}
		if info.ModTime.After(last) {
			last = info.ModTime
		}
	}
	return last, nil
}

// storeTime asks the store what time it is, by writing to it: clocks of two
// machines are never compared.
func storeTime(ctx context.Context, store objstore.Bucket) (time.Time, error) {
	const key = "clock"
	info, err := store.Put(ctx, key, strings.NewReader("?"), 1, objstore.PutOptions{})
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	// Also when the collection is stopped just now. One that was killed here leaves
	// the object to the next.
	if err := store.Delete(context.WithoutCancel(ctx), key); err != nil {
		return time.Time{}, fmt.Errorf("ask the store for its time: %w", err)
	}
	return info.ModTime, nil
}
