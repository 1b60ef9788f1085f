package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrTooLarge says that an object is larger than its reader is ready to hold.
var ErrTooLarge = errors.New("object is too large")

// ReadAll reads an object that is small by its nature, such as a document. One of
// more than limit bytes is ErrTooLarge, and no more than that is read of it.
func ReadAll(ctx context.Context, b Bucket, key string, limit int64) ([]byte, error) {
	limit = min(max(limit, 0), math.MaxInt64-1)
	r, err := b.Get(ctx, key, 0, limit+1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: %w: it has more than %d bytes", key, ErrTooLarge, limit)
	}
	return data, nil
}
