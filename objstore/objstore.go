package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// Sentinel errors, to be tested with errors.Is. What a backend returns wraps
// them with the operation, the key and, where there is one, the remedy.
var (
	// ErrNotExist: there is no such object. S3: 404 NoSuchKey.
	ErrNotExist = errors.New("object does not exist")
	// ErrExist: IfAbsent was asked for and the object is there already.
	// S3: 412 PreconditionFailed, and 409 ConditionalRequestConflict.
	ErrExist = errors.New("object exists")
	// ErrSize: the reader gave more or fewer bytes than Put was told.
	ErrSize = errors.New("size differs from the bytes given")
	// ErrFull: the store has no room left, or a quota is used up.
	ErrFull = errors.New("store is full")
	// ErrKey: the key is not valid, or lies above or below another object's key.
	ErrKey = errors.New("invalid key")
	// ErrRange: the range begins behind the end of the object, or is negative.
	// S3: 416 InvalidRange.
	ErrRange = errors.New("range outside the object")
	// ErrCannotCopy: the backend has no cheap copy for this pair; stream instead.
	ErrCannotCopy = errors.New("no direct copy between these stores")
	// ErrReadOnly: the store cannot be written. S3: 403 AccessDenied.
	ErrReadOnly = errors.New("store is read-only")
	// ErrRoot: the place named is not a usable store: missing, foreign, unmounted.
	ErrRoot = errors.New("not a usable store")
)

// Info describes an object.
type Info struct {
	Key  string
	Size int64
	// SHA256 is the digest of the bytes stored, known to the Put that stored them.
	// Stat, List and Copy leave it zero, except in a backend whose service vouches
	// for the digest of the bytes that it serves.
	SHA256 [32]byte
	// Version is opaque and changes when the object is overwritten with other
	// bytes. S3: the ETag, since listings tell no version ID. It is no digest: it
	// depends on how the object was uploaded.
	Version string
	// ModTime is by the store's clock. Compare it only with other times of the
	// same store, never with this machine's.
	ModTime time.Time
}

// PutOptions are the conditions of a Put.
type PutOptions struct {
	// IfAbsent stores the object only if the key is free, and reports ErrExist
	// if it is not, possibly without having read any of the bytes.
	//
	// It is for small objects (a result, a manifest, a lease; below 5 MiB): S3 gives
	// the guarantee, If-None-Match: *, only on a single PUT. Multipart uploads
	// evaluate the header on completion at best, and some servers and clients
	// drop it there and overwrite silently. Large bytes go to keys that nobody
	// else writes, and a small object put with IfAbsent commits them.
	IfAbsent bool
}

// Bucket is a flat space of named objects. All methods may be called from many
// goroutines at once.
type Bucket interface {
	// Get opens n bytes of the object from offset off; n < 0 means to its end. A
	// range that reaches past the end is cut there; off equal to the size gives
	// no bytes; off beyond it, or negative, is ErrRange. What is opened stays
	// whole while it is read, also if the object is overwritten or deleted
	// meanwhile; a backend that cannot hold on to the bytes must fail the read
	// instead of mixing two objects. Cancelling ctx fails later reads too.
	//
	// S3: GetObject with Range (none for off 0 and n < 0; 416 to be turned into
	// no bytes when off is the size; n 0 needs only a HEAD), and If-Match on
	// whatever is asked again after a broken connection.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)

	// Put stores what r gives until io.EOF and returns when it is durable. size
	// is the number of bytes r will give, or negative if unknown; another number
	// is ErrSize and stores nothing. An error of r comes back so that errors.Is
	// finds it. If r implements io.WriterTo it is asked to write straight into
	// the store. r is not closed. A Put that returned an error has stored the
	// whole object or nothing; a Put whose r failed or whose ctx ended before
	// the last byte has stored nothing. A Read that blocks is not interrupted.
	//
	// S3: one PUT if the size is known and small, else a multipart upload, which
	// must be given a part size when the size is unknown and is aborted on error.
	Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error)

	// Stat describes the object. S3: HeadObject.
	Stat(ctx context.Context, key string) (Info, error)

	// List gives the objects whose keys begin with prefix, which need not end
	// at a slash, in the order of their keys' bytes. Objects put or deleted
	// meanwhile may be given or not. An error is given once, as the last pair.
	// The whole listing is never held in memory. S3: ListObjectsV2 without a
	// delimiter, page by page.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete removes the object; it is no error if there is none. It need not
	// be durable: after a loss of power a deleted object may be back. S3:
	// DeleteObject.
	Delete(ctx context.Context, key string) error
}

// Copier is implemented by backends that can make an object out of another
// without moving its bytes through this process.
type Copier interface {
	// Copy makes dst, replacing what is there, from the object srcKey of src, or
	// reports ErrCannotCopy, after which the caller streams. The new object is
	// as atomic and durable as one that was Put. S3: CopyObject, or
	// UploadPartCopy above 5 GiB.
	Copy(ctx context.Context, dst string, src Bucket, srcKey string) (Info, error)
}

// Copy makes the object dstKey of dst, replacing what is there, from the object
// srcKey of src: directly if dst is a Copier and can, else by streaming.
func Copy(ctx context.Context, dst Bucket, dstKey string, src Bucket, srcKey string) (Info, error) {
	if c, ok := dst.(Copier); ok {
		info, err := c.Copy(ctx, dstKey, src, srcKey)
		if !errors.Is(err, ErrCannotCopy) {
			return info, err
		}
	}
	info, err := src.Stat(ctx, srcKey)
	if err != nil {
		return Info{}, fmt.Errorf("copy %s: %w", srcKey, err)
	}
	r, err := src.Get(ctx, srcKey, 0, -1)
	if err != nil {
		return Info{}, fmt.Errorf("copy %s: %w", srcKey, err)
	}
	defer r.Close()
	return dst.Put(ctx, dstKey, r, info.Size, PutOptions{})
}
