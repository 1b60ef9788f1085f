package shard

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"unicode"
	"unicode/utf8"
)

// MaxHeader is the longest header that readers of safetensors accept.
const MaxHeader = 100_000_000

// maxName bounds tensor, module and file names.
const maxName = 1024

// maxDims bounds the dimensions of a tensor.
const maxDims = 16

// Tensor is a named array and the bytes of a file that hold it.
type Tensor struct {
	Name   string  `json:"name"`
	DType  DType   `json:"dtype"`
	Shape  []int64 `json:"shape"`
	File   int     `json:"file"`   // index into Manifest.Files
	Offset int64   `json:"offset"` // from the start of the file
	Length int64   `json:"length"`
}

// Header is what a safetensors file says about itself before its data.
type Header struct {
	Tensors  []Tensor    // by offset, then length, then name; File is 0
	Metadata [][2]string // the pairs of __metadata__ in the order of the file
	Length   int64       // bytes before the data
	Digest   string      // hex SHA-256 of those bytes
}

// ReadHeader reads and checks the header of a safetensors file of size bytes. name stands in errors.
func ReadHeader(r io.ReaderAt, name string, size int64) (*Header, error) {
	var prefix [8]byte
	if size < int64(len(prefix)) {
		return nil, fmt.Errorf("read header of %s: file has %d bytes, fewer than a header length: %w; download it again",
			name, size, ErrMalformed)
	}
	if _, err := r.ReadAt(prefix[:], 0); err != nil {
		return nil, fmt.Errorf("read header of %s: %w", name, err)
	}
	length, err := headerLength(prefix[:], name, size)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 8+length)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read header of %s: %w", name, err)
	}
	return ParseHeader(b, name, size)
}

// headerLength checks the first eight bytes of a file before anything is allocated for the header.
func headerLength(prefix []byte, name string, size int64) (int64, error) {
	n := binary.LittleEndian.Uint64(prefix)
	switch {
	case n > MaxHeader:
		return 0, fmt.Errorf("read header of %s: header length %d is above the limit of %d: %w; the file is no safetensors file or is damaged, download it again",
			name, n, MaxHeader, ErrMalformed)
	case int64(n) > size-8:
		return 0, fmt.Errorf("read header of %s: header of %d bytes does not fit in a file of %d: %w; the file is truncated, download it again",
			name, n, size, ErrMalformed)
	}
	return int64(n), nil
}

// ParseHeader checks the header of a safetensors file of size bytes; b is its eight length bytes and the JSON text after them.
func ParseHeader(b []byte, name string, size int64) (*Header, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("read header of %s: %d bytes are fewer than a header length: %w; download it again", name, len(b), ErrMalformed)
	}
	length, err := headerLength(b, name, size)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != 8+length {
		return nil, fmt.Errorf("read header of %s: have %d bytes of a header of %d: %w; download it again", name, len(b)-8, length, ErrMalformed)
	}
	sum := sha256.Sum256(b)
	h := &Header{Length: int64(len(b)), Digest: hex.EncodeToString(sum[:])}
	s := &scanner{file: name, text: b[8:]}
	err = s.object(func(key string) error {
		if key == "__metadata__" {
			return s.object(func(key string) error {
				value, err := s.str()
				h.Metadata = append(h.Metadata, [2]string{key, value})
				return err
			})
		}
		t, err := s.tensor(key)
		if err != nil {
			return err
		}
		h.Tensors = append(h.Tensors, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	return h, h.place(name, size)
}

// tensor reads the value of one tensor's key. Offset is still relative to the data.
func (s *scanner) tensor(name string) (Tensor, error) {
	t := Tensor{Name: name, Shape: []int64{}}
	fail := func(format string, args ...any) (Tensor, error) {
		return t, fmt.Errorf("parse header of %s: tensor %q: %s: %w; download the file again",
			s.file, name, fmt.Sprintf(format, args...), ErrMalformed)
	}
	if problem := nameProblem(name); problem != "" {
		return fail("name %s", problem)
	}
	var offsets []int64
	fields := 0
	err := s.object(func(key string) error {
		fields++
		switch key {
		case "dtype":
			d, err := s.str()
			t.DType = DType(d)
			return err
		case "shape":
			return s.integers(&t.Shape, maxDims)
		case "data_offsets":
			return s.integers(&offsets, 2)
		}
		return s.errorf("tensor %q: unknown member %q", name, key)
	})
	if err != nil {
		return t, err
	}
	switch {
	case fields != 3 || len(offsets) != 2:
		return fail("want dtype, shape and two data_offsets")
	case t.DType.Size() == 0:
		return t, fmt.Errorf("parse header of %s: tensor %q: element type %q: %w; convert the tensor to one of the safetensors types",
			s.file, name, t.DType, ErrUnsupported)
	case offsets[1] < offsets[0]:
		return fail("data ends at %d before it begins at %d", offsets[1], offsets[0])
	}
	want, ok := byteLength(t.DType, t.Shape)
	if !ok {
		return fail("shape %v is too large for any file", t.Shape)
	}
	t.Offset, t.Length = offsets[0], offsets[1]-offsets[0]
	if t.Length != want {
		return fail("%s of shape %v takes %d bytes, data_offsets give it %d", t.DType, t.Shape, want, t.Length)
	}
	return t, nil
}

// integers reads an array of at most limit numbers.
func (s *scanner) integers(out *[]int64, limit int) error {
	return s.array(func() error {
		n, err := s.integer()
		if err != nil {
			return err
		}
		if len(*out) == limit {
			return s.errorf("more than %d numbers", limit)
		}
		*out = append(*out, n)
		return nil
	})
}

// place sorts the tensors by offset and checks that they fill the data exactly once: a gap hides bytes that nobody checks, and an
// overlap makes two tensors of the same bytes.
func (h *Header) place(name string, size int64) error {
	slices.SortFunc(h.Tensors, compareTensors)
	data, end := size-h.Length, int64(0)
	fail := func(t Tensor, format string, args ...any) error {
		return fmt.Errorf("parse header of %s: tensor %q: %s: %w; download the file again",
			name, t.Name, fmt.Sprintf(format, args...), ErrMalformed)
	}
	for i := range h.Tensors {
		t := &h.Tensors[i]
		switch {
		case t.Offset < end:
			return fail(*t, "overlaps %q: begins at %d, where the other ends at %d", h.Tensors[i-1].Name, t.Offset, end)
		case t.Offset > end:
			return fail(*t, "begins at %d, leaving a gap after %d", t.Offset, end)
		case t.Length > data-t.Offset:
			return fail(*t, "ends at %d of %d data bytes; the file is truncated", t.Offset+t.Length, data)
		}
		end = t.Offset + t.Length
		t.Offset += h.Length
	}
	if end != data {
		return fmt.Errorf("parse header of %s: %d bytes after the last tensor belong to none: %w; download the file again", name, data-end, ErrMalformed)
	}
	return nil
}

// nameProblem says what is wrong with a tensor or module name, "" for nothing. Names travel into other files and onto terminals.
func nameProblem(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxName:
		return fmt.Sprintf("has more than %d bytes", maxName)
	case !utf8.ValidString(name):
		return "is not UTF-8"
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("holds the unprintable character %U", r)
		}
	}
	return ""
}
