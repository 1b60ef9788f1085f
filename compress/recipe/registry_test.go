package recipe_test

import (
	"testing"

	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/recipe"
)

// Every method that is registered keeps the contract, without a line of its own here.
func TestEveryMethod(t *testing.T) {
	t.Parallel()
	all, err := recipe.Methods()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range all {
		t.Run(info.Name, func(t *testing.T) {
			t.Parallel()
			m, err := recipe.NewMethod(info.Name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if m.Name() != info.Name || m.Version() != info.Version {
				t.Errorf("method %s@%d is registered as %s@%d", m.Name(), m.Version(), info.Name, info.Version)
			}
			if info.Name == "lorc" {
				// It works on what another method leaves.
				next, err := recipe.NewMethod("rtn", []byte(`{"strategy":"channel"}`))
				if err != nil {
					t.Fatal(err)
				}
				if m, err = recipe.NewMethod(info.Name, []byte(`{"rank":1}`)); err != nil {
					t.Fatal(err)
				}
				if m, err = recipe.Chain(m, next); err != nil {
					t.Fatal(err)
				}
			}
			methodtest.Run(t, methodtest.Case{Method: m})
			a, err := methodtest.Digest(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := methodtest.Digest(t.Context(), m); err != nil || a != b {
				t.Errorf("digests %s and %s, %v", a, b, err)
			}
		})
	}
}
