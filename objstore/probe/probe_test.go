package probe_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/probe"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	dir, err := objstore.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]objstore.Bucket{
		"memory":    objstore.NewMem(),
		"directory": dir,
		"S3":        s3test.Start(t).Open(t),
		"behind":    objstore.Prefix(objstore.NewMem(), "a/b"),
		"bare":      struct{ objstore.Bucket }{objstore.NewMem()},
	} {
		checks := probe.Probe(t.Context(), b)
		var names []string
		for _, c := range checks {
			names = append(names, c.Name)
			if !c.OK || c.Detail == "" || c.Remedy != "" {
				t.Errorf("%s: %+v", name, c)
			}
			if c.Name == "copy" && strings.Contains(c.Detail, "stream") != (name == "bare") {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if !probe.OK(checks) || len(checks) != 11 {
			t.Errorf("%s: %q", name, names)
		}
		nothing(t, b)
	}
}

func nothing(t *testing.T, b objstore.Bucket) {
	t.Helper()
	for info, err := range b.List(t.Context(), "") {
		t.Errorf("left over: %q, %v", info.Key, err)
	}
}

// lame is a store with something wrong.
type lame struct {
	*objstore.Mem
	unconditional bool // ignores IfAbsent
	whole         bool // ignores ranges
	unsorted      bool
	refuse        error // of writes
	skew          time.Duration
	oneVersion    bool
	keeps         bool // does not delete
	lossy         bool
}

func (l lame) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if l.refuse != nil {
		return objstore.Info{}, l.refuse
	}
	if l.lossy {
		r, size = bytes.NewReader(nil), 0
	}
	o.IfAbsent = o.IfAbsent && !l.unconditional
	info, err := l.Mem.Put(ctx, key, r, size, o)
	info.ModTime = info.ModTime.Add(l.skew)
	return info, err
}

func (l lame) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if l.whole {
		off, n = 0, -1
	}
	return l.Mem.Get(ctx, key, off, n)
}

func (l lame) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	if l.oneVersion {
		return l.Mem.Get(ctx, key, off, n)
	}
	return l.Mem.GetIf(ctx, key, version, off, n)
}

func (l lame) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	if !l.unsorted {
		return l.Mem.List(ctx, prefix)
	}
	all := maps.Collect(l.Mem.List(ctx, prefix))
	keys := slices.SortedFunc(maps.Keys(all), func(a, b objstore.Info) int { return strings.Compare(b.Key, a.Key) })
	return func(yield func(objstore.Info, error) bool) {
		for _, k := range keys {
			if !yield(k, nil) {
				return
			}
		}
	}
}

func (l lame) Delete(ctx context.Context, key string) error {
	if l.keeps {
		return nil
	}
	return l.Mem.Delete(ctx, key)
}

func TestProbeFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		b      lame
		wrong  []string
		remedy string // of the first
	}{
		{"unconditional", lame{unconditional: true}, []string{"conditional put"}, "If-None-Match"},
		{"whole", lame{whole: true}, []string{"ranged read"}, "Range"},
		{"unsorted", lame{unsorted: true}, []string{"list"}, "order"},
		{"read-only", lame{refuse: objstore.ErrReadOnly}, []string{"write and read"}, "policy"},
		{"full", lame{refuse: objstore.ErrFull}, []string{"write and read"}, "free space"},
		{"gone", lame{refuse: objstore.ErrRoot}, []string{"write and read"}, "doctor --create"},
		{"ill", lame{refuse: errors.New("ill")}, []string{"write and read"}, "do not use"},
		{"one version", lame{oneVersion: true}, []string{"read of one version"}, "If-Match"},
		{"keeps", lame{keeps: true}, []string{"delete"}, "DeleteObject"},
		{"lossy", lame{lossy: true}, []string{"write and read"}, "do not use"},
		{"an hour ahead", lame{skew: time.Hour}, nil, ""},
	} {
		test.b.Mem = objstore.NewMem()
		checks := probe.Probe(t.Context(), test.b)
		var wrong []string
		remedy := ""
		for _, c := range checks {
			if !c.OK {
				if wrong = append(wrong, c.Name); len(wrong) == 1 {
					remedy = c.Remedy
				}
				if c.Detail == "" || c.Remedy == "" {
					t.Errorf("%s: %+v", test.name, c)
				}
			}
			if c.Name == "clock" && test.b.skew > 0 && (!strings.Contains(c.Detail, "1h0m0s ahead") || !strings.Contains(c.Remedy, "NTP")) {
				t.Errorf("%s: %+v", test.name, c)
			}
		}
		if !slices.Equal(wrong, test.wrong) || !strings.Contains(remedy, test.remedy) || probe.OK(checks) != (len(test.wrong) == 0) {
			t.Errorf("%s: wrong are %q, remedy %q", test.name, wrong, remedy)
		}
		if !test.b.keeps {
			nothing(t, test.b.Mem)
		}
	}
}

// Stopped in the middle it still clears up.
func TestProbeStopped(t *testing.T) {
	t.Parallel()
	m := objstore.NewMem()
	ctx, cancel := context.WithCancel(t.Context())
	b := stopping{m, cancel}
	checks := probe.Probe(ctx, b)
	if probe.OK(checks) {
		t.Errorf("%+v", checks)
	}
	nothing(t, m)
}

// stopping cancels at the first listing.
type stopping struct {
	*objstore.Mem
	cancel context.CancelFunc
}

func (s stopping) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	s.cancel()
	return s.Mem.List(ctx, prefix)
}
