package operation

import (
	"sync"

	"github.com/shardpress/shardpress/compress"
)

// buffers are what encoding works in. One linear uses them after the other, and one
// task after the other: the garbage of a run would else grow with its tasks, and
// with it how far the heap gets before a collection comes. What they come to is
// what panelNeed plans with.
type buffers struct {
	panel    []byte // source rows being worked on
	encoded  compress.Encoded
	unpacked []byte    // codes of a panel, a byte each
	values   []float32 // a panel decoded
	raw      []byte    // likewise, as stored
	matrix   []byte    // of a tensor that is rebuilt
	spare    [][]byte  // was put aside and has been written
}

// keptBytes bounds the buffers that stay for the next task. They are part of every
// task's overhead: the next one may need less than the one they are from.
const keptBytes = 8 << 20

// size is what the buffers hold on to, in bytes.
func (b *buffers) size() int {
	n := cap(b.panel) + cap(b.unpacked) + 4*cap(b.values) + cap(b.raw) + cap(b.matrix) + 8*cap(b.encoded.Error) + 8*cap(b.encoded.Power)
	for _, d := range b.encoded.Data {
		n += cap(d)
	}
	for _, s := range b.spare {
		n += cap(s)
	}
	return n
}

// take gives an empty buffer for n bytes: a spare one, or a new one in the place of
// a spare one that is too small.
func (b *buffers) take(n int64) []byte {
	at := -1
	for i, s := range b.spare {
		switch {
		case at < 0, int64(cap(b.spare[at])) < n && cap(s) > cap(b.spare[at]),
			int64(cap(s)) >= n && cap(s) < cap(b.spare[at]): // the smallest that is large enough, else the largest
			at = i
		}
	}
	var s []byte
	if at >= 0 {
		last := len(b.spare) - 1
		s, b.spare[at] = b.spare[at], b.spare[last]
		b.spare = b.spare[:last]
	}
	if int64(cap(s)) < n {
		return make([]byte, 0, n)
	}
	return s[:0]
}

// give returns a buffer of take's.
func (b *buffers) give(s []byte) {
	if cap(s) > 0 {
		b.spare = append(b.spare, s)
	}
}

// pool lends buffers to tasks: as many as there were tasks at once. The nil pool
// makes new ones each time.
type pool struct {
	mu   sync.Mutex
	free []*buffers
}

func (p *pool) get() *buffers {
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if last := len(p.free) - 1; last >= 0 {
			b := p.free[last]
			p.free = p.free[:last]
			return b
		}
	}
	return &buffers{panel: make([]byte, panelBytes)}
}

func (p *pool) put(b *buffers) {
	if p == nil || b.size() > keptBytes {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b)
}
