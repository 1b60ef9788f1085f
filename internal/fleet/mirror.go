package fleet

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// mirrors is how many files are fetched at once.
const mirrors = 2

// maxFetches is how often a file is fetched that is not what the result's manifest
// says, before it is not the network's fault any more.
const maxFetches = 3

// Mirror fetches a result to another place while it is being made, file by file.
type Mirror struct {
	from, to objstore.Bucket
	// expect is the SHA-256 that a weight file must have, "" if that is not known.
	expect func(ctx context.Context, name string) string
	warn   func(msg string, args ...any)

	queue chan string
	group sync.WaitGroup

	mu   sync.Mutex
	sums map[string]string // SHA-256 of what was fetched, by name
}

// Mirror starts fetching the result of a run to another bucket. Files that an
// earlier mirror has fetched stay.
func (c *Client) Mirror(ctx context.Context, p *coordinator.Plan, out string, to objstore.Bucket) *Mirror {
	m := &Mirror{
		from: objstore.Prefix(c.Store, out), to: to, warn: c.Log.Warn, queue: make(chan string, 1<<16), sums: map[string]string{},
		expect: func(ctx context.Context, name string) string { return c.expected(ctx, p, name) },
	}
	for range mirrors {
		m.group.Go(func() {
			for name := range m.queue {
				if err := m.fetch(ctx, name); err != nil && ctx.Err() == nil {
					m.warn("file not fetched yet", "file", name, "err", err) // Finish does it again
				}
			}
		})
	}
	return m
}

// expected is the SHA-256 of a weight file by the result of the task that makes it.
func (c *Client) expected(ctx context.Context, p *coordinator.Plan, name string) string {
	for _, u := range p.Units {
		if u.File != name {
			continue
		}
		b, err := objstore.ReadAll(ctx, c.Store, task.ResultKey(u.ID), task.MaxResult)
		if err != nil {
			return ""
		}
		r, err := task.ParseResult(u.ID, b)
		if err != nil {
			return ""
		}
		w, err := r.Output(operation.ShardOutput)
		if err != nil {
			return ""
		}
		return w.SHA256
	}
	return ""
}

// Want has a file fetched, as soon as there is time.
func (m *Mirror) Want(name string) {
	select {
	case m.queue <- name:
	default: // Finish does it
	}
}

// fetch copies a file and remembers what it was.
func (m *Mirror) fetch(ctx context.Context, name string) error {
	info, err := m.from.Stat(ctx, name)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	if have, err := m.to.Stat(ctx, name); err == nil && have.Size == info.Size {
		if sum, err := objstore.Digest(ctx, m.to, name); err == nil && sum == m.expect(ctx, name) {
			m.note(name, sum)
			return nil
		}
	}
	r, err := m.from.Get(ctx, name, 0, -1)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	defer r.Close()
	put, err := m.to.Put(ctx, name, r, info.Size, objstore.PutOptions{})
	if err != nil {
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	m.note(name, hex.EncodeToString(put.SHA256[:]))
	return nil
}

func (m *Mirror) note(name, sum string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sums[name] = sum
}

// Stop ends the fetching of a result that will not be finished.
func (m *Mirror) Stop() {
	close(m.queue)
	m.group.Wait()
}

// Finish fetches what is missing or was not what the manifest says, and puts the
// manifest last. The other place then holds the result.
func (m *Mirror) Finish(ctx context.Context) error {
	m.Stop()
	var manifest *coordinator.Manifest
	err := m.insist(ctx, func() (err error) {
		manifest, err = coordinator.ReadManifest(ctx, m.from)
		return err
	})
	if err != nil {
		return fmt.Errorf("fetch result: %w", err)
	}
	for _, f := range manifest.Files {
		for try := 1; m.sums[f.Name] != f.SHA256; try++ {
			if try > maxFetches {
				return fmt.Errorf("fetch %s: %w: its SHA-256 is %s, the manifest says %s: check the store, and run the same command again",
					f.Name, errDamaged, m.sums[f.Name], f.SHA256)
			}
			if err := m.insist(ctx, func() error { return m.fetch(ctx, f.Name) }); err != nil {
				return err
			}
		}
	}
	if err := m.insist(ctx, func() error { return m.fetch(ctx, coordinator.ManifestFile) }); err != nil {
		return err
	}
	if err := m.to.Delete(ctx, coordinator.UnfinishedFile); err != nil {
		return fmt.Errorf("finish result: %w", err)
	}
	return nil
}

// lastPause bounds how long a store may be away that the result is fetched from: the
// pauses double, and make a minute together.
const lastPause = 32 * time.Second

// insist does f again after a while when it fails by what may pass.
func (m *Mirror) insist(ctx context.Context, f func() error) error {
	for pause := pollEvery; ; pause *= 2 {
		err := f()
		if err == nil || pause > lastPause || errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrFull) || errors.Is(err, objstore.ErrReadOnly) {
			return err
		}
		m.warn("result not fetched yet", "err", err)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
	}
}

var errDamaged = errors.New("the fetched bytes are not the result's")
