package shard

import (
	"encoding/binary"
	"fmt"

	"github.com/shardpress/shardpress/internal/tensor"
)

// Strategies: what shares a scale.
const (
	StrategyTensor  = "tensor"
	StrategyChannel = "channel" // a row
	StrategyGroup   = "group"   // Group columns of a row
	StrategyBlock   = "block"   // a tile of Block rows and columns
)

// Scheme says how the codes of a linear decode. For KindInt weight = scale × (code − zero point), with codes and zero points integers
// from −2^(Bits−1) to 2^(Bits−1)−1. It is what engines and people are told; kinds of schemes that no engine knows have
// their names only.
type Scheme struct {
	Kind       string
	Bits       int
	Symmetric  bool // all zero points are 0
	Strategy   string
	Group      int64    // columns that share a scale; not looked at unless Strategy is group
	Block      [2]int64 // rows and columns that share a scale, with strategy block
	ScaleDType DType
	Element    DType  // of floats; of a codebook, to which engines decode
	Table      string // name of a codebook
	Nested     bool   // a codebook's scales are codes
	// Activations has no part in decoding: it tells engines what to do with the inputs.
	Activations Activations
}

// String names the scheme for people.
func (s Scheme) String() string {
	text := fmt.Sprintf("%s%d", s.Kind, s.Bits)
	if s.Kind != KindInt && s.Kind != KindFloat {
		text = s.Kind
	}
	if s.Kind == KindCodebook {
		text = fmt.Sprintf("%s %d", s.Table, s.Group)
		if s.Nested {
			text += " nested"
		}
	}
	if s.Strategy != "" {
		text += " " + s.Strategy
	}
	switch s.Strategy {
	case StrategyGroup:
		text += fmt.Sprintf(" %d", s.Group)
	case StrategyBlock:
		text += fmt.Sprintf(" %d × %d", s.Block[0], s.Block[1])
	}
	if s.Kind == KindInt && !s.Symmetric {
		text += " asymmetric"
	}
	if s.ScaleDType != "" {
		text += ", scales " + string(s.ScaleDType)
	}
	if s.Activations != ActivationsKept {
		text += ", activations " + string(s.Activations)
	}
	return text
}

// groups returns the scales of one row.
func (q QuantizedLinear) groups() int64 {
	if q.Scheme.Strategy == StrategyGroup {
		return q.Cols / q.Scheme.Group
	}
	return 1
}

// checkInt refuses integer codes that the format cannot hold.
func (q QuantizedLinear) checkInt() error {
	s, f, refuse := q.Scheme, q.Format, q.refuse
	if s.Kind == "affine" {
		return refuse("zero points that are floats; choose whole ones (zeros: int), or format shardpress or dense")
	}
	if s.Kind != KindInt {
		return refuse("it holds integer codes, not a scheme of kind %s", s.Kind)
	}
	if s.Bits < 2 || s.Bits > 8 {
		return refuse("%d bits; choose 2 to 8", s.Bits)
	}
	if s.Activations != ActivationsKept && s.Activations != ActivationsInt8Token {
		return refuse("activations %q; choose %q or none", s.Activations, ActivationsInt8Token)
	}
	switch s.ScaleDType {
	case BF16, F16, F32:
	default:
		return refuse("scales of type %q; choose BF16, F16 or F32", s.ScaleDType)
	}
	switch s.Strategy {
	case StrategyGroup:
		if s.Group < 1 || q.Cols%s.Group != 0 {
			return refuse("groups of %d do not divide %d columns; choose a divisor, or strategy %s", s.Group, q.Cols, StrategyChannel)
		}
	case StrategyChannel:
	case StrategyTensor:
		if f == FormatPackQuantized && !s.Symmetric {
			return refuse("its zero points are packed by rows, and one for the whole tensor is not; choose strategy %s or %s, or format %s",
				StrategyChannel, StrategyGroup, FormatIntQuantized)
		}
	default:
		return refuse("strategy %q; choose %s, %s or %s", s.Strategy, StrategyTensor, StrategyChannel, StrategyGroup)
	}
	return nil
}

// intTensors lists the tensors of integer codes (formats.md 2.2). Offset-binary codes and float scales go into
// weight_packed and weight_scale byte for byte; CodesToInt8, ZerosToInt8 and PackZeros make the others.
func (q QuantizedLinear) intTensors() []ModuleTensor {
	scaleShape := []int64{q.Rows, q.groups()}
	if q.Scheme.Strategy == StrategyTensor {
		scaleShape = []int64{1}
	}
	out := []ModuleTensor{{TensorSpec{q.Name + ".weight_scale", q.Scheme.ScaleDType, scaleShape}, PartScales}}
	if q.Format == FormatIntQuantized {
		out = append(out, ModuleTensor{TensorSpec{q.Name + ".weight", I8, []int64{q.Rows, q.Cols}}, PartCodes})
		if !q.Scheme.Symmetric {
			out = append(out, ModuleTensor{TensorSpec{q.Name + ".weight_zero_point", I8, scaleShape}, PartZeros})
		}
		return out
	}
	bits := int64(q.Scheme.Bits)
	out = append(out,
		ModuleTensor{TensorSpec{q.Name + ".weight_packed", I32, []int64{q.Rows, ceilDiv(q.Cols*bits, 32)}}, PartCodes},
		ModuleTensor{TensorSpec{q.Name + ".weight_shape", I64, []int64{2}}, PartShape})
	if !q.Scheme.Symmetric {
		out = append(out, ModuleTensor{TensorSpec{q.Name + ".weight_zero_point", I32, []int64{ceilDiv(q.Rows*bits, 32), q.groups()}}, PartZeros})
	}
	return out
}

// ShapeData returns the bytes of the part that follows from the linear: weight_shape, and what FormatBitsAndBytes has for it.
func (q QuantizedLinear) ShapeData() []byte {
	switch {
	case q.Format == FormatBitsAndBytes && q.Scheme.Kind == KindLLMInt8:
		return []byte{0} // weight_format: rows as they are
	case q.Format == FormatBitsAndBytes:
		return q.StateData(0)
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(q.Rows))
	return binary.LittleEndian.AppendUint64(b, uint64(q.Cols))
}

// CodesToInt8 turns packed rows of offset-binary codes into signed bytes, the rows of an int-quantized weight. dst holds
// rows × cols, codes the same rows packed.
func CodesToInt8(dst, codes []byte, cols, bits int) error {
	rowBytes, err := packedRows(len(dst), len(codes), cols, bits)
	if err != nil {
		return err
	}
	for ; len(dst) > 0; dst, codes = dst[cols:], codes[rowBytes:] {
		tensor.UnpackRow(dst[:cols], codes[:rowBytes], bits)
		ZerosToInt8(dst[:cols], dst[:cols], bits)
	}
	return nil
}

// Int8ToCodes undoes CodesToInt8. It refuses a byte outside the range of the codes.
func Int8ToCodes(dst, signed []byte, cols, bits int) error {
	rowBytes, err := packedRows(len(signed), len(dst), cols, bits)
	if err != nil {
		return err
	}
	row := make([]byte, cols)
	for ; len(signed) > 0; dst, signed = dst[rowBytes:], signed[cols:] {
		for i, c := range signed[:cols] {
			if row[i] = c + 1<<(bits-1); row[i]>>bits != 0 {
				return fmt.Errorf("read codes: %d is no code of %d bits: %w", int8(c), bits, ErrMalformed)
			}
		}
		tensor.PackRow(dst[:rowBytes], row, bits)
	}
	return nil
}

// packedRows checks that two buffers hold the same number of rows.
func packedRows(plain, packed, cols, bits int) (rowBytes int, err error) {
	if cols < 1 || bits < 1 || bits > 8 {
		return 0, fmt.Errorf("convert codes: %d columns of %d bits: %w", cols, bits, ErrUnsupported)
	}
	rowBytes = tensor.PackedRowBytes(cols, bits)
	if plain%cols != 0 || packed != plain/cols*rowBytes {
		return 0, fmt.Errorf("convert codes: %d bytes plain and %d packed are not the same rows of %d columns of %d bits: %w",
			plain, packed, cols, bits, ErrOrder)
	}
	return rowBytes, nil
}

// ZerosToInt8 turns offset-binary bytes into signed ones. dst may be zeros.
func ZerosToInt8(dst, zeros []byte, bits int) {
	half := byte(1) << (bits - 1)
	const top = 0x8080808080808080
	eight := uint64(half) * 0x0101010101010101
	for len(zeros) >= 8 {
		// Eight bytes at a time: with the top bits set aside no byte borrows from the next.
		z := binary.LittleEndian.Uint64(zeros)
		binary.LittleEndian.PutUint64(dst, ((z|top)-(eight&^top))^((z^^eight)&top))
		dst, zeros = dst[8:], zeros[8:]
	}
	for i, z := range zeros {
		dst[i] = z - half
	}
}

// Int8ToZeros undoes ZerosToInt8.
func Int8ToZeros(dst, signed []byte, bits int) {
	half := byte(1) << (bits - 1)
	for i, z := range signed {
		dst[i] = z + half
	}
}

// PackedZeroBytes returns the bytes of the packed zero points of a linear.
func PackedZeroBytes(rows, groups, bits int) int { return tensor.PackedRowBytes(rows, bits) * groups }

// PackZeros packs the offset-binary zero points of a whole linear, rows × groups, down the columns: each column of the result is the bit
// stream of one group's zero points over all rows (formats.md 2.3). dst is words × groups.
func PackZeros(dst, zeros []byte, rows, groups, bits int) error {
	if err := zeroSizes(dst, zeros, rows, groups, bits); err != nil {
		return err
	}
	column, stream := make([]byte, rows), make([]byte, tensor.PackedRowBytes(rows, bits))
	for g := range groups {
		for r := range rows {
			column[r] = zeros[r*groups+g]
		}
		tensor.PackRow(stream, column, bits)
		for w := 0; w < len(stream); w += 4 {
			copy(dst[w*groups+4*g:][:4], stream[w:])
		}
	}
	return nil
}

// UnpackZeros undoes PackZeros.
func UnpackZeros(dst, packed []byte, rows, groups, bits int) error {
	if err := zeroSizes(packed, dst, rows, groups, bits); err != nil {
		return err
	}
	column, stream := make([]byte, rows), make([]byte, tensor.PackedRowBytes(rows, bits))
	for g := range groups {
		for w := 0; w < len(stream); w += 4 {
			copy(stream[w:w+4], packed[w*groups+4*g:])
		}
		tensor.UnpackRow(column, stream, bits)
		for r := range rows {
			dst[r*groups+g] = column[r]
		}
	}
	return nil
}

func zeroSizes(packed, zeros []byte, rows, groups, bits int) error {
	if rows < 1 || groups < 1 || bits < 1 || bits > 8 || len(zeros)%groups != 0 || len(zeros)/groups != rows ||
		len(packed) != PackedZeroBytes(rows, groups, bits) {
		return fmt.Errorf("convert zero points: %d bytes packed and %d plain are not %d × %d of %d bits: %w",
			len(packed), len(zeros), rows, groups, bits, ErrOrder)
	}
	return nil
}
