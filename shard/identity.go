package shard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Kinds of identity. A kind is part of what names the work on a file, so that a weak identity never stands for a strong one.
const (
	// IdentityLocal: hex SHA-256 over header digest, size, modification time in nanoseconds, device and inode. It needs no reading of
	// weights; a rewrite that restores all five goes unseen.
	IdentityLocal = "local"
	// IdentityContent: hex SHA-256 of the whole file. It is the same on every machine.
	IdentityContent = "sha256"
)

// Identity says which bytes a file held when it was described.
type Identity struct {
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

// stat is what one fstat tells of a file. It is compared before and after every read.
type stat struct {
	size, mtime   int64
	device, inode uint64
}

// local returns the value of a local identity.
func (s stat) local(headerDigest string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "shardpress local identity 1\n%s\n%d\n%d\n%d\n%d\n", headerDigest, s.size, s.mtime, s.device, s.inode))
	return hex.EncodeToString(sum[:])
}

// contentDigest reads the whole file.
func contentDigest(ctx context.Context, f *os.File, size int64) (string, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		h.Write(buf[:n])
		off += int64(n)
		if err != nil && (!errors.Is(err, io.EOF) || off < size) {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
