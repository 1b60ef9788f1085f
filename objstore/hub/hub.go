// Package hub reads repositories of the Hugging Face hub, or of a mirror that speaks its HTTP API, as read-only buckets.
//
// Open resolves the revision to a commit once and lists its files; what it gives never changes after that, whatever happens to the branch. Files in
// large-file storage are named there by the SHA-256 of their content, which Stat tells without reading them.
//
//	GET /api/models/{id}/revision/{revision}               {"sha": commit}
//	GET /api/models/{id}/tree/{commit}?recursive=true      [{"type","path","size","oid","lfs":{"oid","size"}}], next page in Link
//	GET /{id}/resolve/{commit}/{path}                      the file, or a redirect to where it lies; Range is honoured
//
// The access token goes to the endpoint and nowhere else: redirects lead to hosts that get their permission in the address. Such an address is as
// good as a token while it is valid, so none is ever part of an error.
package hub

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shardpress/shardpress/objstore"
)

// DefaultEndpoint is where the hub is.
const DefaultEndpoint = "https://huggingface.co"

// ErrRefused says that the hub gives a repository only to those whom its owner lets have it.
var ErrRefused = errors.New("the hub refuses access")

// Options say how to reach the hub. The zero value is the public one, without a token.
type Options struct {
	// Endpoint is the address of the hub or of a mirror, DefaultEndpoint if empty.
	Endpoint string
	// Token is an access token, empty for none.
	Token string
	// Client makes the requests; its handling of redirects is not used.
	// Its transport must not undo encodings; nil means NewClient.
	Client *http.Client
}

// Bucket is the files of a repository at a commit. Its methods may be called from many goroutines.
type Bucket struct {
	ref   Ref // pinned
	link  *link
	files []objstore.Info // by key

	mu    sync.Mutex
	where map[string]*url.URL // where files were found to lie, by key
}

var (
	_ objstore.Bucket      = (*Bucket)(nil)
	_ objstore.Conditional = (*Bucket)(nil)
)

// Open finds the commit that a reference means and lists its files. Files whose paths are not valid keys, hidden ones among them, are left out.
func Open(ctx context.Context, ref Ref, o Options) (*Bucket, error) {
	return open(ctx, ref, o, sleep)
}

func open(ctx context.Context, ref Ref, o Options, wait func(context.Context, time.Duration) error) (*Bucket, error) {
	if _, err := Parse(ref.String()); err != nil {
		return nil, err
	}
	l, err := newLink(o, wait)
	if err != nil {
		return nil, err
	}
	b := &Bucket{ref: ref, link: l, where: map[string]*url.URL{}}
	if !ref.Pinned() {
		if b.ref.Revision, err = l.commit(ctx, ref); err != nil {
			return nil, fmt.Errorf("open %s: %w", ref, err)
		}
	}
	if b.files, err = l.tree(ctx, b.ref); err != nil {
		return nil, fmt.Errorf("open %s: %w", ref, err)
	}
	return b, nil
}

// Ref is the reference, with the commit that was found.
func (b *Bucket) Ref() Ref { return b.ref }

// newLink checks the options.
func newLink(o Options, wait func(context.Context, time.Duration) error) (*link, error) {
	u, err := url.Parse(cmp.Or(o.Endpoint, DefaultEndpoint))
	// What is wrong with an address is not said with the address, which may hold a password.
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("endpoint of the hub: %w: want https://host without user, password or query", ErrRef)
	}
	if o.Token != "" && u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("endpoint of the hub: %w: a token would cross the network in the clear to %s: use https, or unset HF_TOKEN", ErrRef, u.Host)
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("token for the hub: %w: it holds spaces or characters that no token has", ErrRef)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	if o.Client == nil {
		o.Client = NewClient()
	}
	client := *o.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &link{endpoint: u, token: o.Token, client: &client, wait: wait}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// NewClient makes a client that gives up on a server which does not answer, and keeps the connections that blocks are read by. Give it to all
// that is opened, so that they are shared.
func NewClient() *http.Client {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return &http.Client{}
	}
	t = t.Clone()
	t.ResponseHeaderTimeout = answerTime
	t.MaxIdleConnsPerHost = 16
	return &http.Client{Transport: t}
}

// find looks up a file.
func (b *Bucket) find(op, key string) (objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return objstore.Info{}, fmt.Errorf("%s: %w", op, err)
	}
	i, found := slices.BinarySearchFunc(b.files, key, func(f objstore.Info, key string) int { return strings.Compare(f.Key, key) })
	if !found {
		return objstore.Info{}, fmt.Errorf("%s %s of %s: %w", op, key, b.ref, objstore.ErrNotExist)
	}
	return b.files[i], nil
}

// Stat implements objstore.Bucket, from the listing. SHA256 is set for files in large-file storage.
func (b *Bucket) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := ctx.Err(); err != nil {
		return objstore.Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return b.find("stat", key)
}

// List implements objstore.Bucket, from the listing.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for _, f := range b.files {
			if err := ctx.Err(); err != nil {
				yield(objstore.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if strings.HasPrefix(f.Key, prefix) && !yield(f, nil) {
				return
			}
		}
	}
}

// Get implements objstore.Bucket.
func (b *Bucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	f, err := b.find("get", key)
	if err != nil {
		return nil, err
	}
	if off < 0 || off > f.Size {
		return nil, fmt.Errorf("get %s of %s: %w: offset %d of %d bytes", key, b.ref, objstore.ErrRange, off, f.Size)
	}
	if n < 0 || n > f.Size-off {
		n = f.Size - off
	}
	r := newReader(ctx, b, f, off, n)
	if err := r.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("get %s of %s: %w", key, b.ref, err), r.Close())
	}
	return r, nil
}

// GetIf implements objstore.Conditional: a file at a commit has one version.
func (b *Bucket) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	f, err := b.find("get", key)
	if err != nil {
		return nil, err
	}
	if f.Version != version || version == "" {
		return nil, fmt.Errorf("get %s of %s: %w: version %q was asked for, %q is there", key, b.ref, objstore.ErrChanged, clip(version), f.Version)
	}
	return b.Get(ctx, key, off, n)
}

// Put implements objstore.Bucket by refusing.
func (b *Bucket) Put(_ context.Context, key string, _ io.Reader, _ int64, _ objstore.PutOptions) (objstore.Info, error) {
	return objstore.Info{}, fmt.Errorf("put %s: %w: it is a repository of the hub", key, objstore.ErrReadOnly)
}

// Delete implements objstore.Bucket by refusing.
func (b *Bucket) Delete(_ context.Context, key string) error {
	return fmt.Errorf("delete %s: %w: it is a repository of the hub", key, objstore.ErrReadOnly)
}

// sum reads a hex SHA-256.
func sum(s string) (digest [32]byte, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(digest) {
		return digest, false
	}
	copy(digest[:], b)
	return digest, true
}
