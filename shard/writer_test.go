package shard

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestWriter(t *testing.T) {
	t.Parallel()
	specs := []TensorSpec{
		{"b.weight_scale", BF16, []int64{3, 1}}, {"a.weight_shape", I64, []int64{2}}, {"b.weight_packed", I32, []int64{3, 2}},
		{"empty", F32, []int64{0, 5}}, {"scalar", F32, nil}, {"mask \u00e9\"<&>", U8, []int64{3}},
	}
	SortSpecs(specs)
	if specs[0].Name != "a.weight_shape" || specs[len(specs)-1].DType != U8 {
		t.Fatalf("order %v", specs)
	}
	l, err := NewLayout(specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, l)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range specs {
		if int64(out.Len()) != l.Offsets[i] {
			t.Errorf("%s begins at %d, layout says %d", s.Name, out.Len(), l.Offsets[i])
		}
		if n := s.DType.Size(); l.Offsets[i]%n != 0 {
			t.Errorf("%s is not aligned", s.Name)
		}
		if err := w.Begin(s.Name); err != nil {
			t.Fatal(err)
		}
		n, _ := s.Bytes()
		for range n {
			if _, err := w.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) != l.Total || l.Total != int64(len(l.Header))+l.Data || len(l.Header)%8 != 0 {
		t.Errorf("%d bytes of %d", out.Len(), l.Total)
	}
	// What was written reads back.
	h, err := ReadHeader(bytes.NewReader(out.Bytes()), "x", l.Total)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Tensors) != len(specs) || len(h.Metadata) != 1 || h.Metadata[0] != [2]string{"format", "pt"} {
		t.Errorf("%+v", h)
	}
	byName := map[string]Tensor{}
	for _, x := range h.Tensors {
		byName[x.Name] = x
	}
	for i, s := range specs {
		n, _ := s.Bytes()
		if x := byName[s.Name]; x.Length != n || n > 0 && (x.Offset != l.Offsets[i] || out.Bytes()[x.Offset] != byte(i)) || x.DType != s.DType {
			t.Errorf("%+v of %+v at %d", x, s, l.Offsets[i])
		}
	}
}

func TestWriterHoldsToTheLayout(t *testing.T) {
	t.Parallel()
	// A step is "+name" to begin a tensor, a number of bytes to write, or "close". The last one must fail, those before must not.
	for name, steps := range map[string][]string{
		"other tensor first":    {"+b"},
		"data before a tensor":  {"1"},
		"too many bytes":        {"+a", "5"},
		"too many in the end":   {"+a", "3", "2"},
		"next tensor too early": {"+a", "3", "+b"},
		"one tensor too many":   {"+a", "4", "+b", "1", "+c"},
		"close too early":       {"+a", "4", "close"},
		"close inside a tensor": {"+a", "close"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := NewLayout([]TensorSpec{{"a", U8, []int64{4}}, {"b", U8, []int64{1}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			w, err := NewWriter(&bytes.Buffer{}, l)
			if err != nil {
				t.Fatal(err)
			}
			for i, step := range steps {
				var err error
				if tensor, ok := strings.CutPrefix(step, "+"); ok {
					err = w.Begin(tensor)
				} else if step == "close" {
					err = w.Close()
				} else {
					_, err = w.Write(make([]byte, step[0]-'0'))
				}
				if last := i == len(steps)-1; last != errors.Is(err, ErrOrder) || !last && err != nil {
					t.Errorf("step %d: error %v", i, err)
				}
			}
			if err := w.Close(); !errors.Is(err, ErrOrder) {
				t.Errorf("a writer that failed closes with %v", err)
			}
		})
	}
}

type fullDisk struct{ left int }

func (f *fullDisk) Write(p []byte) (int, error) {
	if len(p) > f.left {
		n := f.left
		f.left = 0
		return n, errors.New("disk full")
	}
	f.left -= len(p)
	return len(p), nil
}

func TestWriterReportsTheStore(t *testing.T) {
	t.Parallel()
	l, err := NewLayout([]TensorSpec{{"a.weight", U8, []int64{4}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewWriter(&fullDisk{3}, l); err == nil {
		t.Error("no error for the header")
	}
	w, err := NewWriter(&fullDisk{len(l.Header) + 2}, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Begin("a.weight"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 4)); err == nil || !strings.Contains(err.Error(), "a.weight") || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error %v", err)
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error %v", err)
	}
}

func TestNewLayoutRefuses(t *testing.T) {
	t.Parallel()
	for name, specs := range map[string][]TensorSpec{
		"same name":    {{"a", U8, nil}, {"a", U8, nil}},
		"no name":      {{"", U8, nil}},
		"reserved":     {{"__metadata__", U8, nil}},
		"type":         {{"a", "F4", nil}},
		"negative":     {{"a", U8, []int64{-1}}},
		"overflow":     {{"a", F64, []int64{1 << 40, 1 << 40}}},
		"overflow sum": {{"a", U8, []int64{1 << 61}}, {"b", U8, []int64{1 << 61}}, {"c", U8, []int64{1 << 61}}},
		"unaligned":    {{"a", U8, []int64{1}}, {"b", I32, []int64{1}}},
	} {
		if _, err := NewLayout(specs, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
