package s3_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
)

func BenchmarkBucket(b *testing.B) {
	store := s3test.Start(b).Open(b)
	for _, size := range []int{1 << 10, 1 * mib, 256 * mib} {
		data := noise(1, size)
		b.Run(fmt.Sprintf("put/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := store.Put(b.Context(), "a", bytes.NewReader(data), -1, objstore.PutOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("get/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r, err := store.Get(b.Context(), "a", 0, -1)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(size) {
					b.Fatal(n, err)
				}
				r.Close()
			}
		})
	}
}
