package shard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

// keys lists a bucket.
func keys(t *testing.T, b objstore.Bucket) []string {
	t.Helper()
	var list []string
	for info, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, info.Key)
	}
	return list
}

// An uploaded checkpoint is the one that was uploaded, with the identities that it had here.
func TestUploadedIsWhatWasUploaded(t *testing.T) {
	t.Parallel()
	for name, dir := range everyKind(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, hash := range []bool{false, true} {
				local := openDir(t, dir, OpenOptions{HashSource: hash})
				store := objstore.NewMem()
				last, total := int64(0), int64(0)
				id, err := Upload(t.Context(), local, store, func(done, all int64) {
					if done < last {
						t.Errorf("progress goes back from %d to %d", last, done)
					}
					last, total = done, all
				})
				if err != nil {
					t.Fatal(err)
				}
				want := int64(0)
				for _, f := range local.Manifest.Files {
					want += f.Size
				}
				if last != want || total != want {
					t.Errorf("progress ended at %d of %d, want %d", last, total, want)
				}
				ck, err := OpenUploaded(t.Context(), store, id)
				if err != nil {
					t.Fatal(err)
				}
				defer ck.Close()
				sameCheckpoint(t, ck, local)
				a, err1 := ck.Manifest.MarshalCanonical()
				b, err2 := local.Manifest.MarshalCanonical()
				if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
					t.Errorf("manifest %s\nwant %s", a, b)
				}
				u, err := ReadUploaded(t.Context(), store, id)
				if err != nil {
					t.Fatal(err)
				}
				s, err := u.Source(t.Context(), local.Manifest.Files)
				if err != nil {
					t.Fatal(err)
				}
				s.Want(local.Manifest.Tensors)
				sameBytes(t, s, local.Source(), local.Manifest)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				other := slices.Clone(local.Manifest.Files)
				other[0].Identity.Value = strings.Repeat("0", 64)
				if _, err := u.Source(t.Context(), other); !errors.Is(err, ErrSourceChanged) {
					t.Errorf("another identity: error %v", err)
				}
			}
		})
	}
}

// The files of a checkpoint are cut where a block ends and at the bound, and nowhere else; all bytes belong to one extent.
func TestExtents(t *testing.T) {
	t.Parallel()
	m := &Manifest{Files: []File{{Name: "a", Size: 1000 + 3*maxExtent}, {Name: "b", Size: 500}, {Name: "c", Size: 64}}}
	add := func(name string, file, block int, begin, end int64) {
		m.Tensors = append(m.Tensors, Tensor{Name: name, File: file, Offset: begin, Length: end - begin})
		if block != -2 {
			m.Places = append(m.Places, Place{Tensor: name, Block: block})
		}
	}
	add("embed", 0, -1, 1000, 1000+2*maxExtent+5)
	add("nothing", 0, 0, 1000+2*maxExtent+5, 1000+2*maxExtent+5)
	add("x", 0, 0, 1000+2*maxExtent+5, 1000+2*maxExtent+10)
	add("y", 0, 0, 1000+2*maxExtent+10, 1000+3*maxExtent)
	add("z", 1, 1, 100, 200)
	add("scale", 1, -2, 200, 250)
	add("other", 1, 2, 250, 500)
	m.Linears = []Linear{{Name: "z", Tensor: "z", Scale: "scale", Block: 1}}
	want := [][]extent{
		{{0, 1000, -1, ""}, {1000, maxExtent, -1, ""}, {1000 + maxExtent, maxExtent, -1, ""}, {1000 + 2*maxExtent, 5, -1, ""}, {1000 + 2*maxExtent + 5, maxExtent - 5, 0, ""}},
		{{0, 100, -1, ""}, {100, 150, 1, ""}, {250, 250, 2, ""}},
		{{0, 64, -1, ""}},
	}
	if got := extents(m); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("extents\n%v\nwant\n%v", got, want)
	}
}

// tap counts the puts of a bucket, and lets a test refuse some.
type tap struct {
	objstore.Bucket
	mu   sync.Mutex
	puts []string
	deny func(key string) error
}

func (b *tap) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	b.mu.Lock()
	b.puts = append(b.puts, key)
	deny := b.deny
	b.mu.Unlock()
	if deny != nil {
		if err := deny(key); err != nil {
			return objstore.Info{}, err
		}
	}
	return b.Bucket.Put(ctx, key, r, size, o)
}

func (b *tap) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	puts := b.puts
	b.puts = nil
	slices.Sort(puts)
	return puts
}

// Whatever was sent before an upload was broken off is not sent again, and there is no checkpoint before all of it is there.
func TestUploadGoesOn(t *testing.T) {
	t.Parallel()
	local := openDir(t, everyKind(t)["llama in three files"], OpenOptions{})
	whole := &tap{Bucket: objstore.NewMem()}
	id, err := Upload(t.Context(), local, whole, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := keys(t, whole)
	puts := len(whole.take())
	broken := errors.New("no route to host")
	for n := range puts {
		b := &tap{Bucket: objstore.NewMem()}
		var left = n
		b.deny = func(string) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if left--; left < 0 {
				return broken
			}
			return nil
		}
		if _, err := Upload(t.Context(), local, b, nil); !errors.Is(err, broken) {
			t.Fatalf("after %d puts: error %v", n, err)
		}
		if _, err := OpenUploaded(t.Context(), b, id); !errors.Is(err, ErrMissing) {
			t.Fatalf("after %d puts it can be opened: error %v", n, err)
		}
		there := map[string]bool{}
		for _, k := range keys(t, b) {
			there[k] = true
		}
		b.take()
		b.deny = nil
		if again, err := Upload(t.Context(), local, b, nil); err != nil || again != id {
			t.Fatalf("upload again: %v", err)
		}
		for _, k := range b.take() {
			if base, ok := strings.CutSuffix(k, ".bin"); ok && there[k] && there[base+".json"] {
				t.Errorf("%s is sent again", k)
			}
		}
		if got := keys(t, b); !slices.Equal(got, want) {
			t.Errorf("keys %v, want %v", got, want)
		}
	}
	if _, err := Upload(t.Context(), local, whole, nil); err != nil || len(whole.take()) != 0 {
		t.Errorf("an upload of what is there puts something, error %v", err)
	}
}

// replace changes an object.
func replace(t *testing.T, b objstore.Bucket, key string, change func([]byte) []byte) {
	t.Helper()
	text, err := readObject(t.Context(), b, key, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	putObject(t, b, key, change(bytes.Clone(text)))
}

// Damage anywhere is found, said to be damage, and mended by the next upload.
func TestUploadedDamaged(t *testing.T) {
	t.Parallel()
	local := openDir(t, everyKind(t)["llama"], OpenOptions{})
	whole := objstore.NewMem()
	id, err := Upload(t.Context(), local, whole, nil)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for what, change := range map[string]func(t *testing.T, b objstore.Bucket, key string){
		"a bit": func(t *testing.T, b objstore.Bucket, key string) { replace(t, b, key, flip) },
		"length": func(t *testing.T, b objstore.Bucket, key string) {
			replace(t, b, key, func(b []byte) []byte { return b[:len(b)-1] })
		},
		"empty": func(t *testing.T, b objstore.Bucket, key string) {
			replace(t, b, key, func([]byte) []byte { return nil })
		},
		"gone": func(t *testing.T, b objstore.Bucket, key string) {
			if err := b.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, key := range keys(t, whole) {
			b := objstore.NewMem()
			for _, k := range keys(t, whole) {
				if _, err := objstore.Copy(t.Context(), b, k, whole, k); err != nil {
					t.Fatal(err)
				}
			}
			change(t, b, key)
			err := readAll(t, b, id)
			document := strings.HasSuffix(key, uploadedKey)
			if !errors.Is(err, ErrDamaged) && !(document && what == "gone" && errors.Is(err, ErrMissing)) || !strings.Contains(err.Error(), "again") {
				t.Errorf("%s of %s: error %v", what, key, err)
				continue
			}
			if again, err := Upload(t.Context(), local, b, nil); err != nil || again != id {
				t.Errorf("%s of %s: upload again: %v", what, key, err)
				continue
			}
			if err := readAll(t, b, id); err != nil {
				t.Errorf("%s of %s: after another upload: %v", what, key, err)
			}
			if got := keys(t, b); !slices.Equal(got, keys(t, whole)) {
				t.Errorf("%s of %s: keys after another upload %v", what, key, got)
			}
		}
	}
}

// readAll opens an uploaded checkpoint and reads all of it.
func readAll(t *testing.T, b objstore.Bucket, id string) error {
	t.Helper()
	ck, err := OpenUploaded(t.Context(), b, id)
	if err != nil {
		return err
	}
	defer ck.Close()
	for i, f := range ck.Manifest.Files {
		if err := ck.ReadAt(t.Context(), i, make([]byte, f.Size), 0); err != nil {
			return err
		}
	}
	return nil
}

// once is a bucket that gives one wrong byte, once for each object.
type once struct {
	objstore.Bucket
	mu   sync.Mutex
	seen map[string]bool
}

func (o *once) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := o.Bucket.Get(ctx, key, off, n)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil || o.seen[key] || !strings.HasSuffix(key, ".bin") {
		return r, err
	}
	o.seen[key] = true
	defer r.Close()
	b, err := io.ReadAll(r)
	if len(b) > 0 {
		b[0] ^= 1
	}
	return io.NopCloser(bytes.NewReader(b)), err
}

func TestUploadedDamagedOnTheWay(t *testing.T) {
	t.Parallel()
	local := openDir(t, everyKind(t)["llama"], OpenOptions{})
	b := objstore.NewMem()
	id, err := Upload(t.Context(), local, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := readAll(t, &once{Bucket: b, seen: map[string]bool{}}, id); err != nil {
		t.Errorf("what was damaged once on its way is not read again: %v", err)
	}
}

func TestUploadOfAChangedSource(t *testing.T) {
	t.Parallel()
	dir := everyKind(t)["llama"]
	local := openDir(t, dir, OpenOptions{})
	rewrite(t, filepath.Join(dir, WeightsName))
	b := objstore.NewMem()
	if _, err := Upload(t.Context(), local, b, nil); !errors.Is(err, ErrSourceChanged) {
		t.Errorf("weights: error %v", err)
	}
	local = openDir(t, dir, OpenOptions{})
	writeFile(t, dir, "tokenizer.json", []byte(`{"version":"2.0"}`))
	if _, err := Upload(t.Context(), local, b, nil); !errors.Is(err, ErrSourceChanged) {
		t.Errorf("extra file: error %v", err)
	}
	for _, k := range keys(t, b) {
		if strings.HasSuffix(k, uploadedKey) {
			t.Errorf("%s was written", k)
		}
	}
}

// The chunks of extents that are larger than one.
func TestUploadChunks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ts := []testTensor{bf16("model.embed_tokens.weight", 1, 5<<20), bf16("model.layers.0.self_attn.q_proj.weight", 1, 100)}
	writeFile(t, dir, WeightsName, fileBytes(t, ts...))
	local := openDir(t, dir, OpenOptions{})
	b := objstore.NewMem()
	id, err := Upload(t.Context(), local, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	ck, err := OpenUploaded(t.Context(), b, id)
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	x := ck.Manifest.Tensors[0]
	for _, r := range [][2]int64{{0, 10}, {chunkSize - 5, 10}, {2*chunkSize - 5, 10}, {x.Length - 7, 7}, {0, x.Length}} {
		p, q := make([]byte, r[1]), make([]byte, r[1])
		err1, err2 := ck.ReadAt(t.Context(), 0, p, x.Offset+r[0]), local.ReadAt(t.Context(), 0, q, x.Offset+r[0])
		if err1 != nil || err2 != nil || !bytes.Equal(p, q) {
			t.Errorf("%d bytes from %d: errors %v, %v, equal %v", r[1], r[0], err1, err2, bytes.Equal(p, q))
		}
	}
	u, err := ReadUploaded(t.Context(), b, id)
	if err != nil {
		t.Fatal(err)
	}
	text, err := readObject(t.Context(), u.bucket, extentsKey+u.doc.Files[0].Extents[1].name(0)+".json", maxSidecar)
	if err != nil {
		t.Fatal(err)
	}
	var s sidecar
	if err := json.Unmarshal(text, &s); err != nil || len(s.Chunks) != 3 {
		t.Fatalf("sidecar %s, error %v", text, err)
	}
	p := make([]byte, chunkSize)
	if err := local.ReadAt(t.Context(), 0, p, x.Offset+chunkSize); err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(p); hex.EncodeToString(sum[:]) != s.Chunks[1] {
		t.Error("the second hash is not that of the second chunk")
	}
}

func FuzzParseUploaded(f *testing.F) {
	zero := strings.Repeat("0", 64)
	u := &uploaded{Version: uploadedVersion, Files: []uploadedFile{{
		File:    File{Name: WeightsName, Size: 100, HeaderDigest: zero, Identity: Identity{Kind: IdentityLocal, Value: zero}},
		Extents: []extent{{0, 20, -1, zero}, {20, 80, 0, zero}},
	}}, Extras: []Extra{{Name: "tokenizer.json", Size: 3, SHA256: zero}}, Skipped: []Skipped{{Name: "x", Reason: "y"}}}
	b, err := u.encode()
	if err != nil {
		f.Fatal(err)
	}
	id := u.id()
	if _, err := parseUploaded(id, b); err != nil {
		f.Fatal(err)
	}
	inner, err := json.Marshal(u)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(inner)
	f.Add([]byte(`{"version":1,"files":[{"name":"a","size":8,"extents":[{"offset":0,"length":9223372036854775807}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		// As it is, and with a checksum that is right, so that what is inside is looked at.
		for _, text := range [][]byte{b, seal(b)} {
			u, err := parseUploaded(id, text)
			var parsed uploaded
			if err == nil && u.id() != id {
				t.Fatal("a document of another checkpoint is taken")
			}
			if decodeStrict(b, &parsed) != nil || parsed.check() != nil {
				continue
			}
			if parsed.Version == uploadedVersion {
				again, err := parsed.encode()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := parseUploaded(parsed.id(), again); err != nil {
					t.Fatalf("a document that was checked is refused: %v", err)
				}
			}
			for i := range parsed.Files {
				p := &uploadedPlace{Uploaded: &Uploaded{doc: &parsed}, files: []int{i}}
				for _, off := range []int64{0, parsed.Files[i].Size / 2, parsed.Files[i].Size - 1} {
					if begin, end := p.chunk(0, off); begin > off || end <= off || end > parsed.Files[i].Size || end-begin > chunkSize {
						t.Fatalf("byte %d is in the chunk from %d to %d", off, begin, end)
					}
				}
			}
		}
		if s, err := parseSidecar(b, 5<<20); err == nil && len(s.Chunks) != 2 {
			t.Fatal("a sidecar of another extent is taken")
		}
	})
}

func seal(b []byte) []byte {
	sum := sha256.Sum256(b)
	out, err := json.Marshal(sealed{b, hex.EncodeToString(sum[:])})
	if err != nil {
		return nil
	}
	return out
}

// Two uploads of one checkpoint at once do each other no harm.
func TestUploadsAtOnce(t *testing.T) {
	t.Parallel()
	local := openDir(t, everyKind(t)["llama in three files"], OpenOptions{})
	b := objstore.NewMem()
	var wg sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		wg.Go(func() {
			id, err := Upload(t.Context(), local, b, nil)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("IDs %v", ids)
	}
	if err := readAll(t, b, ids[0]); err != nil {
		t.Error(err)
	}
}

// swallow takes objects and keeps nothing but the small ones.
type swallow struct{ objstore.Bucket }

func (s swallow) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if !strings.HasSuffix(key, ".bin") {
		return s.Bucket.Put(ctx, key, r, size, o)
	}
	n, err := io.Copy(io.Discard, r)
	if err == nil && n != size {
		err = objstore.ErrSize
	}
	return objstore.Info{Key: key, Size: n}, err
}

// What an upload allocates does not grow with the checkpoint.
func TestUploadMemory(t *testing.T) { //nolint:paralleltest // counts what the whole process allocates
	dir := t.TempDir()
	const blocks, size = 8, 16 << 20
	var specs []TensorSpec
	for i := range blocks {
		specs = append(specs, TensorSpec{Name: fmt.Sprintf("model.layers.%d.mlp.down_proj.weight", i), DType: BF16, Shape: []int64{size / 2 / 1024, 1024}})
	}
	layout, err := NewLayout(specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, dir, WeightsName, layout.Header)
	if err := os.Truncate(path, layout.Total); err != nil { // a hole, which costs nothing
		t.Fatal(err)
	}
	local := openDir(t, dir, OpenOptions{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Upload(t.Context(), local, swallow{objstore.NewMem()}, nil); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > (uploadsAtOnce+1)*uploadPiece {
		t.Errorf("%d bytes were allocated for %d", used, layout.Total)
	}
}

// What is damaged in a way that hides it is found all the same.
func TestUploadedDamagedWithoutTrace(t *testing.T) {
	t.Parallel()
	local := openDir(t, everyKind(t)["llama"], OpenOptions{})
	whole := objstore.NewMem()
	id, err := Upload(t.Context(), local, whole, nil)
	if err != nil {
		t.Fatal(err)
	}
	var extent string
	for _, k := range keys(t, whole) {
		if base, ok := strings.CutSuffix(k, ".bin"); ok {
			extent = base // the last one: weights, and not a header
		}
	}
	for _, c := range []struct {
		name   string
		damage func(b objstore.Bucket)
		unseen bool // by readers, until the next upload
	}{
		{"other bytes with their own hashes", func(b objstore.Bucket) {
			replace(t, b, extent+".bin", func(b []byte) []byte { b[0] ^= 1; return b })
			text, err := readObject(t.Context(), b, extent+".bin", 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(text)
			s := &sidecar{Version: uploadedVersion, Length: int64(len(text)), Chunks: []string{hex.EncodeToString(sum[:])}}
			b2, err := s.encode()
			if err != nil {
				t.Fatal(err)
			}
			putObject(t, b, extent+".json", b2)
		}, false},
		{"a number of the document", func(b objstore.Bucket) {
			replace(t, b, UploadedPrefix(id)+uploadedKey, func(b []byte) []byte { return bytes.Replace(b, []byte(`"block":1`), []byte(`"block":7`), 1) })
		}, false},
		{"an extent that nobody reads before the next upload", func(b objstore.Bucket) {
			replace(t, b, extent+".bin", func(b []byte) []byte { return b[:len(b)-1] })
		}, true},
	} {
		b := objstore.NewMem()
		for _, k := range keys(t, whole) {
			if _, err := objstore.Copy(t.Context(), b, k, whole, k); err != nil {
				t.Fatal(err)
			}
		}
		c.damage(b)
		if !c.unseen {
			if err := readAll(t, b, id); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: error %v", c.name, err)
			}
		}
		if _, err := Upload(t.Context(), local, b, nil); err != nil {
			t.Errorf("%s: upload again: %v", c.name, err)
		}
		if err := readAll(t, b, id); err != nil {
			t.Errorf("%s: after another upload: %v", c.name, err)
		}
	}
}
