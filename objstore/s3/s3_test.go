package s3_test

import (
	"testing"

	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/objstoretest"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return server.Open(t) })
}

