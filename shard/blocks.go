package shard

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/shardpress/shardpress/objstore"
)

const (
	// blockSize is what is asked of a store at a time: large against what its answer waits for.
	blockSize = 4 << 20
	// heldBlocks are held at once, each with a buffer: enough for what is read ahead, and for going again and again over a matrix of 32 MiB,
	// as reading a transposed one does.
	heldBlocks = 10
	// maxAhead are fetched before they are asked for once reading goes forward: at 200 ms for an answer, 80 MiB a second.
	maxAhead = 4
	// maxFetches is how often a block is asked for before the read fails. Stores ask again by themselves; this is for a body that breaks off.
	maxFetches = 2
)

// BucketMemory is what a Source over a bucket holds, in bytes, beyond one over a directory.
const BucketMemory = heldBlocks * blockSize

// blocks reads weight files that are far away: by large blocks, ahead of the reader, of which it holds a few.
type blocks struct {
	// bounds gives the block that byte off of a file is in. It must be a function of file and off.
	bounds func(file int, off int64) (begin, end int64)
	// fetch fills p from byte off of a file on.
	fetch func(ctx context.Context, file int, p []byte, off int64) error

	size   int64           // of a block
	ctx    context.Context // of the fetches
	cancel context.CancelFunc
	group  sync.WaitGroup // of the fetches

	mu     sync.Mutex
	freed  chan struct{} // closed and replaced when a block may have become free to evict
	have   map[span]*block
	spare  [][]byte // buffers of blocks that were evicted
	tick   int64
	stream map[int]stream // by file
	sizes  []int64        // by file
	ids    []Identity     // by file
	cache  BlockCache     // or nil
	wanted [][][2]int64   // by file: ranges that will be read, sorted, apart; nil for all
}

var errClosed = errors.New("source is closed")

// BlockCache keeps parts of weight files near those who read them again: a machine's disk. Its methods may be called from many goroutines. What
// it does not have, or no longer, is fetched; what it gives must be what was stored.
type BlockCache interface {
	// Load fills p with what was stored under name and has the length of p, or reports that it cannot.
	Load(name string, p []byte) bool
	// Store may keep a copy of p. Name is a token of hexadecimal digits.
	Store(name string, p []byte)
}

// span names a block.
type span struct {
	file       int
	begin, end int64
}

// block is a part of a file that is there or on its way.
type block struct {
	span
	data  []byte
	ready chan struct{} // closed when data or err is set
	err   error

	users int   // readers in it
	used  int64 // tick of the last use
}

// stream is where the reading of a file is.
type stream struct {
	at    span
	ahead int
}

// newBlocks reads with the values of ctx, but until close and not until its end.
func newBlocks(ctx context.Context, fetch func(ctx context.Context, file int, p []byte, off int64) error) *blocks {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b := &blocks{fetch: fetch, size: blockSize, ctx: ctx, cancel: cancel, freed: make(chan struct{}), have: map[span]*block{}, stream: map[int]stream{}}
	b.bounds = b.trimmed
	return b
}

// add tells of the next file.
func (b *blocks) add(f File) {
	b.sizes, b.ids = append(b.sizes, f.Size), append(b.ids, f.Identity)
}

// name is what a cache calls a block: by the identity of the file, so that whatever has the same bytes has the same name.
func (b *blocks) name(s span) string {
	id := b.ids[s.file]
	sum := sha256.Sum256(fmt.Appendf(nil, "shardpress block 1\n%s\n%s\n%d\n%d\n", id.Kind, id.Value, s.begin, s.end))
	return hex.EncodeToString(sum[:])
}

// want keeps tensors in mind as the only ranges that will be read.
func (b *blocks) want(tensors []Tensor) {
	b.wanted = make([][][2]int64, len(b.sizes))
	for _, t := range tensors {
		if t.File >= 0 && t.File < len(b.sizes) && t.Offset >= 0 && t.Length > 0 && t.Offset <= b.sizes[t.File]-t.Length {
			b.wanted[t.File] = append(b.wanted[t.File], [2]int64{t.Offset, t.Offset + t.Length})
		}
	}
	for i, ranges := range b.wanted {
		slices.SortFunc(ranges, func(x, y [2]int64) int { return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1])) })
		var joined [][2]int64
		for _, r := range ranges {
			if n := len(joined); n > 0 && r[0] <= joined[n-1][1] {
				joined[n-1][1] = max(joined[n-1][1], r[1])
				continue
			}
			joined = append(joined, r)
		}
		b.wanted[i] = joined
	}
}

// next gives the first byte from off on that will be read.
func (b *blocks) next(file int, off int64) (int64, bool) {
	if b.wanted == nil {
		return off, off < b.sizes[file]
	}
	for _, r := range b.wanted[file] {
		if off < r[1] {
			return max(off, r[0]), true
		}
	}
	return 0, false
}

// trimmed are the bounds of blocks at multiples of their size, without what at either end nobody will read.
func (b *blocks) trimmed(file int, off int64) (begin, end int64) {
	begin = off - off%b.size
	end = min(begin+b.size, b.sizes[file])
	if b.wanted == nil {
		return begin, end
	}
	first, last := int64(-1), int64(-1)
	for _, r := range b.wanted[file] {
		if r[1] <= begin || r[0] >= end {
			continue
		}
		if first < 0 {
			first = max(r[0], begin)
		}
		last = min(r[1], end)
	}
	if first >= 0 && off >= first && off < last {
		return first, last
	}
	return begin, end // nobody said that this would be read
}

// read fills p from byte off of a file on, which must lie inside the file. Nothing from limit on is read ahead.
func (b *blocks) read(ctx context.Context, file int, p []byte, off, limit int64) error {
	for len(p) > 0 {
		x, err := b.acquire(ctx, file, off, limit)
		if err != nil {
			return err
		}
		n := copy(p, x.data[off-x.begin:])
		b.release(x)
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// acquire gives the block that off is in, when it is there.
func (b *blocks) acquire(ctx context.Context, file int, off, limit int64) (*block, error) {
	var key span
	key.file = file
	key.begin, key.end = b.bounds(file, off)
	for {
		b.mu.Lock()
		x := b.have[key]
		if x == nil {
			x = b.start(key)
		}
		if x == nil { // all are in use
			freed := b.freed
			b.mu.Unlock()
			select {
			case <-freed:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		b.tick++
		x.users, x.used = x.users+1, b.tick
		b.follow(key, limit)
		b.mu.Unlock()
		select {
		case <-x.ready:
		case <-ctx.Done():
			b.release(x)
			return nil, ctx.Err()
		}
		if x.err != nil {
			b.release(x)
			return nil, x.err
		}
		return x, nil
	}
}

// follow reads ahead when reading goes forward, but not beyond limit. It runs under the lock.
func (b *blocks) follow(key span, limit int64) {
	s := b.stream[key.file]
	if s.at == key {
		return
	}
	forward := false
	if off, ok := b.next(key.file, s.at.end); ok && s.ahead > 0 {
		begin, _ := b.bounds(key.file, off)
		forward = begin == key.begin
	}
	if forward {
		s.ahead = min(2*s.ahead, maxAhead)
	} else {
		s.ahead = 1
	}
	s.at = key
	b.stream[key.file] = s
	end := key.end
	for range s.ahead {
		off, ok := b.next(key.file, end)
		if !ok || off >= limit {
			return
		}
		begin, stop := b.bounds(key.file, off)
		ahead := span{key.file, begin, stop}
		if b.have[ahead] == nil && b.start(ahead) == nil {
			return
		}
		end = stop
	}
}

// start begins to fetch a block, or gives nil when all that are there are in use. It runs under the lock.
func (b *blocks) start(key span) *block {
	if len(b.have) >= heldBlocks {
		var oldest *block
		for _, x := range b.have {
			if x.users == 0 && x.data != nil && (oldest == nil || x.used < oldest.used) {
				oldest = x
			}
		}
		if oldest == nil {
			return nil
		}
		b.drop(oldest)
	}
	var buf []byte
	n := key.end - key.begin
	if k := slices.IndexFunc(b.spare, func(p []byte) bool { return int64(cap(p)) >= n }); k >= 0 {
		buf = b.spare[k][:n]
		b.spare = slices.Delete(b.spare, k, k+1)
	} else {
		if len(b.have)+len(b.spare) >= heldBlocks {
			b.spare = b.spare[:0] // too short, all of them
		}
		room := n
		if n > b.size/4 {
			room = max(b.size, n) // fits the next one, too
		}
		buf = make([]byte, n, room)
	}
	b.tick++
	x := &block{span: key, ready: make(chan struct{}), used: b.tick}
	b.have[key] = x
	b.group.Go(func() { b.fill(x, buf) })
	return x
}

// fill fetches a block.
func (b *blocks) fill(x *block, buf []byte) {
	var err error
	cached := b.cache != nil && b.cache.Load(b.name(x.span), buf)
	for range maxFetches {
		if cached {
			break
		}
		if err = b.fetch(b.ctx, x.file, buf, x.begin); err == nil || b.ctx.Err() != nil || final(err) {
			break
		}
	}
	if err != nil && b.ctx.Err() != nil {
		err = errClosed
	}
	err = reached(err)
	if err == nil && b.cache != nil && !cached {
		b.cache.Store(b.name(x.span), buf)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		x.err = err
		delete(b.have, x.span)
		b.spare = append(b.spare, buf)
	} else {
		x.data = buf
	}
	close(x.ready)
	b.wake()
}

// reached marks errors of the way to a source, as opposed to those that say something of the source.
func reached(err error) error {
	if err == nil || final(err) || errors.Is(err, errClosed) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// final reports whether asking again cannot help.
func final(err error) bool {
	for _, e := range []error{
		objstore.ErrChanged, objstore.ErrNotExist, objstore.ErrRange, objstore.ErrKey, objstore.ErrRoot, objstore.ErrReadOnly,
		fs.ErrNotExist, ErrSourceChanged, ErrDamaged, ErrMalformed, ErrUnsupported, ErrMissing,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (b *blocks) release(x *block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x.users--
	if x.users == 0 {
		b.wake()
	}
}

// drop lets a block go that nobody reads.
func (b *blocks) drop(x *block) {
	delete(b.have, x.span)
	b.spare = append(b.spare, x.data[:cap(x.data)])
	x.data = nil
}

func (b *blocks) wake() {
	close(b.freed)
	b.freed = make(chan struct{})
}

// close ends the fetches.
func (b *blocks) close() {
	b.cancel()
	b.group.Wait()
}
