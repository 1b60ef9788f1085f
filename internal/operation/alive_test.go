package operation

import (
	"encoding/json"
	"testing"
)

// TestSilentPassIsAlive counts the signs of life: a pass over a whole tensor before
// the first code gives one for each panel, and no bytes.
func TestSilentPassIsAlive(t *testing.T) {
	t.Parallel()
	ck := sparse(t, 512, 4096, nil) // 4 MiB, 8 panels
	j := newMatrixTask(t, ck, FormatPack, hashOnly)
	var p EncodeParams
	if err := json.Unmarshal(j.spec.Params, &p); err != nil {
		t.Fatal(err)
	}
	p.Items[0].Encode[0].Params = json.RawMessage(`{"strategy":"tensor"}`)
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	j.spec.Params = raw
	first, silent, total := 0, 0, int64(0)
	j.env.Progress = func(n int64) {
		if total += n; n == 0 {
			silent++
		}
		if total == 0 {
			first++
		}
	}
	if _, err := (Encode{}).Run(t.Context(), j.spec, j.env); err != nil {
		t.Fatal(err)
	}
	if silent != 8 || first != silent || total != j.layout.SourceBytes {
		t.Errorf("%d signs of life without bytes, %d of them first, and %d bytes of %d", silent, first, total, j.layout.SourceBytes)
	}
}

// TestLongWorkIsAlive counts the signs of life of a method that computes for long between reading and giving: a worker takes silence for death.
func TestLongWorkIsAlive(t *testing.T) {
	t.Parallel()
	ck := sparse(t, 48, 128, nil)
	j := newMatrixTask(t, ck, FormatPack, hashOnly)
	var p EncodeParams
	if err := json.Unmarshal(j.spec.Params, &p); err != nil {
		t.Fatal(err)
	}
	e := &p.Items[0].Encode[0]
	e.Method, e.At, e.Params, e.Format = "svd", 1, json.RawMessage(`{"by":"rank","rank":9}`), FormatDense
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	j.spec.Params = raw
	silent := 0
	j.env.Progress = func(n int64) {
		if n == 0 {
			silent++
		}
	}
	if _, err := (Encode{}).Run(t.Context(), j.spec, j.env); err != nil {
		t.Fatal(err)
	}
	if silent < 4 { // one is for the one panel
		t.Errorf("%d signs of life", silent)
	}
}
