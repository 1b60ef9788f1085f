package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrChanged says that the object is there, but is not the version asked for.
// S3: 412 PreconditionFailed, of a GET.
var ErrChanged = errors.New("object is not the version asked for")

// Conditional is implemented by backends that read a given version of an object
// or nothing.
type Conditional interface {
	// GetIf is Get of the object whose Info.Version is version. If it is another
	// one it reports ErrChanged, at once or, where the object is overwritten
	// during the read, from a Read; it never gives the bytes of another version.
	// An object that is gone is ErrNotExist. S3: If-Match.
	GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
}

// GetIf reads n bytes from off of the object of b whose Info.Version is version,
// as Conditional.GetIf. For a bucket that is not Conditional it asks for the
// version before and after the read, and holds the last bytes back until the
// second answer is there, so that whoever has got all bytes has got the right
// ones; a reader that stops earlier has no promise then.
func GetIf(ctx context.Context, b Bucket, key, version string, off, n int64) (io.ReadCloser, error) {
	if c, ok := b.(Conditional); ok {
		return c.GetIf(ctx, key, version, off, n)
	}
	info, err := statIf(ctx, b, key, version)
	if err != nil {
		return nil, err
	}
	n, err = cut(off, n, info.Size)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	r, err := b.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	return &checkedReader{ReadCloser: r, left: n, check: func() error {
		_, err := statIf(ctx, b, key, version)
		return err
	}}, nil
}

// statIf describes the object if it is that version.
func statIf(ctx context.Context, b Bucket, key, version string) (Info, error) {
	info, err := b.Stat(ctx, key)
	if err != nil {
		return Info{}, err
	}
	return info, checkVersion(key, version, info.Version)
}

// checkVersion compares the version asked for with the one that is there.
func checkVersion(key, version, there string) error {
	if version != there || version == "" {
		return fmt.Errorf("get %s: %w: version %q was asked for, %q is there", clip(key), ErrChanged, clip(version), there)
	}
	return nil
}

// checkedReader gives left bytes, the last of them only after check.
type checkedReader struct {
	io.ReadCloser
	left  int64
	check func() error // nil once it was called
	err   error
}

func (r *checkedReader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	k := 0
	if r.left > 0 {
		var err error
		k, err = r.ReadCloser.Read(p[:min(int64(len(p)), r.left)])
		r.left -= int64(k)
		switch {
		case err == io.EOF && r.left > 0: // the object was shorter than the version asked for
			r.err = io.ErrUnexpectedEOF
		case err != nil && err != io.EOF:
			r.err = err
		}
	}
	if r.left == 0 && r.check != nil && r.err == nil {
		r.err = r.check()
		r.check = nil
		if r.err != nil {
			return 0, r.err
		}
		r.err = io.EOF
		if k > 0 {
			return k, nil
		}
	}
	return k, r.err
}
