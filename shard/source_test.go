package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// rewrite changes a byte of the data in place, keeping the size, and moves the clock of the file system on.
func rewrite(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0x55}, info.Size()-1); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	later := info.ModTime().Add(time.Second)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
}

func TestSourceChanged(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte{1}, 16)
	file := func(t *testing.T, b byte) []byte {
		return fileBytes(t, testTensor{"a.weight", BF16, []int64{2, 4}, append(bytes.Clone(data[:15]), b)})
	}
	tests := []struct {
		name    string
		change  func(t *testing.T, path string)
		content bool // the content is another
	}{
		{"rewritten in place with the same size", rewrite, true},
		{"replaced by a file of the same size", func(t *testing.T, path string) {
			next := writeFile(t, filepath.Dir(path), "next", file(t, 2))
			if err := os.Rename(next, path); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"cut short", func(t *testing.T, path string) {
			if err := os.Truncate(path, 20); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"longer", func(t *testing.T, path string) {
			writeFile(t, filepath.Dir(path), filepath.Base(path), append(file(t, 1), 0))
		}, true},
		{"same bytes written again", func(t *testing.T, path string) {
			later := time.Unix(2_000_000_000, 0)
			if err := os.Chtimes(path, later, later); err != nil {
				t.Fatal(err)
			}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, hash := range []bool{false, true} {
				dir := t.TempDir()
				path := writeFile(t, dir, WeightsName, file(t, 1))
				c, err := Open(t.Context(), dir, OpenOptions{HashSource: hash})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				p := make([]byte, 16)
				off := c.Manifest.Tensors[0].Offset
				if err := c.ReadAt(t.Context(), 0, p, off); err != nil || !bytes.Equal(p, data) {
					t.Fatalf("%v, %v", p, err)
				}
				tt.change(t, path)
				// The handle that is open and one that is opened later both refuse.
				err = c.ReadAt(t.Context(), 0, p, off)
				if !errors.Is(err, ErrSourceChanged) || !strings.Contains(err.Error(), WeightsName) || !strings.Contains(err.Error(), "run again") {
					t.Errorf("read: error %v", err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if err := c.ReadAt(t.Context(), 0, p, off); !errors.Is(err, ErrSourceChanged) {
					t.Errorf("read after close: error %v", err)
				}
				s, err := OpenSource(t.Context(), dir, c.Manifest.Files)
				if hash && !tt.content {
					if err != nil {
						t.Errorf("open with the same content: %v", err)
						continue
					}
					if err := errors.Join(s.ReadAt(t.Context(), 0, p, off), s.Close()); err != nil {
						t.Errorf("read the same content: %v", err)
					}
					continue
				}
				if !errors.Is(err, ErrSourceChanged) && !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), WeightsName) {
					t.Errorf("open: error %v", err)
				}
			}
		})
	}
}

// A change between the first look at a file and the last is seen, whatever the read itself made of it.
func TestSourceChangedDuringRead(t *testing.T) {
	t.Parallel()
	for _, readErr := range []error{nil, io.ErrUnexpectedEOF} {
		c := checkpoint(t, "", bf16("a.weight", 2, 4))
		err := c.source.reading(t.Context(), 0, func(weightFile) error {
			rewrite(t, filepath.Join(c.Location(), WeightsName))
			return readErr
		})
		if !errors.Is(err, ErrSourceChanged) {
			t.Errorf("error %v", err)
		}
	}
}

func TestOpenRefusesManifestOfOtherHeader(t *testing.T) {
	t.Parallel()
	c := checkpoint(t, "", bf16("a.weight", 2, 4))
	files := slices.Clone(c.Manifest.Files)
	files[0].HeaderDigest = strings.Repeat("0", 64)
	if _, err := OpenSource(t.Context(), c.Location(), files); !errors.Is(err, ErrSourceChanged) {
		t.Errorf("error %v", err)
	}
	files[0] = c.Manifest.Files[0]
	files[0].Identity.Kind = "published"
	if _, err := OpenSource(t.Context(), c.Location(), files); err == nil {
		t.Error("an identity of unknown kind was accepted")
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := fileBytes(t, bf16("a.weight", 2, 4))
	path := writeFile(t, dir, WeightsName, b)
	open := func(hash bool) Identity {
		c, err := Open(t.Context(), path, OpenOptions{HashSource: hash})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Manifest.Files[0].Identity
	}
	local, content := open(false), open(true)
	if local != open(false) || local.Kind != IdentityLocal || content.Kind != IdentityContent || local.Value == content.Value {
		t.Errorf("%v, %v", local, content)
	}
	rewrite(t, path)
	if open(false) == local || open(true) == content {
		t.Error("identities of a file that was rewritten are those of the old one")
	}
}

// Every field takes part in a local identity.
func TestLocalIdentityFields(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for name, v := range map[string]string{
		"base":   stat{1, 2, 3, 4}.local("d"),
		"header": stat{1, 2, 3, 4}.local("e"),
		"size":   stat{9, 2, 3, 4}.local("d"),
		"mtime":  stat{1, 9, 3, 4}.local("d"),
		"device": stat{1, 2, 9, 4}.local("d"),
		"inode":  stat{1, 2, 3, 9}.local("d"),
	} {
		if other, ok := seen[v]; ok {
			t.Errorf("%s and %s have one identity", name, other)
		}
		seen[v] = name
	}
}

// More files than may be open at once, read by many goroutines.
func TestSourcePool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const n = maxOpen + 20
	weightMap := map[string]string{}
	for i := range n {
		name, file := fmt.Sprintf("t%03d", i), fmt.Sprintf("%03d.safetensors", i)
		weightMap[name] = file
		writeFile(t, dir, file, fileBytes(t, testTensor{name, U8, []int64{1}, []byte{byte(i)}}))
	}
	index, err := MarshalIndex(weightMap, n)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, IndexName, index)
	c, err := Open(t.Context(), dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 3 * n {
				x := c.Manifest.Tensors[(i*(g+1)+g*17)%n]
				var p [1]byte
				if err := c.ReadAt(t.Context(), x.File, p[:], x.Offset); err != nil || x.Name != fmt.Sprintf("t%03d", p[0]) {
					t.Errorf("%s gives %d, %v", x.Name, p[0], err)
				}
			}
		})
	}
	wg.Wait()
	if d, ok := c.source.place.(*directory); !ok || d.opened > maxOpen {
		t.Errorf("%d files are open", d.opened)
	}
}

func TestSourceCancel(t *testing.T) {
	t.Parallel()
	c := checkpoint(t, "", bf16("a.weight", 2, 4))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.ReadAt(ctx, 0, make([]byte, 4), 8); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := Open(ctx, c.Location(), OpenOptions{HashSource: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := OpenSource(ctx, c.Location(), c.Manifest.Files); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := c.ReadAt(t.Context(), 1, nil, 0); !errors.Is(err, ErrMissing) {
		t.Errorf("error %v", err)
	}
	if err := c.ReadAt(t.Context(), 0, make([]byte, 4), c.Manifest.Files[0].Size-1); err == nil {
		t.Error("read beyond the end")
	}
	if _, err := OpenSource(t.Context(), c.Location(), []File{{Name: "../x"}}); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v", err)
	}
	if _, err := OpenSource(t.Context(), t.TempDir(), c.Manifest.Files); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
