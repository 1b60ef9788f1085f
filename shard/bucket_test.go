package shard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

// everyKind is checkpoints with every way of storing a linear, in one file and in several, with files beside them.
func everyKind(t *testing.T) map[string]string {
	t.Helper()
	dirs := map[string]string{}
	add := func(name, config string, files ...[]testTensor) {
		dir := t.TempDir()
		weightMap := map[string]string{}
		for i, ts := range files {
			file := WeightsName
			if len(files) > 1 {
				file = "model-" + string(rune('a'+i)) + ".safetensors"
			}
			for _, x := range ts {
				weightMap[x.name] = file
			}
			writeFile(t, dir, file, fileBytes(t, ts...))
		}
		if len(files) > 1 {
			index, err := MarshalIndex(weightMap, 0)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir, IndexName, index)
		}
		writeFile(t, dir, ConfigName, []byte(config))
		writeFile(t, dir, "tokenizer.json", []byte(`{"version":"1.0"}`))
		writeFile(t, dir, "pytorch_model.bin", []byte("old"))
		if err := os.Mkdir(filepath.Join(dir, "onnx"), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "onnx"), "model.onnx", []byte("other"))
		dirs[name] = dir
	}
	ts := llama(2)
	add("llama", `{"model_type":"llama","num_hidden_layers":2}`, ts)
	add("llama in three files", `{"model_type":"llama","num_hidden_layers":2}`, ts[:3], ts[3:14], ts[14:])
	add("transposed", `{"model_type":"gpt2","n_embd":32,"n_layer":1}`, []testTensor{
		{name: "wte.weight", dtype: F32, shape: []int64{50, 32}}, {name: "h.0.attn.c_attn.weight", dtype: F32, shape: []int64{32, 96}},
		{name: "h.0.attn.c_proj.weight", dtype: F32, shape: []int64{32, 32}}, {name: "h.0.mlp.c_fc.weight", dtype: F32, shape: []int64{32, 128}},
		{name: "h.0.mlp.c_proj.weight", dtype: F32, shape: []int64{128, 32}},
	})
	add("FP8 and experts", `{"model_type":"qwen3_moe","num_hidden_layers":1,"num_experts":4,"quantization_config":{"quant_method":"fp8","weight_block_size":[16,16]}}`, []testTensor{
		bf16("model.embed_tokens.weight", 48, 32), {name: "model.layers.0.self_attn.q_proj.weight", dtype: F8E4M3, shape: []int64{40, 32}},
		{name: "model.layers.0.self_attn.q_proj.weight_scale_inv", dtype: F32, shape: []int64{3, 2}},
		bf16("model.layers.0.mlp.experts.gate_up_proj", 4, 32, 64), bf16("model.layers.0.mlp.experts.down_proj", 4, 32, 32),
	})
	return dirs
}

// bucketOf copies the files of a directory into a bucket in memory.
func bucketOf(t *testing.T, dir string) *objstore.Mem {
	t.Helper()
	from, err := objstore.OpenDirReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	to := objstore.NewMem()
	for info, err := range from.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := objstore.Copy(t.Context(), to, info.Key, from, info.Key); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func openDir(t *testing.T, dir string, o OpenOptions) *Checkpoint {
	t.Helper()
	c, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// sameCheckpoint compares everything but the identities, and locations.
func sameCheckpoint(t *testing.T, got, want *Checkpoint) {
	t.Helper()
	a, b := *got.Manifest, *want.Manifest
	a.Files, b.Files = slices.Clone(a.Files), slices.Clone(b.Files)
	for _, m := range []*Manifest{&a, &b} {
		for i := range m.Files {
			m.Files[i].Identity = Identity{}
		}
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("manifest\n%+v\nwant\n%+v", a, b)
	}
	if !bytes.Equal(got.Config, want.Config) {
		t.Errorf("config %s, want %s", got.Config, want.Config)
	}
	for _, e := range want.Manifest.Extras {
		x, err1 := got.Source().ReadExtra(t.Context(), e)
		y, err2 := want.Source().ReadExtra(t.Context(), e)
		if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
			t.Errorf("%s: %q, %v, want %q, %v", e.Name, x, err1, y, err2)
		}
	}
	sameBytes(t, got.Source(), want.Source(), want.Manifest)
}

// sameBytes compares what two sources give, read in panels of random sizes.
func sameBytes(t *testing.T, got, want *Source, m *Manifest) {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	for _, l := range m.Linears {
		width, err := m.RowBytes(l)
		if err != nil {
			t.Fatal(err)
		}
		for row := int64(0); row < l.Rows; {
			n := min(1+r.Int64N(9), l.Rows-row)
			a, b := make([]byte, n*width), make([]byte, n*width)
			d1, err1 := got.ReadRows(t.Context(), m, l, row, int(n), a)
			d2, err2 := want.ReadRows(t.Context(), m, l, row, int(n), b)
			if err1 != nil || err2 != nil || d1 != d2 || !bytes.Equal(a, b) {
				t.Fatalf("%s, %d rows from %d: errors %v, %v, bytes equal: %v", l.Name, n, row, err1, err2, bytes.Equal(a, b))
			}
			row += n
		}
	}
	for _, x := range m.Tensors {
		a, b := make([]byte, x.Length), make([]byte, x.Length)
		err1, err2 := got.ReadAt(t.Context(), x.File, a, x.Offset), want.ReadAt(t.Context(), x.File, b, x.Offset)
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Fatalf("%s: errors %v, %v, bytes equal: %v", x.Name, err1, err2, bytes.Equal(a, b))
		}
	}
}

// knows is a bucket that knows the SHA-256 of its objects, as the hub does.
type knows struct{ objstore.Bucket }

func (k knows) Stat(ctx context.Context, key string) (objstore.Info, error) {
	info, err := k.Bucket.Stat(ctx, key)
	if err != nil {
		return info, err
	}
	r, err := k.Get(ctx, key, 0, -1)
	if err != nil {
		return info, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	info.SHA256 = sha256.Sum256(b)
	return info, err
}

func TestBucketGivesWhatTheDirectoryGives(t *testing.T) {
	t.Parallel()
	for name, dir := range everyKind(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			local, content := openDir(t, dir, OpenOptions{}), openDir(t, dir, OpenOptions{HashSource: true})
			b := bucketOf(t, dir)
			for _, c := range []struct {
				name   string
				bucket objstore.Bucket
				o      OpenOptions
				kind   string
			}{
				{"versions", b, OpenOptions{Location: "store:models/x/"}, IdentityVersion},
				{"hashed", b, OpenOptions{HashSource: true}, IdentityContent},
				{"known digests", knows{b}, OpenOptions{}, IdentityContent},
			} {
				ck, err := OpenBucket(t.Context(), c.bucket, c.o)
				if err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				defer ck.Close()
				sameCheckpoint(t, ck, local)
				for i, f := range ck.Manifest.Files {
					if f.Identity.Kind != c.kind || c.kind == IdentityContent && f.Identity != content.Manifest.Files[i].Identity {
						t.Errorf("%s: identity %v", c.name, f.Identity)
					}
				}
				// A worker, by what the manifest says.
				s, err := OpenBucketSource(t.Context(), c.bucket, "store:models/x", ck.Manifest.Files)
				if err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				s.Want(ck.Manifest.Tensors)
				sameBytes(t, s, local.Source(), ck.Manifest)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				b, err := ck.Manifest.MarshalCanonical()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := ParseManifest(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestBucketChanged(t *testing.T) {
	t.Parallel()
	one, other := fileBytes(t, bf16("a.weight", 2, 4)), fileBytes(t, bf16("b.weight", 2, 4))
	for _, c := range []struct {
		name   string
		change func(t *testing.T, b objstore.Bucket)
		same   bool // the content is the same
	}{
		{"another file of the same size", func(t *testing.T, b objstore.Bucket) { putObject(t, b, WeightsName, other) }, false},
		{"cut short", func(t *testing.T, b objstore.Bucket) { putObject(t, b, WeightsName, one[:len(one)-3]) }, false},
		{"the same bytes again", func(t *testing.T, b objstore.Bucket) { putObject(t, b, WeightsName, one) }, true},
		{"deleted", func(t *testing.T, b objstore.Bucket) {
			if err := b.Delete(t.Context(), WeightsName); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, hash := range []bool{false, true} {
				b := objstore.NewMem()
				putObject(t, b, WeightsName, one)
				ck, err := OpenBucket(t.Context(), b, OpenOptions{HashSource: hash, Location: "store:m"})
				if err != nil {
					t.Fatal(err)
				}
				defer ck.Close()
				c.change(t, b)
				is := func(what string, err error) {
					t.Helper()
					if !errors.Is(err, ErrSourceChanged) || !strings.Contains(err.Error(), "store:m/"+WeightsName) || !strings.Contains(err.Error(), "run again") {
						t.Errorf("%s: error %v", what, err)
					}
				}
				is("read", ck.ReadAt(t.Context(), 0, make([]byte, 4), ck.Manifest.Tensors[0].Offset))
				s, err := OpenBucketSource(t.Context(), b, "store:m", ck.Manifest.Files)
				if hash && c.same {
					if err != nil {
						t.Errorf("open the same content: %v", err)
					} else if err := errors.Join(s.ReadAt(t.Context(), 0, make([]byte, 4), 100), s.Close()); err != nil {
						t.Errorf("read the same content: %v", err)
					}
					continue
				}
				is("open", err)
			}
		})
	}
}

func putObject(t *testing.T, b objstore.Bucket, key string, data []byte) {
	t.Helper()
	if _, err := b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// without is a bucket that gives no versions.
type without struct{ objstore.Bucket }

func (w without) Stat(ctx context.Context, key string) (objstore.Info, error) {
	info, err := w.Bucket.Stat(ctx, key)
	info.Version = ""
	return info, err
}

func TestOpenBucketRefuses(t *testing.T) {
	t.Parallel()
	good := fileBytes(t, bf16("a.weight", 2, 4))
	whole := objstore.NewMem()
	putObject(t, whole, WeightsName, good)
	put := func(objects map[string][]byte) objstore.Bucket {
		b := objstore.NewMem()
		for key, data := range objects {
			putObject(t, b, key, data)
		}
		return b
	}
	for _, c := range []struct {
		name   string
		bucket objstore.Bucket
		o      OpenOptions
		want   error
		says   string
	}{
		{"nothing there", objstore.NewMem(), OpenOptions{Location: "store:m"}, ErrMissing, "store:m"},
		{"only below", put(map[string][]byte{"x/" + WeightsName: good}), OpenOptions{}, ErrMissing, WeightsName},
		{"truncated", put(map[string][]byte{WeightsName: good[:len(good)-1]}), OpenOptions{Location: "store:m"}, ErrMalformed, "store:m/" + WeightsName},
		{"no header", put(map[string][]byte{WeightsName: {1, 2, 3}}), OpenOptions{}, ErrMalformed, WeightsName},
		{"hostile header length", put(map[string][]byte{WeightsName: bytes.Repeat([]byte{255}, 100)}), OpenOptions{}, ErrMalformed, "limit"},
		{"no such file", whole, OpenOptions{File: "other.safetensors"}, ErrMissing, "other.safetensors"},
		{"no versions", without{whole}, OpenOptions{}, ErrUnsupported, "upload"},
		{"missing shard", put(map[string][]byte{IndexName: []byte(`{"weight_map":{"a.weight":"1.safetensors"}}`)}), OpenOptions{}, ErrMissing, "1.safetensors"},
	} {
		if _, err := OpenBucket(t.Context(), c.bucket, c.o); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
	file := File{Name: WeightsName, Size: int64(len(good)), HeaderDigest: strings.Repeat("0", 64), Identity: Identity{Kind: IdentityLocal, Value: strings.Repeat("0", 64)}}
	if _, err := OpenBucketSource(t.Context(), whole, "", []File{file}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("local identity: error %v", err)
	}
	file.Name = "../" + WeightsName
	if _, err := OpenBucketSource(t.Context(), whole, "", []File{file}); !errors.Is(err, ErrMalformed) {
		t.Errorf("name that leads out: error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenBucket(ctx, whole, OpenOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
}

// counting counts the reads of a bucket.
type counting struct {
	objstore.Bucket
	gets atomic.Int64
}

func (c *counting) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	return objstore.GetIf(ctx, c.Bucket, key, version, off, n)
}

// A header takes one read, or two; the rows of a tensor take few, however small the panels are.
func TestBucketReadsAreLarge(t *testing.T) {
	t.Parallel()
	many := make([]testTensor, 4000) // a header of more than firstRead
	for i := range many {
		many[i] = bf16("model.layers.0.mlp.experts."+strings.Repeat("x", 20)+hex.EncodeToString([]byte{byte(i >> 8), byte(i)})+".weight", 1, 4)
	}
	for _, c := range []struct {
		name    string
		tensors []testTensor
		headers int64
		reads   int64
	}{
		{"short header", []testTensor{bf16("a.weight", 1000, 200)}, 1, 1},
		{"long header", many, 2, 1},
	} {
		b := &counting{Bucket: objstore.NewMem()}
		putObject(t, b, WeightsName, fileBytes(t, c.tensors...))
		ck, err := OpenBucket(t.Context(), b, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := b.gets.Swap(0); n != c.headers {
			t.Errorf("%s: %d reads of the header", c.name, n)
		}
		for _, x := range ck.Manifest.Tensors {
			for off := int64(0); off < x.Length; off += 400 {
				if err := ck.ReadAt(t.Context(), 0, make([]byte, min(400, x.Length-off)), x.Offset+off); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := ck.Close(); err != nil {
			t.Error(err)
		}
		if n := b.gets.Load(); n != c.reads {
			t.Errorf("%s: %d reads", c.name, n)
		}
	}
}
