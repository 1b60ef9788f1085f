package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/shardpress/shardpress/objstore"
)

// Names of a run's objects below runs/<run>/ that others read.
const (
	PinName  = "pin"
	PlanName = "plan.json"

	forgottenName = "forgotten" // NoReuse has removed the results that there were
)

// open writes what the run is about to do.
func (d *driver) open(ctx context.Context) error {
	d.pinned = time.Now()
	if err := d.pin(ctx); err != nil { // first, so that the plan is never without it
		return err
	}
	for _, doc := range []struct {
		name  string
		value any
	}{
		{"spec.json", struct {
			Version int             `json:"version"`
			Request map[string]any  `json:"request"`
			Recipe  json.RawMessage `json:"recipe"` // canonical
			NoReuse bool            `json:"no_reuse"`
		}{RecordVersion, d.Request, d.recipe, d.NoReuse}},
		{PlanName, d.Plan.Outline()},
	} {
		if err := d.putJSON(ctx, doc.name, doc.value); err != nil {
			return err
		}
	}
	return nil
}

// pin keeps what the run's plan names from being collected.
func (d *driver) pin(ctx context.Context) error {
	return d.putJSON(ctx, PinName, map[string]any{"state": "running"})
}

// record writes how the run ended, and unpins it.
func (d *driver) record(ctx context.Context) error {
	err := d.putJSON(ctx, stateName, d.outcome.Record)
	return errors.Join(err, d.Store.Delete(ctx, RunKey(d.outcome.Run, PinName)))
}

func (d *driver) putJSON(ctx context.Context, name string, v any) error {
	return putJSON(ctx, d.Store, RunKey(d.outcome.Run, name), v)
}

func putJSON(ctx context.Context, store objstore.Bucket, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	if _, err = store.Put(ctx, key, bytes.NewReader(b), int64(len(b)), objstore.PutOptions{}); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// maxDocument bounds a JSON document that is read back whole, in bytes.
const maxDocument = 256 << 20

func readObject(ctx context.Context, b objstore.Bucket, key string) ([]byte, error) {
	return objstore.ReadAll(ctx, b, key, maxDocument)
}
