package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

func object(t *testing.T, b objstore.Bucket, key, text string) {
	t.Helper()
	if _, err := b.Put(t.Context(), key, strings.NewReader(text), int64(len(text)), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// finished stores a task with its result.
func finished(t *testing.T, b objstore.Bucket, id task.ID, attempt string) {
	t.Helper()
	object(t, b, task.SpecKey(id), "spec")
	object(t, b, task.OutputKey(id, attempt, "o"), "bytes")
	r := &task.Result{ID: id, Attempt: attempt, Outputs: []task.Written{{Name: "o", Key: task.OutputKey(id, attempt, "o"), Size: 5, SHA256: strings.Repeat("00", 32)}}}
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	object(t, b, task.ResultKey(id), string(text))
}

// ran stores the record of a run over tasks.
func ran(t *testing.T, b objstore.Bucket, run string, ids ...task.ID) {
	t.Helper()
	o := Outline{Version: outlineVersion, Units: make([]OutlineUnit, len(ids))}
	for i, id := range ids {
		o.Units[i].Task = id
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	object(t, b, "runs/"+run+"/"+PlanName, string(text))
}

func keys(t *testing.T, b objstore.Bucket) []string {
	t.Helper()
	var all []string
	for info, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Key)
	}
	return all
}

// TestCollect has a store of five tasks that are all older than the age: one that
// nobody uses, one of a young run, one of a pinned run, one of a run whose pin has
// expired, and one that was written just now.
func TestCollect(t *testing.T) {
	t.Parallel()
	old, young, pinned, dead, fresh := task.ID{1}, task.ID{2}, task.ID{3}, task.ID{4}, task.ID{5}
	for _, c := range []struct {
		name    string
		options CollectOptions
		tasks   []task.ID
	}{
		{"by age", CollectOptions{Age: 24 * time.Hour}, []task.ID{young, pinned, fresh}},
		{"idle", CollectOptions{Age: 24 * time.Hour, Idle: true}, []task.ID{young, pinned, fresh}},
		{"at once", CollectOptions{}, []task.ID{pinned}},
		{"all", CollectOptions{Idle: true}, nil},
		{"long", CollectOptions{Age: 10 * 24 * time.Hour}, []task.ID{old, young, pinned, dead, fresh}},
		{"dry", CollectOptions{Age: 24 * time.Hour, Dry: true}, []task.ID{old, young, pinned, dead, fresh}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := objstore.NewMem()
				for _, id := range []task.ID{old, young, pinned, dead} {
					finished(t, b, id, "A")
					object(t, b, task.OutputKey(id, "DEAD", "o"), "lost")
				}
				ran(t, b, "old", old)
				ran(t, b, "pinned", pinned)
				ran(t, b, "dead", dead)
				object(t, b, "runs/dead/"+PinName, "{}")
				time.Sleep(3 * 24 * time.Hour) //nolint:forbidigo // by the bubble's clock
				ran(t, b, "young", young)
				object(t, b, "runs/pinned/"+PinName, "{}")
				finished(t, b, fresh, "A")
				before := keys(t, b)

				got, err := Collect(t.Context(), b, c.options)
				if err != nil {
					t.Fatal(err)
				}
				if got.Kept+got.Tasks != 5 {
					t.Errorf("%+v: five tasks were there", got)
				}
				if c.options.Dry {
					if after := keys(t, b); !slices.Equal(after, before) {
						t.Errorf("a dry collection changed the store: %q", after)
					}
					if got.Tasks != 2 || got.Attempts != 1 {
						t.Errorf("%+v, want two tasks, and one attempt of those that stay", got)
					}
					return
				}
				left := map[task.ID]bool{}
				for _, key := range keys(t, b) {
					if id, err := task.ParseID(strings.Split(key, "/")[min(2, strings.Count(key, "/"))]); err == nil {
						left[id] = true
						if lost := strings.Contains(key, "/DEAD/"); lost && (c.options.Idle || id != pinned) {
							t.Errorf("a lost attempt stays: %s", key)
						}
					}
				}
				want := map[task.ID]bool{}
				for _, id := range c.tasks {
					want[id] = true
					if _, err := b.Stat(t.Context(), task.OutputKey(id, "A", "o")); err != nil {
						t.Errorf("task %v is kept without its bytes: %v", id[0], err)
					}
				}
				if !maps.Equal(left, want) {
					t.Errorf("left %v, want %v", left, want)
				}
			})
		})
	}
}

// breaking fails, for good, after some deletions.
type breaking struct {
	objstore.Bucket
	left int
}

var errBroken = errors.New("broken")

func (b *breaking) Delete(ctx context.Context, key string) error {
	if b.left == 0 {
		return errBroken
	}
	b.left--
	return b.Bucket.Delete(ctx, key)
}

// TestInterruptedCollection stops a collection after each deletion: a result that
// stands has its bytes.
func TestInterruptedCollection(t *testing.T) {
	t.Parallel()
	for n := 0; ; n++ {
		b := objstore.NewMem()
		ids := []task.ID{{1}, {2}}
		for _, id := range ids {
			finished(t, b, id, "Z") // sorts behind result.json, too
			finished(t, b, id, "A")
			ran(t, b, fmt.Sprint(id[0]), id)
		}
		_, err := Collect(t.Context(), &breaking{b, n}, CollectOptions{Idle: true})
		for _, id := range ids {
			text, err := readObject(t.Context(), b, task.ResultKey(id))
			if errors.Is(err, objstore.ErrNotExist) {
				continue
			}
			r, err := task.ParseResult(id, text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Stat(t.Context(), r.Outputs[0].Key); err != nil {
				t.Errorf("after %d deletions a result stands without its bytes: %v", n, err)
			}
		}
		if err == nil {
			if left := keys(t, b); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			return
		}
		if !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
	}
}

// TestCollectSparesWhatItDoesNotKnow leaves strange objects alone, and is not
// stopped by damaged ones.
func TestCollectSparesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	b := objstore.NewMem()
	id := task.ID{7}
	finished(t, b, id, "A")
	object(t, b, task.ResultKey(id), "damaged")
	object(t, b, "runs/x/"+PlanName, "damaged")
	object(t, b, "runs/stray", "?")
	object(t, b, "tasks/stray", "?")
	object(t, b, "tasks/ab/stray/o", "?")
	object(t, b, "notes/mine", "?")
	if _, err := Collect(t.Context(), b, CollectOptions{Age: time.Hour}); err != nil {
		t.Fatal(err)
	}
	want := []string{"notes/mine", "runs/stray", "runs/x/plan.json", task.ResultKey(id), task.SpecKey(id), "tasks/ab/stray/o", "tasks/stray"}
	slices.Sort(want)
	if got := keys(t, b); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
	if _, err := b.Get(t.Context(), "notes/mine", 0, -1); err != nil {
		t.Error(err)
	}
}

// TestResultWithoutEnd counts as absent, for runs and for collections.
func TestResultWithoutEnd(t *testing.T) {
	t.Parallel()
	b := objstore.NewMem()
	id := task.ID{7}
	finished(t, b, id, "A")
	object(t, b, task.ResultKey(id), strings.Repeat(" ", task.MaxResult+1))
	d := driver{Run: &Run{Store: b, Log: slog.New(slog.DiscardHandler)}}
	if r, err := d.result(t.Context(), id); r != nil || err != nil {
		t.Errorf("%v, %v", r, err)
	}
	got, err := Collect(t.Context(), b, CollectOptions{Age: time.Hour})
	if err != nil || got.Attempts != 1 || got.Kept != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// readOnly is a store that cannot be written.
type readOnly struct{ objstore.Bucket }

func (readOnly) Put(context.Context, string, io.Reader, int64, objstore.PutOptions) (objstore.Info, error) {
	return objstore.Info{}, objstore.ErrReadOnly
}

func (readOnly) Delete(context.Context, string) error { return objstore.ErrReadOnly }

// TestDryCollectionOfAReadOnlyStore takes the last write for the time.
func TestDryCollectionOfAReadOnlyStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := objstore.NewMem()
		finished(t, b, task.ID{1}, "A")
		time.Sleep(3 * time.Hour) //nolint:forbidigo // by the bubble's clock
		finished(t, b, task.ID{2}, "A")
		time.Sleep(3 * time.Hour) //nolint:forbidigo // likewise
		got, err := Collect(t.Context(), readOnly{b}, CollectOptions{Age: 2 * time.Hour, Dry: true, Idle: true})
		if err != nil || got.Tasks != 1 || got.Kept != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := Collect(t.Context(), readOnly{b}, CollectOptions{Age: 2 * time.Hour, Idle: true}); !errors.Is(err, objstore.ErrReadOnly) {
			t.Errorf("a collection that is not dry: %v", err)
		}
		if got, err := Collect(t.Context(), readOnly{objstore.NewMem()}, CollectOptions{Dry: true}); err != nil || got != (Collected{}) {
			t.Errorf("of nothing: %+v, %v", got, err)
		}
	})
}

// TestClockOfAKilledCollection goes with the next.
func TestClockOfAKilledCollection(t *testing.T) {
	t.Parallel()
	b := objstore.NewMem()
	object(t, b, "clock", "?")
	if _, err := Collect(t.Context(), b, CollectOptions{Age: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if left := keys(t, b); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	// One that is stopped between the two calls leaves nothing.
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Collect(ctx, &stopping{b, cancel}, CollectOptions{Age: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left := keys(t, b); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// stopping ends a context once something was put, and obeys it.
type stopping struct {
	objstore.Bucket
	stop func()
}

func (b *stopping) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	defer b.stop()
	return b.Bucket.Put(ctx, key, r, size, o)
}

func (b *stopping) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, key)
}

// TestCollectUploads removes uploads that no kept run reads.
func TestCollectUploads(t *testing.T) {
	t.Parallel()
	b := objstore.NewMem()
	ctx := t.Context()
	run := NewRun()
	for _, id := range []string{"read", "unread"} {
		object(t, b, "sources/"+id+"/source.json", "{}")
		object(t, b, "sources/"+id+"/extents/0", "bytes")
	}
	if err := Submit(ctx, b, &Submission{Run: run, Recipe: []byte("{}"), Source: source.Uploaded("read"), Out: ResultPrefix(run)}); err != nil {
		t.Fatal(err)
	}
	got, err := Collect(ctx, b, CollectOptions{})
	if err != nil || got.Sources != 1 || got.Runs != 0 {
		t.Errorf("collected %+v, %v", got, err)
	}
	for key, want := range map[string]bool{"sources/read/source.json": true, "sources/read/extents/0": true, "sources/unread/source.json": false, "sources/unread/extents/0": false} {
		if _, err := b.Stat(ctx, key); (err == nil) != want {
			t.Errorf("%s: %v", key, err)
		}
	}
}
