package imports

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLayers holds the layer table and the confinements over the sources of this module.
func TestLayers(t *testing.T) {
	t.Parallel()
	breaches, err := check(moduleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, breach := range breaches {
		t.Error(breach)
	}
}

// TestExportedAPI holds that compress, shard and objstore can be used by other modules.
func TestExportedAPI(t *testing.T) {
	t.Parallel()
	breaches, err := checkAPI(moduleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, breach := range breaches {
		t.Error(breach)
	}
}

// TestPlantedOffenders builds small modules that break one rule each, and wants exactly that rule reported.
func TestPlantedOffenders(t *testing.T) {
	t.Parallel()
	const tensor = "package tensor\n\n// DType is a type that others cannot name.\ntype DType uint8\n\n// New makes one.\nfunc New() DType { return 0 }\n"
	source := func(pkg string, imports ...string) string {
		var b strings.Builder
		b.WriteString("package " + pkg + "\n\n")
		for _, i := range imports {
			b.WriteString("import _ \"" + strings.Replace(i, "our/", modulePath+"/", 1) + "\"\n")
		}
		return b.String()
	}
	tests := map[string]struct {
		files map[string]string
		want  []string // each a part of one reported line; none: the module is clean
	}{
		"clean": {files: map[string]string{
			"objstore/s3/client.go":       source("s3", "github.com/minio/minio-go/v7", "our/objstore"),
			"internal/queue/queue.go":     source("queue", "github.com/nats-io/nats.go/jetstream", "our/internal/task"),
			"compress/quantize/rtn.go":    source("quantize", "our/compress", "our/internal/tensor", "math"),
			"compress/recipe/registry.go": source("recipe", "our/compress/quantize"),
			"worker/pull.go":              source("worker", "our/internal/queue", "our/internal/operation", "os"),
			"worker/pull_test.go":         source("worker", "our/coordinator"),
			"cmd/shardpress/main.go":      source("main", "our/worker", "our/coordinator"),
			"worker/testdata/planted.go":  source("planted", "our/coordinator"),
			"tools/other/go.mod":          "module other\n",
			"tools/other/main.go":         source("main", "our/cmd/shardpress"),
		}},
		"tensor imports objstore": {
			files: map[string]string{"internal/tensor/read.go": source("tensor", "our/objstore")},
			want:  []string{"internal/tensor/read.go:3: internal/tensor must not import objstore: numbers"},
		},
		"objstore imports tensor": {
			files: map[string]string{"objstore/mem.go": source("objstore", "our/internal/tensor")},
			want:  []string{"objstore/mem.go:3: objstore must not import internal/tensor: stores move bytes"},
		},
		"shard imports compress": {
			files: map[string]string{"shard/write.go": source("shard", "our/compress")},
			want:  []string{"shard must not import compress"},
		},
		"a method imports another": {
			files: map[string]string{"compress/prune/wanda.go": source("prune", "our/compress/quantize")},
			want:  []string{"compress/prune must not import compress/quantize"},
		},
		"worker imports coordinator": {
			files: map[string]string{"worker/plan.go": source("worker", "our/coordinator")},
			want:  []string{"worker must not import coordinator: a worker pulls"},
		},
		"coordinator imports worker": {
			files: map[string]string{"coordinator/run.go": source("coordinator", "our/worker")},
			want:  []string{"coordinator must not import worker: a coordinator plans"},
		},
		"operation imports queue": {
			files: map[string]string{"internal/operation/encode.go": source("operation", "our/internal/queue")},
			want:  []string{"internal/operation must not import internal/queue"},
		},
		"story imports tensor": {
			files: map[string]string{"internal/story/grammar.go": source("story", "our/internal/tensor")},
			want:  []string{"internal/story must not import internal/tensor"},
		},
		"NATS outside the queue, in a file for another system": {
			files: map[string]string{"coordinator/watch_windows.go": "//go:build windows\n\n" + source("coordinator", "github.com/nats-io/nats.go")},
			want:  []string{"coordinator/watch_windows.go:5: coordinator must not import github.com/nats-io/nats.go: the queue is the one place"},
		},
		"NATS in a test": {
			files: map[string]string{"worker/pull_test.go": source("worker", "github.com/nats-io/nats-server/v2/server")},
			want:  []string{"worker must not import github.com/nats-io/nats-server/v2/server"},
		},
		"S3 client beside its package": {
			files: map[string]string{"objstore/upload.go": source("objstore", "github.com/minio/minio-go/v7")},
			want:  []string{"the client of S3 stays behind objstore.Bucket"},
		},
		"the command is imported": {
			files: map[string]string{"tools/bench/main.go": source("main", "our/cmd/shardpress")},
			want:  []string{"tools/bench must not import cmd/shardpress", "commands hold flags and printing"},
		},
		"a method reads files, the network and chance": {
			files: map[string]string{"compress/quantize/rtn.go": source("quantize", "os", "net/http", "math/rand/v2", "gonum.org/v1/gonum/mat")},
			want: []string{"must not import os: operations do no I/O", "must not import net/http", "must not import math/rand/v2: seeds",
				"must not import gonum.org/v1/gonum/mat: its sums"},
		},
		"a method reads the clock under another name": {
			files: map[string]string{"compress/quantize/rtn.go": "package quantize\n\nimport clock \"time\"\n\nvar _ = clock.Second\nvar _ = clock.Now\n"},
			want:  []string{"compress/quantize/rtn.go:6: compress/quantize must not use time.Now"},
		},
		"a package that no row knows": {
			files: map[string]string{"internal/utils/utils.go": source("utils")},
			want:  []string{"package internal/utils stands in no row of the layer table"},
		},
		"internal type in a result, a field, a method, an alias, a variable, a type argument": {
			files: map[string]string{
				"internal/tensor/tensor.go": tensor,
				"shard/api.go": `package shard

import "github.com/shardpress/shardpress/internal/tensor"

func Result() (map[string][]tensor.DType, error) { return nil, nil }
type Struct struct { Field *tensor.DType; hidden tensor.DType }
type hidden struct{}
func (hidden) Method(func(tensor.DType)) {}
func Handed() hidden { return hidden{} }
type Alias = tensor.DType
var Variable = tensor.New()
type Pair[T any] struct { First T }
func Argument(Pair[tensor.DType]) {}
type Embedding struct { inner }
type inner struct { Shown chan tensor.DType }
func fine(tensor.DType) {}
`,
			},
			want: []string{
				"shard: Alias shows internal/tensor.DType", "shard: Argument shows", "shard: Argument.First shows", "shard: Embedding.inner.Shown shows", "shard: Handed.Method shows",
				"shard: Result shows", "shard: Struct.Field shows", "shard: Variable shows",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for path, text := range test.files {
				path = filepath.Join(root, filepath.FromSlash(path))
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			breaches, err := check(root)
			if err != nil {
				t.Fatal(err)
			}
			if _, planted := test.files["shard/api.go"]; planted {
				breaches, err = checkAPI(root)
				if err != nil {
					t.Fatal(err)
				}
			}
			if len(breaches) != len(test.want) {
				t.Fatalf("got %d breaches, want %d:\n%s", len(breaches), len(test.want), strings.Join(breaches, "\n"))
			}
			for _, want := range test.want {
				if !strings.Contains(strings.Join(breaches, "\n"), want) {
					t.Errorf("no breach says %q:\n%s", want, strings.Join(breaches, "\n"))
				}
			}
		})
	}
}

// moduleRoot is the folder of go.mod above the test.
func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return root
}
