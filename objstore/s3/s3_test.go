package s3_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/objstoretest"
	"github.com/shardpress/shardpress/objstore/s3"
)

const mib = 1 << 20

func TestBucket(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return server.Open(t) })
}

// The least part size, and one buffer: everything that is not small goes in parts.
func TestBucketInParts(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	o := server.Options()
	o.PartSize, o.UploadMemory, o.CheckConflicts = 5*mib, 1, true
	b := open(t, o)
	for _, size := range []int{5*mib - 1, 5 * mib, 5*mib + 1, 10 * mib, 12*mib + 345} {
		data := noise(uint64(size), size)
		for _, known := range []int64{-1, int64(size)} {
			info, err := b.Put(t.Context(), "a/b", bytes.NewReader(data), known, objstore.PutOptions{})
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			same(t, b, "a/b", data)
			if stat, err := b.Stat(t.Context(), "a/b"); err != nil || stat.Version != info.Version || stat.Size != int64(size) || info.Size != int64(size) {
				t.Errorf("%d bytes: Put told %+v, Stat %+v, %v", size, info, stat, err)
			}
		}
		// And one byte at a time at the seams.
		r := io.MultiReader(bytes.NewReader(data[:size-2]), iotestOneByte{bytes.NewReader(data[size-2:])})
		if _, err := b.Put(t.Context(), "a/c", r, -1, objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		same(t, b, "a/c", data)
	}
	if n := b.Extra(); n != 0 {
		t.Errorf("%d buffers were not given back", n)
	}
	noUploads(t, b)
}

type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// A store that the environment names, with its credentials: any S3.
func TestGiven(t *testing.T) {
	t.Parallel()
	url := os.Getenv("SHARDPRESS_TEST_S3")
	if url == "" {
		t.Skip("SHARDPRESS_TEST_S3 names no store")
	}
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket {
		b := open(t, s3.Options{URL: strings.TrimSuffix(url, "/") + "/conformance-" + rand.Text(), CheckConflicts: true})
		ctx := context.WithoutCancel(t.Context())
		t.Cleanup(func() {
			for info, err := range b.List(ctx, "") {
				if err != nil {
					t.Error(err)
					return
				}
				if err := b.Delete(ctx, info.Key); err != nil {
					t.Error(err)
				}
			}
		})
		return b
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	o := server.Options()
	o.URL = "s3://not-there/x"
	_, err := s3.Open(t.Context(), o)
	if !errors.Is(err, objstore.ErrRoot) || !strings.Contains(err.Error(), "doctor --create") {
		t.Errorf("no bucket: %v", err)
	}
	for range 2 { // twice is no error
		if err := s3.CreateBucket(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, o)
	mustPut(t, b, "a", []byte("x"))
	if got, want := b.String(), "s3://not-there/x/ at "+server.Endpoint(); got != want {
		t.Errorf("String is %q, want %q", got, want)
	}
	if notes := b.Notes(); len(notes) > 0 {
		t.Errorf("loopback without TLS: %q", notes)
	}

	o.Retries = -1
	o.Endpoint = "https://" + server.Addr()
	if _, err := s3.Open(t.Context(), o); !errors.Is(err, objstore.ErrRoot) || !strings.Contains(err.Error(), "http or https") {
		t.Errorf("TLS to a server without: %v", err)
	}
	o.Endpoint = server.Endpoint()
	wrong := *o.Credentials
	wrong.SecretAccessKey = "wrong-secret"
	o.Credentials = &wrong
	if _, err := s3.Open(t.Context(), o); !errors.Is(err, objstore.ErrRoot) || !strings.Contains(err.Error(), "credentials are not accepted") || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("wrong secret: %v", err)
	}
	wrong.AccessKeyID = "WRONGKEY"
	if _, err := s3.Open(t.Context(), o); !errors.Is(err, objstore.ErrRoot) || !strings.Contains(err.Error(), "credentials are not accepted") || strings.Contains(err.Error(), "WRONGKEY") {
		t.Errorf("wrong key: %v", err)
	}
	if err := s3.CreateBucket(t.Context(), o); err == nil {
		t.Error("bucket created with the wrong key")
	}
}

// The options that make no sense, and the notes.
func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []s3.Options{
		{URL: "s3://abc", PartSize: 1 << 20},
		{URL: "s3://abc", PartSize: 6 << 30},
		{URL: "s3://abc", UploadThreads: -1},
		{URL: "s3://abc", MaxConcurrency: -1},
		{URL: "s3://abc", UploadMemory: -1},
		{URL: "s3://abc", CAFile: "does/not/exist"},
		{URL: "s3://abc", Endpoint: "example.org"},
		{URL: "dir"},
	} {
		if _, err := s3.Open(t.Context(), o); err == nil {
			t.Errorf("%+v: opened", o)
		}
	}
}

func TestCredentialsFromTheEnvironment(t *testing.T) {
	server := s3test.Start(t)
	for _, kv := range server.Env() {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", server.Endpoint())
	b := open(t, s3.Options{URL: server.URL()})
	mustPut(t, b, "a", []byte("x"))

	// A file of profiles.
	c := server.Credentials()
	file := t.TempDir() + "/credentials"
	text := "[other]\naws_access_key_id = " + c.AccessKeyID + "\naws_secret_access_key = " + c.SecretAccessKey + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_PROFILE", "other")
	open(t, s3.Options{URL: server.URL()})

	// Nothing, and a file that does not parse, which must not be quoted.
	t.Setenv("AWS_PROFILE", "nobody")
	for _, text := range []string{text, "[nobody\naws_secret_access_key " + c.SecretAccessKey, "[nobody]\n" + c.SecretAccessKey + "\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s3.Open(t.Context(), s3.Options{URL: server.URL()})
		if !errors.Is(err, objstore.ErrRoot) || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") || strings.Contains(err.Error(), c.SecretAccessKey) {
			t.Errorf("no credentials: %v", err)
		}
	}
}

func TestNotes(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	o := server.Options()
	for endpoint, n := range map[string]int{"http://s3.example.org:9000": 1, "https://s3.example.org": 0, "http://localhost:1": 0, "http://[::1]:2": 0, "http://10.0.0.1": 1} {
		o.Endpoint = endpoint
		notes, err := s3.NotesOf(o)
		if err != nil || len(notes) != n {
			t.Errorf("%s: %q, %v, want %d notes", endpoint, notes, err, n)
		}
	}
}

func TestPutIfAbsentTooLarge(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	o := server.Options()
	o.PartSize = 5 * mib
	b := open(t, o)
	for _, size := range []int64{-1, 5*mib + 1} {
		_, err := b.Put(t.Context(), "a", bytes.NewReader(make([]byte, 5*mib+1)), size, objstore.PutOptions{IfAbsent: true})
		if !errors.Is(err, objstore.ErrTooLarge) {
			t.Errorf("size %d: %v, want ErrTooLarge", size, err)
		}
	}
	// The greatest that fits, of unknown size.
	data := noise(1, 5*mib)
	if _, err := b.Put(t.Context(), "a", bytes.NewReader(data), -1, objstore.PutOptions{IfAbsent: true}); err != nil {
		t.Error(err)
	}
	same(t, b, "a", data)
	noUploads(t, b)
}

func TestCopy(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	b, other := server.Open(t), server.Open(t)
	b.SetPause(time.Millisecond)
	data := noise(1, 13*mib)
	src := mustPut(t, other, "src", data)
	// In one request, and in parts.
	for _, most := range []int64{1 << 40, 5 * mib} {
		b.SetMaxCopy(most)
		info, err := b.Copy(t.Context(), "d/dst", objstore.Prefix(other, ""), "src")
		if err != nil {
			t.Fatal(err)
		}
		same(t, b, "d/dst", data)
		stat, err := b.Stat(t.Context(), "d/dst")
		if err != nil || stat.Version != info.Version || info.Size != src.Size || info.ModTime.IsZero() {
			t.Errorf("Copy told %+v, Stat %+v, %v", info, stat, err)
		}
		if _, err := b.Copy(t.Context(), "x", other, "absent"); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("of an absent object: %v", err)
		}
		if _, err := b.Copy(t.Context(), "d/dst/below", other, "src"); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("below an object: %v", err)
		}
		if _, err := b.Copy(t.Context(), "d", other, "src"); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("above an object: %v", err)
		}
	}
	noUploads(t, b)
	// Another bucket of the server, another server, another kind.
	o := server.Options()
	o.URL = "s3://second-bucket/y"
	if err := s3.CreateBucket(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	second := open(t, o)
	if _, err := second.Copy(t.Context(), "dst", other, "src"); err != nil {
		t.Error(err)
	}
	same(t, second, "dst", data)
	elsewhere := s3test.Start(t).Open(t)
	if _, err := elsewhere.Copy(t.Context(), "dst", other, "src"); !errors.Is(err, objstore.ErrCannotCopy) {
		t.Errorf("between servers: %v", err)
	}
	if _, err := objstore.Copy(t.Context(), elsewhere, "dst", other, "src"); err != nil {
		t.Error(err)
	}
	same(t, elsewhere, "dst", data)
	if _, err := b.Copy(t.Context(), "dst", objstore.NewMem(), "src"); !errors.Is(err, objstore.ErrCannotCopy) {
		t.Errorf("from memory: %v", err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	b, empty := server.Open(t), server.Open(t)
	// More than one page.
	const n = 1100
	var g errgroup.Group
	g.SetLimit(32)
	for i := range n {
		g.Go(func() error {
			_, err := b.Put(t.Context(), fmt.Sprintf("d%d/%d", i%7, i), strings.NewReader("x"), 1, objstore.PutOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	got := keys(t, b)
	if len(got) != n || !slices.IsSorted(got) {
		t.Errorf("%d keys, sorted: %v", len(got), slices.IsSorted(got))
	}
	if got := keys(t, empty); len(got) != 0 {
		t.Errorf("the neighbour's store lists %q", got)
	}
}

func TestBucketGone(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	o := server.Options()
	o.URL = "s3://goes-away/x"
	if err := s3.CreateBucket(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b := open(t, o)
	if err := os.RemoveAll(strings.TrimSuffix(server.Dir(), "test") + "goes-away"); err != nil {
		t.Fatal(err)
	}
	b.ForgetBucket()
	_, gerr := objstore.ReadAll(t.Context(), b, "a", 10)
	_, serr := b.Stat(t.Context(), "a")
	_, perr := b.Put(t.Context(), "a", strings.NewReader("x"), 1, objstore.PutOptions{})
	derr := b.Delete(t.Context(), "a")
	var lerr error
	for _, err := range b.List(t.Context(), "") {
		lerr = err
	}
	for op, err := range map[string]error{"Get": gerr, "Stat": serr, "Put": perr, "Delete": derr, "List": lerr} {
		if !errors.Is(err, objstore.ErrRoot) || errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("%s in a bucket that is gone: %v, want ErrRoot", op, err)
		}
	}
}

func open(t *testing.T, o s3.Options) *s3.Bucket {
	t.Helper()
	b, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// noise gives n bytes that depend on seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	p := make([]byte, n)
	mathrand.NewChaCha8(key).Read(p)
	return p
}

func mustPut(t *testing.T, b objstore.Bucket, key string, data []byte) objstore.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)), objstore.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// same fails the test if the object is not data.
func same(t *testing.T, b objstore.Bucket, key string, data []byte) {
	t.Helper()
	got, err := objstore.ReadAll(t.Context(), b, key, int64(len(data))+1)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%s: %d bytes, not the %d stored, %v", key, len(got), len(data), err)
	}
}

func keys(t *testing.T, b objstore.Bucket) []string {
	t.Helper()
	var all []string
	for info, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Key)
	}
	return all
}

// noUploads fails the test if there are multipart uploads under way.
func noUploads(t *testing.T, b *s3.Bucket) {
	t.Helper()
	if n, err := b.SweepUploads(t.Context(), -time.Hour); err != nil || n != 0 {
		t.Errorf("%d uploads were left, %v", n, err)
	}
}
