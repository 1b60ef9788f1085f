package coordinator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

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

// Inspect looks at an output before a run and says why a finished or foreign one
// is not the plan's. A finished result counts as the plan's only if the store still
// holds the results it was made of: recipe and shapes alone would not notice
// weights that were rewritten.
func Inspect(ctx context.Context, out, store objstore.Bucket, p *Plan) (state OutputState, why string, err error) {
	b, err := readObject(ctx, out, ManifestFile)
	if errors.Is(err, objstore.ErrNotExist) {
		return begun(ctx, out)
	}
	if err != nil {
		return 0, "", fmt.Errorf("read output: %w", err)
	}
	m, err := ParseManifest(b)
	if err != nil {
		return Foreign, ManifestFile + " is none of shardpress", nil //nolint:nilerr // some other program's
	}
	if why, err = unlike(p, m); err != nil {
		return 0, "", err
	}
	if why != "" {
		return Other, why, nil
	}
	for _, f := range m.Files {
		info, err := out.Stat(ctx, f.Name)
		if err != nil && !errors.Is(err, objstore.ErrNotExist) {
			return 0, "", fmt.Errorf("read output: %w", err)
		}
		if err != nil || info.Size != f.Size {
			return Other, "its file " + f.Name + " is missing or changed", nil //nolint:nilerr // a missing file is no failure to look
		}
	}
	sums := m.sums()
	for _, u := range p.Units {
		b, err := objstore.ReadAll(ctx, store, task.ResultKey(u.ID), task.MaxResult)
		if err != nil && !errors.Is(err, objstore.ErrNotExist) && !errors.Is(err, objstore.ErrTooLarge) {
			return 0, "", fmt.Errorf("read store: %w", err)
		}
		r, perr := task.ParseResult(u.ID, b)
		if err != nil || perr != nil {
			return Other, "its tasks are no longer in the store, so that it may have been made of other source bytes (the source was rewritten or touched, or the store was collected or is another one; shardpress verify --model can tell)", nil //nolint:nilerr // an unreadable result counts as absent
		}
		if w, err := r.Output(operation.ShardOutput); err != nil || w.SHA256 != sums[u.File] {
			return Other, "its file " + u.File + " was made of other source bytes", nil //nolint:nilerr // likewise
		}
	}
	return Complete, "", nil
}

// unlike says in what a result differs from what the plan would make, as far as
// its table of contents tells.
func unlike(p *Plan, m *Manifest) (string, error) {
	want, err := p.Recipe.Canonical()
	if err != nil {
		return "", err
	}
	if want, err = task.CanonicalJSON(want); err != nil {
		return "", err
	}
	if have, err := task.CanonicalJSON(m.Recipe); err != nil || !bytes.Equal(have, want) {
		return "it was made by another recipe", nil //nolint:nilerr // what is no JSON is another recipe
	}
	if !slices.Equal(m.Source, sources(p)) {
		return "it was made of other source files", nil
	}
	sums := m.sums()
	for _, doc := range []document{{configFile, p.Config}, {indexFile, p.Index}} {
		sum := sha256.Sum256(doc.data)
		if have, ok := sums[doc.name]; ok != (doc.data != nil) || ok && have != hex.EncodeToString(sum[:]) {
			return "its " + doc.name + " is not what the source's has become", nil
		}
	}
	for _, x := range p.Manifest.Extras {
		if sums[x.Name] != x.SHA256 {
			return "the source's " + x.Name + " is another one now", nil
		}
	}
	if extra := len(p.names()) - len(m.Files); extra != 0 {
		return "the source holds other files beside its weights now", nil
	}
	return "", nil
}

// sums are the checksums of a result's files by name.
func (m *Manifest) sums() map[string]string {
	sums := make(map[string]string, len(m.Files))
	for _, f := range m.Files {
		sums[f.Name] = f.SHA256
	}
	return sums
}

// names lists the files of the plan's result, but for the manifest.
func (p *Plan) names() []string {
	var names []string
	for _, u := range p.Units {
		names = append(names, u.File)
	}
	for _, doc := range []document{{configFile, p.Config}, {indexFile, p.Index}, {ReportFile, []byte{}}} {
		if doc.data != nil {
			names = append(names, doc.name)
		}
	}
	for _, x := range p.Manifest.Extras {
		names = append(names, x.Name)
	}
	return names
}

// unfinished is the mark of a result that is being made. It names the files that
// belong to it, so that what an abandoned attempt left can be told from what is
// somebody else's.
type unfinished struct {
	Note  string   `json:"note"`
	Files []string `json:"files"`
}

// readUnfinished reads the mark; a damaged one names nothing.
func readUnfinished(ctx context.Context, out objstore.Bucket) (u unfinished, there bool, err error) {
	b, err := readObject(ctx, out, UnfinishedFile)
	if errors.Is(err, objstore.ErrNotExist) {
		return u, false, nil
	}
	if err != nil {
		return u, false, fmt.Errorf("read output: %w", err)
	}
	// A finished result that is being replaced: its table of contents became the mark.
	if m, err := ParseManifest(b); err == nil {
		for _, f := range m.Files {
			u.Files = append(u.Files, f.Name)
		}
		return u, true, nil
	}
	if err := json.Unmarshal(b, &u); err != nil {
		return unfinished{}, true, nil //nolint:nilerr // see above
	}
	return u, true, nil
}

// begun tells an empty output from one that was begun and from a folder that holds
// something else.
func begun(ctx context.Context, out objstore.Bucket) (OutputState, string, error) {
	u, there, err := readUnfinished(ctx, out)
	if err != nil {
		return 0, "", err
	}
	own := map[string]bool{UnfinishedFile: true}
	for _, name := range u.Files {
		own[name] = true
	}
	for info, err := range out.List(ctx, "") {
		if err != nil {
			return 0, "", fmt.Errorf("read output: %w", err)
		}
		if !own[info.Key] {
			return Foreign, "it holds " + info.Key, nil
		}
	}
	if there {
		return Unfinished, "", nil
	}
	return Empty, "", nil
}

// Begin marks the output as an unfinished result of the plan. Files of an earlier
// attempt stay its own.
func (o *Output) Begin(ctx context.Context, p *Plan) error {
	old, _, err := readUnfinished(ctx, o.bucket)
	if err != nil {
		return err
	}
	files := append(p.names(), old.Files...)
	slices.Sort(files)
	b, err := json.MarshalIndent(unfinished{
		Note:  "This result is being made by shardpress. Run the same command again to go on.",
		Files: slices.Compact(files),
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("begin result: %w", err)
	}
	_, err = o.put(ctx, UnfinishedFile, bytes.NewReader(b), int64(len(b)))
	return err
}
