package objstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Mem is a bucket in memory, for tests and small runs. It obeys every rule that
// the other backends obey, key conflicts included.
type Mem struct {
	buffers buffers
	mu      sync.RWMutex
	keys    []string // sorted
	objects map[string]memObject
	version uint64 // of the last object stored
}

// memObject is immutable: an overwrite stores another one.
type memObject struct {
	data    []byte
	version uint64
	modTime time.Time
}

var (
	_ Bucket      = (*Mem)(nil)
	_ Copier      = (*Mem)(nil)
	_ Conditional = (*Mem)(nil)
)

// NewMem returns an empty bucket.
func NewMem() *Mem { return &Mem{objects: make(map[string]memObject)} }

// Get implements Bucket.
func (m *Mem) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	o, err := m.find(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	return o.open(ctx, key, off, n)
}

// GetIf implements Conditional.
func (m *Mem) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	o, err := m.find(ctx, "get", key)
	if err == nil {
		err = checkVersion(key, version, o.info(key).Version)
	}
	if err != nil {
		return nil, err
	}
	return o.open(ctx, key, off, n)
}

func (o memObject) open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	size := int64(len(o.data))
	n, err := cut(off, n, size)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return &memReader{ctx: ctx, r: bytes.NewReader(o.data[off : off+n])}, nil
}

// cut gives the length of the range of n bytes from off in size bytes.
func cut(off, n, size int64) (int64, error) {
	if off < 0 || off > size {
		return 0, fmt.Errorf("%w: offset %d of %d bytes", ErrRange, off, size)
	}
	if n < 0 || n > size-off {
		n = size - off
	}
	return n, nil
}

type memReader struct {
	ctx context.Context
	r   *bytes.Reader
}

func (r *memReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (r *memReader) Close() error { return nil }

// Put implements Bucket.
func (m *Mem) Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error) {
	if err := CheckKey(key); err != nil {
		return Info{}, fmt.Errorf("put: %w", err)
	}
	var data bytes.Buffer
	if size > 0 { // a claim, so not more than a little is allocated for it
		data.Grow(int(min(size, bufferSize)))
	}
	_, sum, _, err := receive(ctx, &data, r, size, &m.buffers)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	info, err := m.store(key, data.Bytes(), o.IfAbsent)
	if err != nil {
		return Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	info.SHA256 = sum
	return info, nil
}

// store gives data, which nobody may change from now on, its name.
func (m *Mem) store(key string, data []byte, ifAbsent bool) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[key]; ok {
		if ifAbsent {
			return Info{}, ErrExist
		}
	} else {
		for i, c := range []byte(key) {
			if c != '/' {
				continue
			}
			if _, ok := m.objects[key[:i]]; ok {
				return Info{}, errAbove(key, key[:i])
			}
		}
		if i, _ := slices.BinarySearch(m.keys, key+"/"); i < len(m.keys) && strings.HasPrefix(m.keys[i], key+"/") {
			return Info{}, errBelow(key)
		}
		i, _ := slices.BinarySearch(m.keys, key)
		m.keys = slices.Insert(m.keys, i, key)
	}
	m.version++
	obj := memObject{data: data, version: m.version, modTime: time.Now().Round(0)}
	m.objects[key] = obj
	return obj.info(key), nil
}

func (o memObject) info(key string) Info {
	return Info{Key: key, Size: int64(len(o.data)), Version: strconv.FormatUint(o.version, 10), ModTime: o.modTime}
}

// find looks key up for the operation op.
func (m *Mem) find(ctx context.Context, op, key string) (memObject, error) {
	if err := CheckKey(key); err != nil {
		return memObject{}, fmt.Errorf("%s: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return memObject{}, fmt.Errorf("%s %s: %w", op, key, err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.objects[key]
	if !ok {
		return memObject{}, fmt.Errorf("%s %s: %w", op, key, ErrNotExist)
	}
	return o, nil
}

// Stat implements Bucket.
func (m *Mem) Stat(ctx context.Context, key string) (Info, error) {
	o, err := m.find(ctx, "stat", key)
	if err != nil {
		return Info{}, err
	}
	return o.info(key), nil
}

// List implements Bucket. No lock is held while the loop body runs.
func (m *Mem) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := CheckPrefix(prefix); err != nil {
			yield(Info{}, fmt.Errorf("list: %w", err))
			return
		}
		for info, ok := m.next(prefix, true); ok && strings.HasPrefix(info.Key, prefix); info, ok = m.next(info.Key, false) {
			if err := ctx.Err(); err != nil {
				yield(Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

// next finds the first object behind after, or at it if that is asked for.
func (m *Mem) next(after string, at bool) (Info, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, found := slices.BinarySearch(m.keys, after)
	if found && !at {
		i++
	}
	if i == len(m.keys) {
		return Info{}, false
	}
	return m.objects[m.keys[i]].info(m.keys[i]), true
}

// Delete implements Bucket.
func (m *Mem) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if i, ok := slices.BinarySearch(m.keys, key); ok {
		m.keys = slices.Delete(m.keys, i, i+1)
		delete(m.objects, key)
	}
	return nil
}

// Copy implements Copier between buckets in memory.
func (m *Mem) Copy(ctx context.Context, dst string, src Bucket, srcKey string) (Info, error) {
	if err := CheckKey(dst); err != nil {
		return Info{}, fmt.Errorf("copy: %w", err)
	}
	src, srcKey, err := Unwrap(src, srcKey)
	if err != nil {
		return Info{}, fmt.Errorf("copy: %w", err)
	}
	from, ok := src.(*Mem)
	if !ok {
		return Info{}, fmt.Errorf("copy %s: %w", srcKey, ErrCannotCopy)
	}
	o, err := from.find(ctx, "copy", srcKey)
	if err != nil {
		return Info{}, err
	}
	info, err := m.store(dst, bytes.Clone(o.data), false)
	if err != nil {
		return Info{}, fmt.Errorf("copy %s: %w", srcKey, err)
	}
	return info, nil
}
