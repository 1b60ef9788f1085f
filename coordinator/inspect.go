package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// OutputState is what stands where a result is wanted.
type OutputState int

// The states of an output.
const (
	Empty      OutputState = iota // nothing
	Unfinished                    // a result that was begun
	Complete                      // the very result that the plan makes
	Other                         // a finished result that the plan does not make, or cannot be shown to
	Foreign                       // something that is no result
)

// Inspect looks at an output before a run. A finished result counts as the plan's
// only if the store still holds the results it was made of: the recipe and the
// shapes alone would not notice weights that were rewritten.
func Inspect(ctx context.Context, out, store objstore.Bucket, p *Plan) (OutputState, error) {
	b, err := readObject(ctx, out, ManifestFile)
	if errors.Is(err, objstore.ErrNotExist) {
		return unfinished(ctx, out)
	}
	if err != nil {
		return 0, fmt.Errorf("read output: %w", err)
	}
	m, err := ParseManifest(b)
	if err != nil {
		return Foreign, nil //nolint:nilerr // some other program's MANIFEST.json
	}
	want, err := p.Recipe.Canonical()
	if err != nil {
		return 0, err
	}
	have, err := task.CanonicalJSON(m.Recipe)
	if err != nil {
		return Foreign, nil //nolint:nilerr // likewise
	}
	if want, err = task.CanonicalJSON(want); err != nil {
		return 0, err
	}
	if !bytes.Equal(have, want) {
		return Other, nil
	}
	sums := map[string]string{}
	for _, f := range m.Files {
		sums[f.Name] = f.SHA256
		info, err := out.Stat(ctx, f.Name)
		if err != nil && !errors.Is(err, objstore.ErrNotExist) {
			return 0, fmt.Errorf("read output: %w", err)
		}
		if err != nil || info.Size != f.Size {
			return Other, nil //nolint:nilerr // a missing file is no failure to look
		}
	}
	for _, u := range p.Units {
		b, err := readObject(ctx, store, task.ResultKey(u.ID))
		if errors.Is(err, objstore.ErrNotExist) {
			return Other, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read store: %w", err)
		}
		r, err := task.ParseResult(u.ID, b)
		if err != nil {
			return Other, nil //nolint:nilerr // an unreadable result counts as absent
		}
		if w, err := r.Output(operation.ShardOutput); err != nil || w.SHA256 != sums[u.File] {
			return Other, nil //nolint:nilerr // likewise
		}
	}
	return Complete, nil
}

// unfinished tells an empty output from one that was begun and from a folder of
// something else.
func unfinished(ctx context.Context, out objstore.Bucket) (OutputState, error) {
	_, err := out.Stat(ctx, UnfinishedFile)
	if err == nil {
		return Unfinished, nil
	}
	if !errors.Is(err, objstore.ErrNotExist) {
		return 0, fmt.Errorf("read output: %w", err)
	}
	for _, err := range out.List(ctx, "") {
		if err != nil {
			return 0, fmt.Errorf("read output: %w", err)
		}
		return Foreign, nil
	}
	return Empty, nil
}

// Begin marks the output as an unfinished result.
func (o *Output) Begin(ctx context.Context) error {
	note := []byte(`{"note":"This result is being made by shardpress. Run the same command again to go on."}` + "\n")
	_, err := o.put(ctx, UnfinishedFile, bytes.NewReader(note), int64(len(note)))
	return err
}
