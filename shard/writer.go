package shard

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// TensorSpec names an array that is going to be written.
type TensorSpec struct {
	Name  string
	DType DType
	Shape []int64
}

// Bytes returns the length of the data, and false when the specification is not that of any tensor.
func (t TensorSpec) Bytes() (int64, bool) { return byteLength(t.DType, t.Shape) }

// SortSpecs puts tensors into the order in which the reference implementation writes them: larger elements first, then by name. It
// keeps every tensor aligned to its elements, which readers that map the file need.
func SortSpecs(tensors []TensorSpec) {
	slices.SortFunc(tensors, func(a, b TensorSpec) int {
		return cmp.Or(cmp.Compare(b.DType.Size(), a.DType.Size()), strings.Compare(a.Name, b.Name))
	})
}

// Layout is a safetensors file before its data: all of it is known without a single weight.
type Layout struct {
	Tensors []TensorSpec // in the order of the data
	Header  []byte       // the length and the JSON text, a multiple of 8 bytes
	Offsets []int64      // of each tensor, from the start of the file
	Total   int64        // bytes of the file
	Data    int64        // bytes of all tensors, what an index counts in total_size
}

// NewLayout makes the header of a file that holds the tensors in the given order. Without metadata it writes {"format":"pt"}, which
// several releases of transformers insist on. It refuses an order that leaves a tensor unaligned.
func NewLayout(tensors []TensorSpec, metadata map[string]string) (*Layout, error) {
	if metadata == nil {
		metadata = map[string]string{"format": "pt"}
	}
	l := &Layout{Tensors: slices.Clone(tensors), Offsets: make([]int64, len(tensors))}
	header := append(make([]byte, 8, 256+128*len(tensors)), `{"__metadata__":{`...)
	for i, key := range slices.Sorted(maps.Keys(metadata)) {
		if i > 0 {
			header = append(header, ',')
		}
		header = append(appendString(header, key), ':')
		header = appendString(header, metadata[key])
	}
	header = append(header, '}')
	seen := make(map[string]struct{}, len(tensors))
	for i, t := range tensors {
		n, err := l.check(t, seen)
		if err != nil {
			return nil, err
		}
		l.Offsets[i] = l.Data // relative, until the header's length is known
		header = append(appendString(append(header, ','), t.Name), `:{"dtype":"`+string(t.DType)+`","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				header = append(header, ',')
			}
			header = strconv.AppendInt(header, d, 10)
		}
		header = strconv.AppendInt(append(header, `],"data_offsets":[`...), l.Data, 10)
		l.Data += n
		header = strconv.AppendInt(append(header, ','), l.Data, 10)
		header = append(header, "]}"...)
	}
	header = append(header, '}')
	for len(header)%8 != 0 {
		header = append(header, ' ') // data begins at a multiple of 8 bytes
	}
	if len(header)-8 > MaxHeader {
		return nil, fmt.Errorf("lay out file: header of %d bytes is above the limit of %d: %w; use more shards", len(header)-8, MaxHeader, ErrUnsupported)
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	l.Header = header
	for i := range l.Offsets {
		l.Offsets[i] += int64(len(header))
	}
	l.Total = int64(len(header)) + l.Data
	return l, nil
}

// check refuses what no reader would accept and returns the bytes of the tensor.
func (l *Layout) check(t TensorSpec, seen map[string]struct{}) (int64, error) {
	if problem := nameProblem(t.Name); problem != "" || t.Name == "__metadata__" {
		return 0, fmt.Errorf("lay out tensor %q: name %s: %w", t.Name, cmp.Or(problem, "is reserved"), ErrMalformed)
	}
	if _, ok := seen[t.Name]; ok {
		return 0, fmt.Errorf("lay out tensor %q: %w", t.Name, ErrDuplicate)
	}
	seen[t.Name] = struct{}{}
	n, ok := t.Bytes()
	if !ok || len(t.Shape) > maxDims || n > math.MaxInt64/2-l.Data {
		return 0, fmt.Errorf("lay out tensor %q: %s of shape %v: %w", t.Name, t.DType, t.Shape, ErrMalformed)
	}
	if n > 0 && l.Data%t.DType.Size() != 0 {
		return 0, fmt.Errorf("lay out tensor %q: begins at %d, no multiple of %d bytes: %w; order the tensors with SortSpecs",
			t.Name, l.Data, t.DType.Size(), ErrOrder)
	}
	return n, nil
}

// appendString appends a JSON string. Names hold printable characters only, so that encoding cannot fail.
func appendString(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic("shard: internal error: encode string: " + err.Error())
	}
	return append(b, quoted...)
}

// Writer writes the file of a layout and holds its caller to it: the tensors in order, each with exactly its bytes.
type Writer struct {
	w       io.Writer
	layout  *Layout
	next    int   // index of the next tensor
	pending int64 // bytes that the current tensor still lacks
	err     error // the first failure; the file is of no use after it
}

// NewWriter writes the header.
func NewWriter(w io.Writer, l *Layout) (*Writer, error) {
	if _, err := w.Write(l.Header); err != nil {
		return nil, fmt.Errorf("write safetensors header: %w", err)
	}
	return &Writer{w: w, layout: l}, nil
}

// Begin starts the next tensor, which must have the given name.
func (w *Writer) Begin(name string) error {
	switch {
	case w.err != nil:
	case w.pending != 0:
		w.err = fmt.Errorf("write tensor %q: %w: %d bytes short", w.layout.Tensors[w.next-1].Name, ErrOrder, w.pending)
	case w.next == len(w.layout.Tensors):
		w.err = fmt.Errorf("write tensor %q: %w: all tensors are written", name, ErrOrder)
	case w.layout.Tensors[w.next].Name != name:
		w.err = fmt.Errorf("write tensor %q: %w: %q is next", name, ErrOrder, w.layout.Tensors[w.next].Name)
	default:
		w.pending, _ = w.layout.Tensors[w.next].Bytes()
		w.next++
	}
	return w.err
}

// Write writes data of the current tensor.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.pending {
		name := ""
		if w.next > 0 {
			name = w.layout.Tensors[w.next-1].Name
		}
		w.err = fmt.Errorf("write tensor %q: %w: %d bytes too many", name, ErrOrder, int64(len(p))-w.pending)
		return 0, w.err
	}
	n, err := w.w.Write(p)
	w.pending -= int64(n)
	if err != nil {
		w.err = fmt.Errorf("write tensor %q: %w", w.layout.Tensors[w.next-1].Name, err)
	}
	return n, w.err
}

// Close checks that the file is complete. It does not close the underlying writer.
func (w *Writer) Close() error {
	switch {
	case w.err != nil:
	case w.pending != 0:
		w.err = fmt.Errorf("write tensor %q: %w: %d bytes short", w.layout.Tensors[w.next-1].Name, ErrOrder, w.pending)
	case w.next < len(w.layout.Tensors):
		w.err = fmt.Errorf("write tensor %q: %w: never written", w.layout.Tensors[w.next].Name, ErrOrder)
	}
	return w.err
}
