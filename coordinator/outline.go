package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Outline is what people, and the collector of garbage, need to know of a plan:
// runs/<run>/plan.json.
type Outline struct {
	Version int           `json:"version"`
	Recipe  string        `json:"recipe"` // its name
	Format  string        `json:"format"`
	Notes   []string      `json:"notes"`
	Units   []OutlineUnit `json:"units"`
}

// OutlineUnit is one weight file of the result.
type OutlineUnit struct {
	Task   task.ID `json:"task"`
	File   string  `json:"file"`
	Source int64   `json:"source_bytes"`
	Result int64   `json:"result_bytes"`
	Memory int64   `json:"memory"`
}

const outlineVersion = 1

// Outline says in short what a plan does.
func (p *Plan) Outline() *Outline {
	o := &Outline{Version: outlineVersion, Recipe: p.Recipe.Name, Format: p.Format, Notes: p.Notes, Units: make([]OutlineUnit, len(p.Units))}
	for i, u := range p.Units {
		o.Units[i] = OutlineUnit{u.ID, u.File, u.Layout.SourceBytes, u.Layout.Size(), u.Layout.Memory}
	}
	return o
}

// SourceBytes and ResultBytes are read and written in all.
func (o *Outline) SourceBytes() (n int64) {
	for _, u := range o.Units {
		n += u.Source
	}
	return n
}

// ResultBytes is the size of the result's weight files.
func (o *Outline) ResultBytes() (n int64) {
	for _, u := range o.Units {
		n += u.Result
	}
	return n
}

// ReadOutline reads the outline of a run's plan; nil if the run has none yet, or a
// damaged one.
func ReadOutline(ctx context.Context, store objstore.Bucket, run string) (*Outline, error) {
	b, err := readObject(ctx, store, RunKey(run, PlanName))
	if errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrTooLarge) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read plan of run %s: %w", run, err)
	}
	var o Outline
	if err := json.Unmarshal(b, &o); err != nil || o.Version != outlineVersion {
		return nil, nil //nolint:nilerr // counts as none
	}
	return &o, nil
}
