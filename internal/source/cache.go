package source

import (
	"bytes"
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shardpress/shardpress/shard"
)

// Cache keeps parts of weight files in a directory of this machine, up to a number of bytes; what was not used for longest goes first. Each
// file of it ends in the SHA-256 of what comes before: what a crash or a bad disk made of it is not given out.
//
// A cache that cannot be written is of no use, but no harm either: Stats tells.
type Cache struct {
	dir   string
	limit int64
	lock  *os.File

	mu     sync.Mutex
	order  *list.List               // of cached, the latest used first
	have   map[string]*list.Element // by name
	coming map[string]bool          // being written
	stats  CacheStats
}

// CacheStats say how a cache does.
type CacheStats struct {
	Bytes        int64 // on disk
	Hits, Misses int64
	Failed       int64 // blocks that could not be written
	LastFailure  error // why, the last time
}

type cached struct {
	name string
	size int64 // with the checksum
}

var _ shard.BlockCache = (*Cache)(nil)

var cacheName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// OpenCache opens a cache of at most limit bytes in a directory, which is made if need be and must hold nothing else. One process uses it at a time.
func OpenCache(dir string, limit int64) (_ *Cache, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	c := &Cache{dir: dir, limit: limit, order: list.New(), have: map[string]*list.Element{}, coming: map[string]bool{}}
	if c.lock, err = os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	defer func() {
		if err != nil {
			c.lock.Close()
		}
	}()
	if err := syscall.Flock(int(c.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("open cache: %s is in use by another process: give each its own (%w)", dir, err)
	}
	if err := c.scan(); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return c, nil
}

// scan takes over what an earlier process left, and removes what it did not finish.
func (c *Cache) scan() error {
	type found struct {
		cached
		used time.Time
	}
	var all []found
	err := filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		switch name := e.Name(); {
		case err != nil:
			return err
		case e.IsDir() || name == ".lock":
			return nil
		case cacheName.MatchString(name) && path == c.path(name):
			info, err := e.Info()
			if err != nil {
				return err
			}
			all = append(all, found{cached{name, info.Size()}, info.ModTime()})
			return nil
		case strings.HasPrefix(name, ".new-"):
			return os.Remove(path)
		default:
			return fmt.Errorf("%s holds %s, which is no part of a cache: name another directory", c.dir, name)
		}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b found) int { return b.used.Compare(a.used) })
	for _, f := range all {
		c.have[f.name] = c.order.PushBack(f.cached)
		c.stats.Bytes += f.size
	}
	c.evict(0)
	return nil
}

func (c *Cache) path(name string) string { return filepath.Join(c.dir, name[:2], name) }

// Stats tells how the cache does.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Close lets another process use the directory. What is in it stays.
func (c *Cache) Close() error { return c.lock.Close() }

// Load implements shard.BlockCache.
func (c *Cache) Load(name string, p []byte) bool {
	c.mu.Lock()
	e := c.have[name]
	if e == nil {
		c.stats.Misses++
		c.mu.Unlock()
		return false
	}
	c.order.MoveToFront(e)
	c.mu.Unlock()
	ok := c.read(name, p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok {
		c.stats.Hits++
		return true
	}
	c.stats.Misses++
	if c.have[name] == e {
		c.remove(e)
	}
	return false
}

// read fills p from a file and compares it with its checksum.
func (c *Cache) read(name string, p []byte) bool {
	f, err := os.Open(c.path(name))
	if err != nil {
		return false
	}
	defer f.Close()
	var sum [sha256.Size]byte
	for _, b := range [][]byte{p, sum[:]} {
		for len(b) > 0 {
			n, err := f.Read(b)
			if b = b[n:]; err != nil && len(b) > 0 {
				return false
			}
		}
	}
	if info, err := f.Stat(); err != nil || info.Size() != int64(len(p)+len(sum)) || sha256.Sum256(p) != sum {
		return false
	}
	now := time.Now() // what a later process goes by; if it fails, that one forgets sooner
	_ = os.Chtimes(c.path(name), now, now)
	return true
}

// Store implements shard.BlockCache.
func (c *Cache) Store(name string, p []byte) {
	size := int64(len(p)) + sha256.Size
	c.mu.Lock()
	if c.have[name] != nil || c.coming[name] || size > c.limit || !cacheName.MatchString(name) {
		c.mu.Unlock()
		return
	}
	c.coming[name] = true
	c.stats.Bytes += size
	c.evict(0)
	c.mu.Unlock()
	err := c.write(name, p)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.coming, name)
	if err != nil {
		c.stats.Bytes -= size
		c.stats.Failed++
		c.stats.LastFailure = err
		return
	}
	c.have[name] = c.order.PushFront(cached{name, size})
}

// write puts a file where it belongs, whole or not at all.
func (c *Cache) write(name string, p []byte) error {
	path := c.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256(p)
	tmp := filepath.Join(filepath.Dir(path), ".new-"+rand.Text())
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for _, b := range [][]byte{p, sum[:]} {
		if err == nil {
			_, err = bytes.NewReader(b).WriteTo(f)
		}
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// evict makes room for more bytes. It runs under the lock.
func (c *Cache) evict(more int64) {
	for c.stats.Bytes+more > c.limit && c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
}

// remove forgets a file and deletes it. Who reads it just now reads on.
func (c *Cache) remove(e *list.Element) {
	x, _ := c.order.Remove(e).(cached) // the list holds nothing else
	delete(c.have, x.name)
	c.stats.Bytes -= x.size
	os.Remove(c.path(x.name))
}
