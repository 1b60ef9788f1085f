package objstore_test

import (
	"testing"

	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/objstoretest"
)

func openDir(t *testing.T) *objstore.Dir {
	t.Helper()
	d, err := objstore.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		open func(t *testing.T) objstore.Bucket
	}{
		{"Mem", func(*testing.T) objstore.Bucket { return objstore.NewMem() }},
		{"Dir", func(t *testing.T) objstore.Bucket { return openDir(t) }},
		{"MemPrefix", func(*testing.T) objstore.Bucket { return objstore.Prefix(objstore.NewMem(), "p/q") }},
		{"DirPrefix", func(t *testing.T) objstore.Bucket { return objstore.Prefix(openDir(t), "p/q") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			objstoretest.Run(t, test.open)
		})
	}
}
