package shard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Kinds of identity. A kind is part of what names the work on a file, so that a weak identity never stands for a strong one.
const (
	// IdentityLocal: hex SHA-256 over header digest, size, modification time in nanoseconds, device and inode. It needs no reading of
	// weights; a rewrite that restores all five goes unseen.
	IdentityLocal = "local"
	// IdentityContent: hex SHA-256 of the whole file. It is the same on every machine.
	IdentityContent = "sha256"
	// IdentityVersion: hex SHA-256 over header digest, size and the version that the store gives the object. It needs no reading of weights,
	// and is worth what the store's versions are.
	IdentityVersion = "version"
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

// versionIdentity is the identity of an object that has a header and a version.
func versionIdentity(headerDigest string, size int64, version string) Identity {
	sum := sha256.Sum256(fmt.Appendf(nil, "shardpress version identity 1\n%s\n%d\n%s\n", headerDigest, size, version))
	return Identity{Kind: IdentityVersion, Value: hex.EncodeToString(sum[:])}
}

// contentDigest reads all size bytes of a file.
func contentDigest(ctx context.Context, r io.Reader, size int64) (string, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for n := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		k, err := r.Read(buf)
		h.Write(buf[:k])
		n += int64(k)
		switch {
		case errors.Is(err, io.EOF) && n < size:
			return "", io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", err
		}
	}
}
