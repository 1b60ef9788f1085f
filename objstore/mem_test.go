package objstore_test

import (
	"testing"

	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/objstoretest"
)

func TestMem(t *testing.T) {
	t.Parallel()
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return objstore.NewMem() })
}

func TestMemPrefix(t *testing.T) {
	t.Parallel()
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return objstore.Prefix(objstore.NewMem(), "p/q/") })
}
