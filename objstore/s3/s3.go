// Package s3 keeps an objstore.Bucket in S3, or in any server that speaks its
// protocol and knows conditional writes (If-None-Match on PUT).
//
// What objstore promises rests on this:
//
//   - An object is whole or absent because S3 makes one appear only when its PUT,
//     or the completion of its multipart upload, has succeeded.
//   - PutOptions.IfAbsent is one PUT with If-None-Match: *, and nothing else, since
//     multipart uploads evaluate that header late or not at all. A body that does
//     not fit in one is refused.
//   - A PUT whose answer was lost is sent again, and then finds its own object:
//     it is recognised by a random mark in the object's metadata.
//   - A read whose connection breaks goes on where it was, with If-Match, so that
//     it ends whole or fails, and never gives a short object or two mixed ones.
//
// Uploads are hashed with SHA-256 on the way; ETags are never taken for digests.
// Keys above or below another object's key are refused by gateways in front of
// a file system; S3 itself takes them, unless Options.CheckConflicts asks this
// package to look.
package s3

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/shardpress/shardpress/objstore"
)

// Bucket is the part of an S3 bucket below a prefix. It is an objstore.Bucket.
type Bucket struct {
	core     *minio.Core
	creds    *credentials.Credentials
	secrets  *secrets
	limit    *limiter
	o        Options // with its defaults filled in
	endpoint *url.URL
	bucket   string
	prefix   string        // empty, or with a slash at its end
	buffers  sync.Pool     // *[]byte of PartSize bytes
	extra    chan struct{} // the buffers that uploads have beyond their first
	idle     func()        // closes idle connections
	backoff  time.Duration // before the first repetition
	maxCopy  int64         // what CopyObject copies; more is copied in parts of this size

	seen atomic.Int64 // when the bucket was last known to exist, in nanoseconds since born
	born time.Time
}

var (
	_ objstore.Bucket      = (*Bucket)(nil)
	_ objstore.Copier      = (*Bucket)(nil)
	_ objstore.Conditional = (*Bucket)(nil)
)

// seenFor is how long an answer of the bucket proves that it is there: an object
// that is missing is only missing if its bucket is not.
const seenFor = 10 * time.Second

// Open opens the store at o.URL. ErrRoot says that the bucket is not there, or
// that the credentials are not accepted.
func Open(ctx context.Context, o Options) (*Bucket, error) {
	b, err := newBucket(o)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// A listing, because it needs no right that the store does not need anyway.
	err = b.do(ctx, func(ctx context.Context, _ *exchange) error {
		none := false
		for info := range b.core.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix, Recursive: true, MaxKeys: 1, FetchOwner: &none}) {
			return info.Err
		}
		return ctx.Err() // of which the iterator says nothing
	})
	if err != nil {
		b.idle()
		return nil, fmt.Errorf("open store: %w", b.explain(err, reading))
	}
	b.saw()
	return b, nil
}

// CreateBucket makes the bucket of o.URL if it is not there. One that somebody else
// owns is an error.
func CreateBucket(ctx context.Context, o Options) error {
	b, err := newBucket(o)
	if err != nil {
		return fmt.Errorf("create bucket: %w", err)
	}
	defer b.idle()
	err = b.do(ctx, func(ctx context.Context, _ *exchange) error {
		return b.core.MakeBucket(ctx, b.bucket, minio.MakeBucketOptions{Region: b.o.Region})
	})
	// The owner of a bucket that is there is told so in one of several ways, and
	// somebody who may only use it is told that he may not make one.
	if status(err) != 0 {
		if there, e := Open(ctx, o); e == nil {
			return there.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", b.bucket, b.explain(err, writing))
	}
	return nil
}

func newBucket(o Options) (*Bucket, error) {
	bucket, prefix, err := ParseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if o, err = o.complete(); err != nil {
		return nil, err
	}
	endpoint, err := parseEndpoint(o.Endpoint)
	if err != nil {
		return nil, err
	}
	if prefix != "" {
		prefix += "/"
	}
	base, err := baseTransport(o)
	if err != nil {
		return nil, err
	}
	limit := newLimiter(o.MaxConcurrency)
	held := &secrets{}
	creds := held.chain(o, isAmazon(endpoint))
	core, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds:      creds,
		Secure:     endpoint.Scheme == "https",
		Region:     o.Region,
		Transport:  &recorder{next: o.wrap(base), limit: limit},
		MaxRetries: 1, // we repeat ourselves, knowing more
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %s", endpoint.Redacted(), held.scrub(err.Error()))
	}
	core.SetAppInfo("shardpress", "1")
	return &Bucket{
		idle: base.CloseIdleConnections,
		core: core, creds: creds, secrets: held, limit: limit, o: o, endpoint: endpoint, bucket: bucket, prefix: prefix,
		extra: make(chan struct{}, max(0, o.UploadMemory/o.PartSize)), backoff: firstPause, maxCopy: maxCopyObject, born: time.Now(),
	}, nil
}

// String names the store, without credentials.
func (b *Bucket) String() string {
	return fmt.Sprintf("s3://%s/%s at %s", b.bucket, b.prefix, b.endpoint)
}

// Close ends the connections that are idle.
func (b *Bucket) Close() error {
	b.idle()
	return nil
}

// URL is the store's place as Options.URL names it.
func (b *Bucket) URL() string { return b.o.URL }

// Notes are what whoever runs this store should know, in sentences without a full
// stop.
func (b *Bucket) Notes() []string {
	var notes []string
	if b.endpoint.Scheme == "http" && !loopback(b.endpoint.Hostname()) {
		notes = append(notes, fmt.Sprintf("the connection to %s is not encrypted: requests are signed, but whoever is on the way reads the data, and can change it: use https outside of a trusted network", b.endpoint.Host))
	}
	return notes
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// name is the name in the bucket of what has the key.
func (b *Bucket) name(key string) (string, error) {
	if err := objstore.CheckKey(key); err != nil {
		return "", err
	}
	name := b.prefix + key
	return name, objstore.CheckKey(name)
}

// saw notes that the bucket has just given an answer that only a bucket gives.
func (b *Bucket) saw() { b.seen.Store(max(1, int64(time.Since(b.born)))) }

// missing is the error for an object that is not there: ErrNotExist if the bucket
// is. Without that a bucket that was removed, or another one served in its place,
// would look like a store that has lost everything.
func (b *Bucket) missing(ctx context.Context) error {
	if at := b.seen.Load(); at > 0 && time.Since(b.born)-time.Duration(at) < seenFor {
		return objstore.ErrNotExist
	}
	var exists bool
	err := b.do(ctx, func(ctx context.Context, _ *exchange) (err error) {
		exists, err = b.core.BucketExists(ctx, b.bucket)
		return err
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil && !denied(err): // whoever may not ask about the bucket may still use it
		return b.explain(err, reading)
	case err == nil && !exists:
		return b.noBucket()
	}
	b.saw()
	return objstore.ErrNotExist
}

func (b *Bucket) noBucket() error {
	return fmt.Errorf("%w: there is no bucket %q at %s: create it with `shardpress doctor --create`, or check URL and endpoint", objstore.ErrRoot, b.bucket, b.endpoint)
}
