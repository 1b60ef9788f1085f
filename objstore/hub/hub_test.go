package hub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/hub/hubtest"
)

const token = "hf_abcDEF0123456789"

// files is what the repository of the tests holds.
func files() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	large := make([]byte, 300_000)
	for i := range large {
		large[i] = byte(r.Uint32())
	}
	return map[string][]byte{
		"config.json": []byte(`{"model_type":"llama"}`), "model.safetensors": large, "sub/other file+&.safetensors": large[:1000],
		"empty.txt": {}, "tokenizer.json": large[:50_000], ".gitattributes": []byte("x"), "README.md": []byte("hello"),
	}
}

// pauses notes the waits that a test does not wait.
type pauses struct {
	mu   sync.Mutex
	list []time.Duration
}

func (p *pauses) wait(ctx context.Context, d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, d)
	return ctx.Err()
}

func (p *pauses) take() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.list
	p.list = nil
	return list
}

func start(t *testing.T, h *hubtest.Hub, rev, token string) (*Bucket, *pauses, error) {
	t.Helper()
	p := &pauses{}
	b, err := open(t.Context(), Ref{hubtest.ID, rev}, Options{Endpoint: h.Endpoint, Token: token}, p.wait)
	return b, p, err
}

func mustStart(t *testing.T, h *hubtest.Hub) (*Bucket, *pauses) {
	t.Helper()
	b, p, err := start(t, h, "main", "")
	if err != nil {
		t.Fatal(err)
	}
	h.Asked()
	return b, p
}

func get(t *testing.T, b objstore.Bucket, key string, off, n int64) ([]byte, error) {
	t.Helper()
	r, err := b.Get(t.Context(), key, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestParse(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Ref{
		"hf://some-org/Tiny_Model-1.5": {hubtest.ID, "main"},
		"hf://a/b@v1.0":                {"a/b", "v1.0"},
		"hf://a/b@refs/pr/1":           {"a/b", "refs/pr/1"},
		"hf://meta-llama/Llama-3.2-1B@0123456789012345678901234567890123456789":       {"meta-llama/Llama-3.2-1B", strings.Repeat("0123456789", 4)},
		"hf://" + strings.Repeat("a", 96) + "/" + strings.Repeat("b", 96) + "@branch": {strings.Repeat("a", 96) + "/" + strings.Repeat("b", 96), "branch"},
	} {
		r, err := Parse(s)
		if err != nil || r != want {
			t.Errorf("%s: %v, %v", s, r, err)
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("%s: %v, %v", r, again, err)
		}
	}
	for _, s := range []string{
		"", "hf://", "hf://a", "hf:///b", "hf://a/", "hf://a/b/c", "hf://a/..", "hf://../b", "hf://a/b@", "hf://a/b@..", "hf://a/b@x/../y", "hf://a/b@/x", "hf://a/b@x@y",
		"hf://a b/c", "hf://a/b?x", "hf://a/b#x", "hf://a/b%2e", "hf://-a/b", "hf://a/b.", "hf://a--b/c", "hf://user:pass@host/b", "https://huggingface.co/a/b", "hf://a/b@x\n",
		"hf://" + strings.Repeat("a", 97) + "/b", "hf://a/b@" + strings.Repeat("x", 200), "hf://ä/b",
	} {
		if r, err := Parse(s); !errors.Is(err, ErrRef) {
			t.Errorf("%q: %v, %v", s, r, err)
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	want := files()
	h := hubtest.New(t, want)
	for _, page := range []int{0, 1, 2, 3} {
		h.Page, h.Foreign = page, page == 2
		b, _ := mustStart(t, h)
		var keys []string
		for info, err := range b.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
			again, err := b.Stat(t.Context(), info.Key)
			if err != nil || again != info || info.Size != int64(len(want[info.Key])) || info.Version == "" {
				t.Errorf("%s: %+v, %+v, %v", info.Key, info, again, err)
			}
			digest := [32]byte{}
			if hubtest.IsLarge(info.Key) {
				digest = sha256.Sum256(want[info.Key])
			}
			if info.SHA256 != digest {
				t.Errorf("%s: SHA-256 %x", info.Key, info.SHA256)
			}
		}
		if !slices.Equal(keys, []string{"README.md", "config.json", "empty.txt", "model.safetensors", "sub/other file+&.safetensors", "tokenizer.json"}) {
			t.Errorf("keys %q", keys)
		}
	}
	b, _ := mustStart(t, h)
	for key, data := range want {
		if strings.HasPrefix(key, ".") {
			continue
		}
		size := int64(len(data))
		for _, r := range [][2]int64{{0, -1}, {0, size}, {0, 10}, {size / 3, size / 2}, {size / 2, -1}, {size, 5}, {size, -1}, {0, 0}, {size - min(size, 3), 1 << 40}} {
			got, err := get(t, b, key, r[0], r[1])
			end := size
			if r[1] >= 0 {
				end = min(size, r[0]+r[1])
			}
			if err != nil || !bytes.Equal(got, data[r[0]:end]) {
				t.Errorf("%s, %d bytes from %d: %d bytes, %v", key, r[1], r[0], len(got), err)
			}
		}
		for _, off := range []int64{-1, size + 1} {
			if _, err := get(t, b, key, off, 1); !errors.Is(err, objstore.ErrRange) {
				t.Errorf("%s from %d: %v", key, off, err)
			}
		}
	}
	info, err := b.Stat(t.Context(), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	r, err := objstore.GetIf(t.Context(), b, info.Key, info.Version, 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want[info.Key][5:15]) {
		t.Errorf("%x, %v", got, err)
	}
	for _, version := range []string{"", "other"} {
		if _, err := b.GetIf(t.Context(), info.Key, version, 0, 1); !errors.Is(err, objstore.ErrChanged) {
			t.Errorf("version %q: %v", version, err)
		}
	}
	for _, key := range []string{"nothing", "sub", "../x", ".gitattributes"} {
		_, err1 := get(t, b, key, 0, 1)
		_, err2 := b.Stat(t.Context(), key)
		for _, err := range []error{err1, err2} {
			if !errors.Is(err, objstore.ErrNotExist) && !errors.Is(err, objstore.ErrKey) {
				t.Errorf("%s: %v", key, err)
			}
		}
	}
	if _, err := b.Put(t.Context(), "x", strings.NewReader(""), 0, objstore.PutOptions{}); !errors.Is(err, objstore.ErrReadOnly) {
		t.Errorf("put: %v", err)
	}
	if err := b.Delete(t.Context(), "config.json"); !errors.Is(err, objstore.ErrReadOnly) {
		t.Errorf("delete: %v", err)
	}
}

// What was opened stays what it is when the branch moves on, and can be opened again by its commit.
func TestRevisionMoves(t *testing.T) {
	t.Parallel()
	old := files()
	h := hubtest.New(t, old)
	b, _ := mustStart(t, h)
	h.Commit("main", map[string][]byte{"model.safetensors": []byte("other")})
	got, err := get(t, b, "model.safetensors", 0, -1)
	if err != nil || !bytes.Equal(got, old["model.safetensors"]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if !b.Ref().Pinned() || b.Ref().ID != hubtest.ID {
		t.Errorf("reference %s", b.Ref())
	}
	again, _, err := start(t, h, b.Ref().Revision, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, again, "model.safetensors", 0, -1); err != nil || !bytes.Equal(got, old["model.safetensors"]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	now, _ := mustStart(t, h)
	if got, err := get(t, now, "model.safetensors", 0, -1); err != nil || string(got) != "other" {
		t.Errorf("%q, %v", got, err)
	}
}

// The token goes to the endpoint only, and stands in no error.
func TestToken(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, files())
	h.Token = token
	b, _, err := start(t, h, "main", token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, b, "model.safetensors", 0, -1); err != nil {
		t.Fatal(err)
	}
	large := 0
	for _, r := range h.Asked() {
		sent := r.Header.Get("Authorization") != ""
		if there := strings.HasSuffix(h.Endpoint, r.Host); sent != there {
			t.Errorf("%s %s: token sent: %v", r.Host, r.URL.Path, sent)
		} else if !there {
			large++
		}
	}
	if large == 0 {
		t.Error("no file was redirected")
	}
	for _, bad := range []string{"", token + "x"} {
		_, _, err := start(t, h, "main", bad)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "HF_TOKEN") && bad == "" || !strings.Contains(err.Error(), "licence") || strings.Contains(err.Error(), token) {
			t.Errorf("token %q: %v", bad, err)
		}
	}
	for _, o := range []Options{
		{Endpoint: "http://hub.example", Token: token}, {Endpoint: "ftp://x"}, {Endpoint: "https://user:" + token + "@host"}, {Endpoint: "https://host/?token=" + token},
		{Endpoint: "%zz" + token}, {Endpoint: h.Endpoint, Token: token + "\r\nX: y"}, {Endpoint: "https://"},
	} {
		_, err := Open(t.Context(), Ref{hubtest.ID, "main"}, o)
		if !errors.Is(err, ErrRef) || strings.Contains(err.Error(), token) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	// A dead server, after a redirect: the address there is as good as a token.
	h.Fail(hubtest.Fault{Path: "/sub/", Times: 100, Status: http.StatusBadGateway})
	h.Fail(hubtest.Fault{Path: "/model.safetensors", Times: 100, Cut: 1})
	for _, key := range []string{"sub/other file+&.safetensors", "model.safetensors"} {
		_, err := get(t, b, key, 0, -1)
		for _, secret := range []string{"secret", "signature", token} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: error shows %s: %v", key, secret, err)
			}
		}
	}
}

// unplugged is a network on which the host of large files cannot be reached.
type unplugged struct{}

func (unplugged) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.RawQuery != "" && strings.Contains(r.URL.RawQuery, "signature") {
		return nil, errors.New("no route to host")
	}
	return http.DefaultTransport.RoundTrip(r)
}

// A signed address is as good as a token, and stands in no error either.
func TestSignedAddressesAreNotShown(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, files())
	p := &pauses{}
	b, err := open(t.Context(), Ref{hubtest.ID, "main"}, Options{Endpoint: h.Endpoint, Client: &http.Client{Transport: unplugged{}}}, p.wait)
	if err != nil {
		t.Fatal(err)
	}
	_, err = get(t, b, "model.safetensors", 0, 10)
	if err == nil || !strings.Contains(err.Error(), "no route to host") || strings.Contains(err.Error(), "signature") {
		t.Errorf("error %v", err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, files())
	if _, _, err := start(t, h, "nothing", ""); !errors.Is(err, objstore.ErrNotExist) || !strings.Contains(err.Error(), "no revision nothing") {
		t.Errorf("revision: %v", err)
	}
	p := &pauses{}
	if _, err := open(t.Context(), Ref{"some/other", "main"}, Options{Endpoint: h.Endpoint}, p.wait); !errors.Is(err, objstore.ErrNotExist) || !strings.Contains(err.Error(), "some/other") {
		t.Errorf("repository: %v", err)
	}
	if _, err := open(t.Context(), Ref{"../x", "main"}, Options{Endpoint: h.Endpoint}, p.wait); !errors.Is(err, ErrRef) {
		t.Errorf("reference: %v", err)
	}
	if n := len(p.take()); n != 0 {
		t.Errorf("%d waits for what will not pass", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(ctx, Ref{hubtest.ID, "main"}, Options{Endpoint: h.Endpoint}, p.wait); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Trouble that passes costs time only, as much as the hub asks for.
func TestPassingTrouble(t *testing.T) {
	t.Parallel()
	want := files()
	h := hubtest.New(t, want)
	h.Fail(
		hubtest.Fault{Path: "/revision/", Times: 2, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7"}}},
		hubtest.Fault{Path: "/tree/", Times: 1, Status: http.StatusServiceUnavailable},
		hubtest.Fault{Path: "/tree/", Times: 1, Cut: 20},
	)
	b, p, err := start(t, h, "main", "")
	if err != nil {
		t.Fatal(err)
	}
	list := p.take()
	if len(list) != 4 || list[0] < 7*time.Second || list[0] > 9*time.Second || list[1] < 7*time.Second || list[2] > time.Second {
		t.Errorf("waits %v", list)
	}
	for _, c := range []struct {
		name  string
		fault hubtest.Fault
		waits bool
	}{
		{"the hub is busy", hubtest.Fault{Path: "/resolve/", Times: 3, Status: http.StatusTooManyRequests}, true},
		{"the store is busy", hubtest.Fault{Path: "/model.safetensors", Times: 3, Status: http.StatusInternalServerError}, true},
		{"a body is cut once", hubtest.Fault{Path: "/model.safetensors", Times: 1, Cut: 1000}, false},
		{"bodies are cut again and again", hubtest.Fault{Path: "/model.safetensors", Times: 50, Cut: 5000}, false},
		{"a small file is cut", hubtest.Fault{Path: "/tokenizer.json", Times: 2, Cut: 300}, false},
	} {
		h.Fail(c.fault)
		for _, key := range []string{"model.safetensors", "tokenizer.json"} {
			if got, err := get(t, b, key, 100, -1); err != nil || !bytes.Equal(got, want[key][100:]) {
				t.Errorf("%s: %s: %d bytes, %v", c.name, key, len(got), err)
			}
		}
		if waited := len(p.take()) > 0; waited != c.waits {
			t.Errorf("%s: waited: %v", c.name, waited)
		}
	}
	h.Fail(hubtest.Fault{Path: "/model.safetensors", Times: 1000, Status: http.StatusBadGateway})
	if _, err := get(t, b, "model.safetensors", 0, 10); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("tried %d times", maxTries)) {
		t.Errorf("trouble that does not pass: %v", err)
	}
	if list := p.take(); len(list) != maxTries-1 || list[len(list)-1] < longestPause {
		t.Errorf("waits %v", list)
	}
}

// An address is asked for once and used until it is not valid any more.
func TestAddressesAreKept(t *testing.T) {
	t.Parallel()
	want := files()
	h := hubtest.New(t, want)
	b, _ := mustStart(t, h)
	read := func() (resolved int) {
		t.Helper()
		for off := int64(0); off < 100; off += 10 {
			if got, err := get(t, b, "model.safetensors", off, 10); err != nil || !bytes.Equal(got, want["model.safetensors"][off:off+10]) {
				t.Errorf("%x, %v", got, err)
			}
		}
		for _, r := range h.Asked() {
			if strings.Contains(r.URL.Path, "/resolve/") {
				resolved++
			}
		}
		return resolved
	}
	if n := read(); n != 1 {
		t.Errorf("the hub was asked %d times where the file is", n)
	}
	h.Expire()
	if n := read(); n != 1 {
		t.Errorf("after the address expired, the hub was asked %d times where the file is", n)
	}
}

// answers is a hub that answers every request for a file in one way.
type answers struct{ status, header, value, body string }

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{}, ContentLength: -1, Request: r}
	var text string
	switch {
	case strings.Contains(r.URL.Path, "/revision/"):
		text = `{"sha":"` + strings.Repeat("a", 40) + `"}`
	case strings.Contains(r.URL.Path, "/tree/"):
		text = `[{"type":"file","path":"x","size":10,"oid":"1"},{"type":"file","path":"y","size":100,"oid":"p","lfs":{"oid":"` + strings.Repeat("1", 64) + `","size":10}}]`
	default:
		if a.status == "206" {
			resp.StatusCode = http.StatusPartialContent
		}
		if a.status == "302" {
			resp.StatusCode = http.StatusFound
		}
		if a.header != "" {
			resp.Header.Set(a.header, a.value)
		}
		text = a.body
	}
	resp.Body = io.NopCloser(strings.NewReader(text))
	return resp, nil
}

// Whatever a server does, the bytes given are those asked for, or there is an error.
func TestAnswersThatAreWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		a    answers
		key  string
		off  int64
		want string // or an error
	}{
		{"a range", answers{"206", "Content-Range", "bytes 3-7/10", "34567"}, "x", 3, "34567"},
		{"a range of unknown size", answers{"206", "Content-Range", "bytes 3-7/*", "34567"}, "x", 3, "34567"},
		{"a shorter range, then nothing", answers{"206", "Content-Range", "bytes 3-4/10", "34"}, "x", 3, ""},
		{"all of it", answers{"200", "", "", "0123456789"}, "x", 3, "34567"},
		{"another range", answers{"206", "Content-Range", "bytes 2-6/10", "23456"}, "x", 3, ""},
		{"a longer range", answers{"206", "Content-Range", "bytes 3-9/10", "3456789"}, "x", 3, ""},
		{"no range", answers{"206", "", "", "34567"}, "x", 3, ""},
		{"another size", answers{"206", "Content-Range", "bytes 3-7/11", "34567"}, "x", 3, ""},
		{"another commit", answers{"200", "X-Repo-Commit", strings.Repeat("b", 40), "0123456789"}, "x", 3, ""},
		{"compressed", answers{"200", "Content-Encoding", "gzip", "0123456789"}, "x", 3, ""},
		{"a redirect to itself", answers{"302", "Location", "/same", ""}, "x", 3, ""},
		{"a redirect to a file", answers{"302", "Location", "file:///etc/passwd", ""}, "x", 3, ""},
		{"a redirect into the clear", answers{"302", "Location", "http://host/x", ""}, "x", 3, ""},
		{"a redirect to nothing", answers{"302", "", "", ""}, "x", 3, ""},
		{"a redirect with a password", answers{"302", "Location", "https://a:b@host/x", ""}, "x", 3, ""},
	} {
		p := &pauses{}
		b, err := open(t.Context(), Ref{hubtest.ID, "main"}, Options{Client: &http.Client{Transport: c.a}}, p.wait)
		if err != nil {
			t.Fatal(err)
		}
		got, err := get(t, b, c.key, c.off, 5)
		if (err == nil) != (c.want != "") || err == nil && string(got) != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	b, err := open(t.Context(), Ref{hubtest.ID, "main"}, Options{Client: &http.Client{Transport: answers{"200", "", "", "0123456789"}}}, (&pauses{}).wait)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, b, "y", 0, -1); !errors.Is(err, objstore.ErrChanged) {
		t.Errorf("bytes of another SHA-256: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", "100000", longestAsked},
		{"Retry-After", "-3", 0},
		{"Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT", 0},
		{"Retry-After", "soon", 0},
		{"RateLimit", `"resolvers";r=0;t=55`, 55 * time.Second},
		{"RateLimit", `"api"; r=0; t=5000`, longestAsked},
		{"RateLimit", `"api";r=0`, 0},
		{"X-Other", "7", 0},
	} {
		h := http.Header{}
		h.Set(c.name, c.value)
		if got := retryAfter(h); got != c.want {
			t.Errorf("%s: %s: %v, want %v", c.name, c.value, got, c.want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		`{"sha":"0123456789012345678901234567890123456789"}`, `[{"type":"file","path":"a","size":3,"oid":"x","lfs":{"oid":"` + strings.Repeat("0", 64) + `","size":4}}]`,
		`[{"type":"file","path":"../a","size":-3}]`, "bytes 0-9/10", "bytes */10", `<https://x/y?cursor=1>; rel="next"`, `<:>; rel="next"`,
	} {
		f.Add(s)
	}
	l, err := newLink(Options{Token: token}, sleep)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := parseCommit([]byte(s)); err == nil && !commit.MatchString(c) {
			t.Errorf("commit %q", c)
		}
		list, err := parseTree([]byte(s))
		for _, i := range list {
			if err == nil && (objstore.CheckKey(i.Key) != nil || i.Size < 0 || i.Version == "") {
				t.Errorf("file %+v", i)
			}
		}
		if first, last, total, ok := contentRange(s); ok && (first < 0 || last < first || total >= 0 && last >= total) {
			t.Errorf("range %q: %d-%d/%d", s, first, last, total)
		}
		at := l.address("/api/models/a/b/tree/main")
		if next, err := l.nextPage(http.Header{"Link": {s}}, at); err == nil && next != nil && (!l.ours(next) || next.Path != at.Path) {
			t.Errorf("next page %v", next)
		}
		if r, err := Parse(s); err == nil && strings.Contains(l.address("/"+r.ID+"/x").Path, "..") {
			t.Errorf("reference %v", r)
		}
	})
}
