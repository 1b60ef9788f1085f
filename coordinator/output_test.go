package coordinator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// placeWorld is a committed weight file, and an output that it is to be placed in.
type placeWorld struct {
	t      *testing.T
	store  *reads
	place  *reads // of the result
	out    *Output
	unit   *Unit
	result *task.Result
	key    string // in the store
	data   []byte
}

// reads counts how often an object is read, and lets a test in after each look at one.
type reads struct {
	objstore.Bucket
	n      int
	looked func()
}

func (r *reads) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r.n++
	return r.Bucket.Get(ctx, key, off, n)
}

func (r *reads) Stat(ctx context.Context, key string) (objstore.Info, error) {
	info, err := r.Bucket.Stat(ctx, key)
	if r.looked != nil {
		r.looked()
	}
	return info, err
}

func (r *reads) Copy(ctx context.Context, dst string, src objstore.Bucket, srcKey string) (objstore.Info, error) {
	src, srcKey, err := objstore.Unwrap(src, srcKey) // a stream's reading does not count
	if err != nil {
		return objstore.Info{}, err
	}
	return objstore.Copy(ctx, r.Bucket, dst, src, srcKey)
}

func (r *reads) Unwrap() objstore.Bucket { return r.Bucket }

func newPlaceWorld(t *testing.T, store, place objstore.Bucket) *placeWorld {
	t.Helper()
	p := &placeWorld{t: t, store: &reads{Bucket: store}, place: &reads{Bucket: place}}
	ck, err := shard.Open(t.Context(), "../testdata/models/story", shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	units := plan(t, ck, preset(t, "w4a16-rtn"), "test").Units
	p.unit = &units[0]
	p.out = NewOutput(p.place, nil)
	const attempt = "1"
	p.key = task.OutputKey(p.unit.ID, attempt, operation.ShardOutput)
	p.data = bytes.Repeat([]byte{7}, int(p.unit.Layout.Size()))
	sum := sha256.Sum256(p.data)
	p.result = &task.Result{ID: p.unit.ID, Attempt: attempt, Outputs: []task.Written{{
		Name: operation.ShardOutput, Key: p.key, Size: int64(len(p.data)), SHA256: hex.EncodeToString(sum[:]),
	}}}
	p.result.Outputs[0].Stored = put(t, p.store, p.key, p.data).Version
	return p
}

func put(t *testing.T, b objstore.Bucket, key string, data []byte) objstore.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)), objstore.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// damaged has equal size and other bytes.
func (p *placeWorld) damaged() []byte {
	b := slices.Clone(p.data)
	b[len(b)/2] ^= 1
	return b
}

// lost says whether an error has the task's bytes made again.
func (p *placeWorld) lost(err error) bool {
	var lost *lostError
	if !errors.As(err, &lost) {
		return false
	}
	if lost.id != p.result.ID || lost.attempt != p.result.Attempt {
		p.t.Errorf("%v names attempt %s of task %s", err, lost.attempt, lost.id.Short())
	}
	return true
}

// stores are those whose placing is a link, a copy and a stream.
func stores(t *testing.T) map[string]func() (store, place objstore.Bucket) {
	t.Helper()
	dir := func() objstore.Bucket {
		d, err := objstore.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return map[string]func() (store, place objstore.Bucket){
		"link":   func() (store, place objstore.Bucket) { return dir(), dir() },
		"copy":   func() (store, place objstore.Bucket) { m := objstore.NewMem(); return m, objstore.Prefix(m, "result") },
		"stream": func() (store, place objstore.Bucket) { return objstore.NewMem(), dir() },
	}
}

// TestStillPlaced does something to a file between its placing and the last look at
// it, before the manifest promises its bytes.
func TestStillPlaced(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		do    func(*placeWorld)
		lost  bool
		reads int // of the file: what is unchanged is not read again
	}{
		"nothing":      {func(*placeWorld) {}, false, 0},
		"placed again": {func(p *placeWorld) { put(p.t, p.place, p.unit.File, p.data) }, false, 1}, // by another coordinator
		"other bytes":  {func(p *placeWorld) { put(p.t, p.place, p.unit.File, p.damaged()) }, true, 1},
		"truncated":    {func(p *placeWorld) { put(p.t, p.place, p.unit.File, p.data[:len(p.data)/2]) }, true, 0},
		"gone": {func(p *placeWorld) {
			if err := p.place.Delete(p.t.Context(), p.unit.File); err != nil {
				p.t.Fatal(err)
			}
		}, true, 0},
	}
	for how, open := range stores(t) {
		for name, c := range cases {
			t.Run(how+"/"+name, func(t *testing.T) {
				t.Parallel()
				store, place := open()
				p := newPlaceWorld(t, store, place)
				if err := p.out.Place(t.Context(), p.store, p.unit, p.result, true); err != nil {
					t.Fatal(err)
				}
				c.do(p)
				p.place.n = 0
				e, err := p.out.stillPlaced(t.Context(), p.unit, p.result)
				switch want := (ManifestEntry{p.unit.File, int64(len(p.data)), p.result.Outputs[0].SHA256}); {
				case c.lost && !p.lost(err):
					t.Errorf("%+v, %v: want it to be made again", e, err)
				case !c.lost && (err != nil || e != want):
					t.Errorf("%+v, %v: want it taken for what was placed, %+v", e, err, want)
				}
				if p.place.n != c.reads {
					t.Errorf("read %d times, want %d", p.place.n, c.reads)
				}
			})
		}
	}
}

// TestPlaceLooksAtWhatItPlaces does something to a committed file before it is placed,
// or while it is.
func TestPlaceLooksAtWhatItPlaces(t *testing.T) {
	t.Parallel()
	again := func(p *placeWorld) { put(p.t, p.store, p.key, p.data) }
	harm := func(p *placeWorld) { put(p.t, p.store, p.key, p.damaged()) }
	cut := func(p *placeWorld) { put(p.t, p.store, p.key, p.data[1:]) }
	gone := func(p *placeWorld) {
		if err := p.store.Delete(p.t.Context(), p.key); err != nil {
			p.t.Fatal(err)
		}
	}
	nothing := func(*placeWorld) {}
	cases := map[string]struct {
		before, during func(*placeWorld)
		fresh          bool
		lost           bool
		reads          int // of the committed file, before it is placed
	}{
		"fresh":                     {nothing, nothing, true, false, 0},
		"of an earlier run":         {nothing, nothing, false, false, 1},
		"put again":                 {again, nothing, true, false, 1},
		"other bytes":               {harm, nothing, true, true, 1},
		"truncated":                 {cut, nothing, true, true, 0},
		"gone":                      {gone, nothing, true, true, 0},
		"other bytes in the middle": {nothing, harm, true, true, 0},
		"gone in the middle":        {nothing, gone, true, true, 0},
		// Whoever kept the store's tag and not the bytes: a disk.
		"rotten": {func(p *placeWorld) { harm(p); p.result.Outputs[0].Stored = p.version() }, nothing, false, true, 1},
	}
	for how, open := range stores(t) {
		for name, c := range cases {
			t.Run(how+"/"+name, func(t *testing.T) {
				t.Parallel()
				store, place := open()
				p := newPlaceWorld(t, store, place)
				c.before(p)
				p.store.looked = func() { p.store.looked = nil; c.during(p) }
				p.store.n = 0
				switch err := p.out.Place(t.Context(), p.store, p.unit, p.result, c.fresh); {
				case c.lost && !p.lost(err):
					t.Errorf("%v: want it to be made again", err)
				case !c.lost && err != nil:
					t.Errorf("%v: want it placed", err)
				}
				if p.store.n != c.reads {
					t.Errorf("read %d times before it was placed, want %d", p.store.n, c.reads)
				}
			})
		}
	}
}

func (p *placeWorld) version() string {
	info, err := p.store.Stat(p.t.Context(), p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return info.Version
}
