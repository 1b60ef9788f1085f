package shard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/objstore"
)

// far is files of known bytes that are fetched by blocks of 16 bytes.
type far struct {
	*blocks
	data    [][]byte
	mu      sync.Mutex
	fetched []span
	now     atomic.Int32 // fetches under way
	fail    func(span) error
	hold    chan struct{} // if set, fetches wait for it
}

func newFar(t *testing.T, sizes ...int64) *far {
	t.Helper()
	f := &far{}
	f.blocks = newBlocks(t.Context(), f.get)
	f.size = 16
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range sizes {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.data = append(f.data, b)
		f.add(File{Size: n, Identity: Identity{Kind: "test", Value: string(rune(len(f.data)))}})
	}
	t.Cleanup(f.close)
	return f
}

func (f *far) get(ctx context.Context, file int, p []byte, off int64) error {
	f.now.Add(1)
	defer f.now.Add(-1)
	s := span{file, off, off + int64(len(p))}
	f.mu.Lock()
	f.fetched = append(f.fetched, s)
	f.mu.Unlock()
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.fail != nil {
		if err := f.fail(s); err != nil {
			return err
		}
	}
	copy(p, f.data[file][off:])
	return nil
}

// settle waits for what is fetched ahead.
func (f *far) settle() []span {
	f.group.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.fetched)
}

func (f *far) check(t *testing.T, file int, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	if err := (remoteFile{f.blocks, file, f.sizes[file]}).readFull(t.Context(), p, off); err != nil || !bytes.Equal(p, f.data[file][off:off+n]) {
		t.Errorf("%d bytes from %d of file %d: %x, error %v", n, off, file, p, err)
	}
}

// Any reads by any number of goroutines give the bytes of the files, and no more buffers are held than allowed.
func TestBlocksGiveTheBytes(t *testing.T) {
	t.Parallel()
	f := newFar(t, 1000, 7, 0, 333)
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			for range 500 {
				file := []int{0, 0, 1, 3}[r.IntN(4)]
				off := r.Int64N(int64(len(f.data[file])))
				f.check(t, file, off, r.Int64N(int64(len(f.data[file]))-off+1))
			}
		})
	}
	wg.Wait()
	f.settle()
	total := 0
	for _, x := range f.have {
		total += cap(x.data)
	}
	for _, b := range f.spare {
		total += cap(b)
	}
	if total > heldBlocks*16 {
		t.Errorf("%d bytes are held", total)
	}
	for _, bad := range []struct{ off, n int64 }{{-1, 1}, {1000, 1}, {999, 2}, {1 << 60, 1}} {
		if err := (remoteFile{f.blocks, 0, f.sizes[0]}).readFull(t.Context(), make([]byte, bad.n), bad.off); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read outside the file: error %v", err)
		}
	}
}

// Reading forward fetches each block once, and ahead of the reader.
func TestBlocksReadAhead(t *testing.T) {
	t.Parallel()
	f := newFar(t, 16*40)
	for off := int64(0); off < 16*40; off += 4 {
		f.check(t, 0, off, 4)
	}
	fetched := f.settle()
	slices.SortFunc(fetched, func(a, b span) int { return int(a.begin - b.begin) })
	if len(fetched) != 40 || len(slices.Compact(fetched)) != 40 {
		t.Errorf("%d fetches of 40 blocks", len(fetched))
	}
	f = newFar(t, 16*40)
	f.hold = make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.check(t, 0, 0, 16*5)
	}()
	f.hold <- struct{}{} // the first, or the one ahead of it
	f.hold <- struct{}{}
	f.hold <- struct{}{}
	close(f.hold)
	<-done
	if n := len(f.settle()); n < 5+maxAhead || n > 6+maxAhead {
		t.Errorf("%d fetches for 5 blocks and what is ahead", n)
	}
}

// What nobody will read is not fetched, neither ahead nor around what is read.
func TestBlocksFetchOnlyWhatIsWanted(t *testing.T) {
	t.Parallel()
	f := newFar(t, 1000)
	f.want([]Tensor{{File: 0, Offset: 20, Length: 4}, {File: 0, Offset: 100, Length: 60}, {File: 0, Offset: 160, Length: 3}, {File: 0, Offset: 26, Length: 2},
		{File: 7, Offset: 0, Length: 5}, {File: 0, Offset: 999, Length: 5}, {File: 0, Offset: -1, Length: 1}})
	for _, r := range [][2]int64{{20, 4}, {26, 2}, {100, 63}, {100, 63}} {
		f.check(t, 0, r[0], r[1])
	}
	want := map[span]bool{{0, 20, 28}: true, {0, 100, 112}: true, {0, 112, 128}: true, {0, 128, 144}: true, {0, 144, 160}: true, {0, 160, 163}: true}
	for _, s := range f.settle() {
		if !want[s] {
			t.Errorf("fetched %d to %d", s.begin, s.end)
		}
		delete(want, s)
	}
	if len(want) != 0 {
		t.Errorf("not fetched: %v", want)
	}
	f.check(t, 0, 0, 1000) // what was said is no promise
}

// Going over a matrix that fits again and again fetches it once, although what lies behind it is read ahead.
func TestBlocksKeepAMatrix(t *testing.T) {
	t.Parallel()
	f := newFar(t, 16*60)
	for range 20 {
		for off := int64(0); off < 16*(heldBlocks-1); off += 8 {
			p := make([]byte, 2)
			if err := (remoteFile{f.blocks, 0, 0}).until(16*(heldBlocks-1)).readFull(t.Context(), p, off); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(f.settle()); n != heldBlocks-1 {
		t.Errorf("%d fetches of %d blocks", n, heldBlocks-1)
	}
}

func TestBlocksErrors(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	broken := errors.New("connection reset")
	f := newFar(t, 100)
	f.fail = func(s span) error {
		switch {
		case s.begin == 0 && tries.Add(1) < maxFetches:
			return broken
		case s.begin == 64:
			return broken
		case s.begin == 80:
			return objstore.ErrChanged
		}
		return nil
	}
	f.check(t, 0, 0, 16) // after some tries
	err := (remoteFile{f.blocks, 0, f.sizes[0]}).readFull(t.Context(), make([]byte, 4), 64)
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if err := (remoteFile{f.blocks, 0, f.sizes[0]}).readFull(t.Context(), make([]byte, 4), 80); !errors.Is(err, objstore.ErrChanged) {
		t.Errorf("error %v", err)
	}
	count := map[int64]int{}
	for _, s := range f.settle() {
		count[s.begin]++
	}
	if count[0] != maxFetches || count[64]%maxFetches != 0 || count[80] > 2 { // ahead and again
		t.Errorf("fetches: %v", count)
	}
	f.fail = nil
	f.check(t, 0, 64, 30) // an error is not kept
}

func TestBlocksCancelAndClose(t *testing.T) {
	t.Parallel()
	f := newFar(t, 100)
	f.hold = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, ctx := range []context.Context{ctx, t.Context()} {
		go func() { ended <- (remoteFile{f.blocks, 0, f.sizes[0]}).readFull(ctx, make([]byte, 4), 0) }()
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled read: %v", err)
	}
	f.close()
	if err := <-ended; !errors.Is(err, errClosed) {
		t.Errorf("read at close: %v", err)
	}
	if n := f.now.Load(); n != 0 {
		t.Errorf("%d fetches go on after close", n)
	}
}

// A store that takes 200 ms to answer costs that once at the beginning, and then once for all blocks that are read ahead together.
func TestBlocksOfASlowStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, 16*64)
		f.fail = func(span) error {
			<-time.After(200 * time.Millisecond) // by the bubble's clock
			return nil
		}
		start := time.Now()
		for off := range int64(16 * 64) {
			f.check(t, 0, off, 1)
		}
		if took, most := time.Since(start), 64/maxAhead*200*time.Millisecond; took > most+time.Second {
			t.Errorf("64 blocks by single bytes took %v, want about %v", took, most)
		}
	})
}

// kept is a cache in memory.
type kept struct {
	mu     sync.Mutex
	blocks map[string][]byte
	hits   int
}

func (k *kept) Load(name string, p []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.blocks[name]
	if !ok || len(b) != len(p) {
		return false
	}
	k.hits++
	copy(p, b)
	return true
}

func (k *kept) Store(name string, p []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blocks[name] = bytes.Clone(p)
}

// What is in the cache is not fetched, by whoever reads the same files; what could not be fetched is not in the cache.
func TestBlocksUseACache(t *testing.T) {
	t.Parallel()
	k := &kept{blocks: map[string][]byte{}}
	broken := errors.New("broken")
	for i := range 2 {
		f := newFar(t, 100, 50)
		f.cache = k
		f.fail = func(s span) error {
			if s.file == 1 {
				return broken
			}
			return nil
		}
		f.check(t, 0, 0, 100)
		if err := (remoteFile{f.blocks, 1, 50}).readFull(t.Context(), make([]byte, 5), 0); !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
		n := len(slices.DeleteFunc(f.settle(), func(s span) bool { return s.file == 1 }))
		if want := []int{7, 0}[i]; n != want {
			t.Errorf("reader %d: %d fetches, want %d", i, n, want)
		}
	}
	if len(k.blocks) != 7 {
		t.Errorf("%d blocks are kept", len(k.blocks))
	}
}
