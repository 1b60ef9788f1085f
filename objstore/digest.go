package objstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// Digest reads an object to its end and returns its SHA-256 in lower-case
// hexadecimal. No more than a fixed piece of the object is held at a time.
func Digest(ctx context.Context, b Bucket, key string) (string, error) {
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	// Without its WriteTo, the reader fills large pieces: each is a call of the system.
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
