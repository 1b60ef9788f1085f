package s3_test

import (
	"io"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
)

// sampling gives n bytes, and looks now and then at how much memory is in use.
type sampling struct {
	n, since int64
	most     uint64
}

func (s *sampling) Read(p []byte) (int, error) {
	if s.n == 0 {
		return 0, io.EOF
	}
	k := min(int64(len(p)), s.n)
	clear(p[:k])
	s.n -= k
	if s.since += k; s.since >= 4*mib || s.n == 0 {
		s.since = 0
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		s.most = max(s.most, m.HeapAlloc)
	}
	return int(k), nil
}

// An upload of unknown size holds its parts and little more. This test is not
// parallel, so that the memory is its own.
func TestUploadMemory(t *testing.T) {
	server := s3test.Start(t)
	o := server.Options()
	o.PartSize, o.UploadThreads = 8*mib, 3
	b := open(t, o)
	size := int64(768 * mib)
	if testing.Short() {
		size = 200 * mib
	}
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // what counts is what is in use, not what waits for the collector
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	r := &sampling{n: size}
	info, err := b.Put(t.Context(), "a", r, -1, objstore.PutOptions{})
	if err != nil || info.Size != size {
		t.Fatalf("%+v, %v", info, err)
	}
	used := int64(r.most) - int64(before.HeapAlloc)
	if bound := o.PartSize*int64(o.UploadThreads) + 64*mib; used > bound {
		t.Errorf("%d MiB in use, want at most %d", used/mib, bound/mib)
	}
	t.Logf("%d MiB in use for an upload of %d MiB", used/mib, size/mib)
}
