package shard

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// maxBlocks bounds block indexes, so that a hostile name cannot make anybody loop for long.
const maxBlocks = 100_000

// maxScaleBlock bounds the rows or columns of a block, so that counting in blocks cannot overflow.
const maxScaleBlock = 1 << 40

// finish checks every number and reference of a manifest and fills its lookup table.
func (m *Manifest) finish() error {
	if m.Version != ManifestVersion {
		return fmt.Errorf("manifest has version %d, this program reads %d: %w", m.Version, ManifestVersion, ErrUnsupported)
	}
	if m.Files == nil || m.Tensors == nil || m.Linears == nil || m.Places == nil || m.Extras == nil || m.Skipped == nil {
		return fmt.Errorf("a list is null: %w", ErrMalformed)
	}
	for _, check := range []func() error{m.checkModel, m.checkFiles, m.checkTensors, m.checkLinears, m.checkPlaces, m.checkOthers} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func malformed(what, name, format string, args ...any) error {
	return fmt.Errorf("%s %q: %s: %w", what, name, fmt.Sprintf(format, args...), ErrMalformed)
}

func (m *Manifest) checkModel() error {
	d := m.Model
	switch {
	case d.Blocks < 0 || d.Blocks > maxBlocks:
		return malformed("model", d.ModelType, "%d blocks", d.Blocks)
	case d.DType != "" && d.DType.Size() == 0:
		return malformed("model", d.ModelType, "element type %q", d.DType)
	case d.HiddenSize < 0:
		return malformed("model", d.ModelType, "hidden size %d", d.HiddenSize)
	}
	return nil
}

func (m *Manifest) checkFiles() error {
	for i, f := range m.Files {
		if problem := fileNameProblem(f.Name); problem != "" {
			return malformed("file", f.Name, "name %s", problem)
		}
		if i > 0 && m.Files[i-1].Name >= f.Name {
			return malformed("file", f.Name, "not in the order of names")
		}
		if f.Size < 8 || !digest(f.HeaderDigest) || !digest(f.Identity.Value) {
			return malformed("file", f.Name, "size %d, header digest %q, identity %q", f.Size, f.HeaderDigest, f.Identity.Value)
		}
		if k := f.Identity.Kind; k != IdentityLocal && k != IdentityContent && k != IdentityVersion {
			return malformed("file", f.Name, "identity of kind %q", f.Identity.Kind)
		}
	}
	return nil
}

func (m *Manifest) checkTensors() error {
	m.byName = make(map[string]int, len(m.Tensors))
	if !slices.IsSortedFunc(m.Tensors, compareTensors) {
		return malformed("list of", "tensors", "not in the order of files and offsets")
	}
	file, end := 0, int64(8)
	for i, t := range m.Tensors {
		if problem := nameProblem(t.Name); problem != "" {
			return malformed("tensor", t.Name, "name %s", problem)
		}
		if _, ok := m.byName[t.Name]; ok {
			return fmt.Errorf("tensor %q: %w", t.Name, ErrDuplicate)
		}
		m.byName[t.Name] = i
		length, ok := byteLength(t.DType, t.Shape)
		if !ok || t.Shape == nil || len(t.Shape) > maxDims || length != t.Length {
			return malformed("tensor", t.Name, "%s of shape %v with %d bytes", t.DType, t.Shape, t.Length)
		}
		if t.File < 0 || t.File >= len(m.Files) {
			return malformed("tensor", t.Name, "file %d of %d", t.File, len(m.Files))
		}
		if t.File > file {
			file, end = t.File, 8
		}
		if size := m.Files[file].Size; t.Offset < end || t.Offset > size || t.Length > size-t.Offset {
			return malformed("tensor", t.Name, "bytes %d+%d overlap the tensor before or the end of %s", t.Offset, t.Length, m.Files[file].Name)
		}
		end = t.Offset + t.Length
	}
	return nil
}

func compareTensors(a, b Tensor) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length), cmp.Compare(a.Name, b.Name))
}

func (m *Manifest) checkLinears() error {
	names := make(map[string]struct{}, len(m.Linears))
	for _, l := range m.Linears {
		if problem := nameProblem(l.Name); problem != "" {
			return malformed("linear", l.Name, "name %s", problem)
		}
		if _, ok := names[l.Name]; ok {
			return fmt.Errorf("linear %q: %w", l.Name, ErrDuplicate)
		}
		names[l.Name] = struct{}{}
		if err := m.checkView(l); err != nil {
			return err
		}
		if !l.Role.known() || l.Block < -1 || l.Block >= m.Model.Blocks {
			return malformed("linear", l.Name, "role %q in block %d of %d", l.Role, l.Block, m.Model.Blocks)
		}
	}
	order := func(a, b Linear) int {
		return cmp.Or(cmp.Compare(m.byName[a.Tensor], m.byName[b.Tensor]), cmp.Compare(a.Expert, b.Expert), cmp.Compare(a.Row, b.Row))
	}
	if !slices.IsSortedFunc(m.Linears, order) {
		return malformed("list of", "linears", "not in the order of tensors")
	}
	return nil
}

// checkView checks that a linear lies inside its tensor, so that no later sum of offsets can overflow or leave it.
func (m *Manifest) checkView(l Linear) error {
	t, ok := m.Tensor(l.Tensor)
	if !ok {
		return fmt.Errorf("linear %q: tensor %q: %w", l.Name, l.Tensor, ErrMissing)
	}
	shape := t.Shape
	switch {
	case len(shape) == 3 && l.Expert >= 0 && int64(l.Expert) < shape[0]:
		shape = shape[1:]
	case len(shape) == 2 && l.Expert == -1:
	default:
		return malformed("linear", l.Name, "expert %d of tensor %q of shape %v", l.Expert, t.Name, t.Shape)
	}
	rows, cols := shape[0], shape[1]
	if l.Transposed {
		rows, cols = cols, rows
	}
	if l.Cols != cols || cols < 1 || l.Rows < 1 || l.Row < 0 || l.Row >= rows || l.RowStep < 1 || l.Rows-1 > (rows-1-l.Row)/l.RowStep {
		return malformed("linear", l.Name, "rows %d+%d×%d of %d columns leave tensor %q of shape %v", l.Row, l.Rows, l.RowStep, l.Cols, t.Name, t.Shape)
	}
	if l.Scale == "" {
		if l.ScaleBlock != [2]int64{} {
			return malformed("linear", l.Name, "scale block without a scale")
		}
		return nil
	}
	scale, ok := m.Tensor(l.Scale)
	if !ok {
		return fmt.Errorf("linear %q: scale tensor %q: %w", l.Name, l.Scale, ErrMissing)
	}
	return checkScale(l, t, scale)
}

// checkScale checks that there is one multiplier for each block of rows and columns.
func checkScale(l Linear, weight, scale Tensor) error {
	b := l.ScaleBlock
	if b[0] < 1 || b[1] < 1 || b[0] > maxScaleBlock || b[1] > maxScaleBlock || weight.DType.Size() != 1 || !weight.DType.Float() || !scale.DType.Float() ||
		l.Transposed || l.Expert != -1 || l.RowStep != 1 {
		return malformed("linear", l.Name, "%s weights with %s scales of blocks %v", weight.DType, scale.DType, b)
	}
	have, _ := elements(scale.Shape)
	rows, cols := ceilDiv(weight.Shape[0], b[0]), ceilDiv(weight.Shape[1], b[1])
	if cols != 0 && rows > have/cols || have != rows*cols {
		return malformed("linear", l.Name, "scale tensor %q of shape %v does not give one multiplier per %d × %d of %v",
			scale.Name, scale.Shape, b[0], b[1], weight.Shape)
	}
	return nil
}

func ceilDiv(a, b int64) int64 {
	if a == 0 {
		return 0
	}
	return (a-1)/b + 1
}

func (m *Manifest) checkPlaces() error {
	last := -1
	for _, p := range m.Places {
		i, ok := m.byName[p.Tensor]
		if !ok {
			return fmt.Errorf("place of tensor %q: tensor %w", p.Tensor, ErrMissing)
		}
		if i <= last {
			return malformed("place of tensor", p.Tensor, "named twice or not in the order of tensors")
		}
		last = i
		if !p.Role.known() || p.Block < -1 || p.Block >= m.Model.Blocks {
			return malformed("place of tensor", p.Tensor, "role %q in block %d of %d", p.Role, p.Block, m.Model.Blocks)
		}
	}
	return nil
}

func (m *Manifest) checkOthers() error {
	for i, e := range m.Extras {
		if problem := fileNameProblem(e.Name); problem != "" {
			return malformed("extra file", e.Name, "name %s", problem)
		}
		if i > 0 && m.Extras[i-1].Name >= e.Name {
			return malformed("extra file", e.Name, "not in the order of names")
		}
		if e.Size < 0 || e.Size > MaxExtra || !digest(e.SHA256) {
			return malformed("extra file", e.Name, "size %d, SHA-256 %q", e.Size, e.SHA256)
		}
	}
	for i, s := range m.Skipped {
		if i > 0 && m.Skipped[i-1].Name >= s.Name {
			return malformed("skipped file", s.Name, "not in the order of names")
		}
	}
	return nil
}

// digest reports whether s is a SHA-256 in lower-case hex.
func digest(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 64 && s == strings.ToLower(s)
}
