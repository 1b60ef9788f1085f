package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/tensor"
)

func int4(group int64) Scheme {
	return Scheme{Kind: KindInt, Bits: 4, Symmetric: true, Strategy: StrategyGroup, Group: group, ScaleDType: BF16}
}

func TestQuantizedLinearTensors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		linear QuantizedLinear
		format Format
		want   []string
		err    string // part of the error
	}{
		{"int4 groups", QuantizedLinear{Name: "m", Rows: 64, Cols: 256, Scheme: int4(128)}, FormatPackQuantized,
			[]string{"m.weight_scale BF16 [64 2] scales", "m.weight_packed I32 [64 32] codes", "m.weight_shape I64 [2] shape"}, ""},
		{"int3 channels, odd sizes, asymmetric", QuantizedLinear{Name: "m", Rows: 21, Cols: 43, Scheme: Scheme{Kind: KindInt, Bits: 3, Symmetric: false, Strategy: StrategyChannel, Group: 43, ScaleDType: F16}}, FormatPackQuantized,
			[]string{"m.weight_scale F16 [21 1] scales", "m.weight_packed I32 [21 5] codes", "m.weight_shape I64 [2] shape",
				"m.weight_zero_point I32 [2 1] zeros"}, ""},
		{"int8 tensor", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: Scheme{Kind: KindInt, Bits: 8, Symmetric: true, Strategy: StrategyTensor, Group: 16, ScaleDType: F32}}, FormatPackQuantized,
			[]string{"m.weight_scale F32 [1] scales", "m.weight_packed I32 [8 4] codes", "m.weight_shape I64 [2] shape"}, ""},
		{"int8 bytes", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: Scheme{Kind: KindInt, Bits: 8, Symmetric: true, Strategy: StrategyChannel, Group: 16, ScaleDType: BF16}}, FormatIntQuantized,
			[]string{"m.weight_scale BF16 [8 1] scales", "m.weight I8 [8 16] codes"}, ""},
		{"int8 bytes, asymmetric", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: Scheme{Kind: KindInt, Bits: 8, Symmetric: false, Strategy: StrategyTensor, Group: 16, ScaleDType: BF16}}, FormatIntQuantized,
			[]string{"m.weight_scale BF16 [1] scales", "m.weight I8 [8 16] codes", "m.weight_zero_point I8 [1] zeros"}, ""},
		{"asymmetric tensor packed", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: Scheme{Kind: KindInt, Bits: 4, Symmetric: false, Strategy: StrategyTensor, Group: 16, ScaleDType: BF16}}, FormatPackQuantized, nil, "int-quantized"},
		{"group that does not divide", QuantizedLinear{Name: "m", Rows: 8, Cols: 172, Scheme: int4(32)}, FormatPackQuantized, nil, "172 columns"},
		{"group zero", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: int4(0)}, FormatPackQuantized, nil, "groups of 0"},
		{"nine bits", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: Scheme{Kind: KindInt, Bits: 9, Symmetric: true, Strategy: StrategyChannel, Group: 0, ScaleDType: BF16}}, FormatPackQuantized, nil, "9 bits"},
		{"scale type", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: Scheme{Kind: KindInt, Bits: 4, Symmetric: true, Strategy: StrategyChannel, Group: 0, ScaleDType: F8E4M3}}, FormatPackQuantized, nil, "F8_E4M3"},
		{"strategy", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: Scheme{Kind: KindInt, Bits: 4, Symmetric: true, Strategy: "block", Group: 0, ScaleDType: BF16}}, FormatPackQuantized, nil, "block"},
		{"dense", QuantizedLinear{Name: "m", Rows: 8, Cols: 16, Scheme: int4(8)}, FormatDense, nil, "no codes"},
		{"no rows", QuantizedLinear{Name: "m", Rows: 0, Cols: 16, Scheme: int4(8)}, FormatPackQuantized, nil, "0 rows"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.linear.Format = tt.format
			got, err := tt.linear.Tensors()
			if tt.err != "" {
				if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), `"m"`) {
					t.Fatalf("error %v, want one that says %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, x := range got {
				lines = append(lines, fmt.Sprint(x.Name, " ", x.DType, " ", x.Shape, " ", x.Part))
			}
			if !slices.Equal(lines, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// The number of formats.md 2.3, and the same eight codes as zero points of eight rows.
func TestPackZerosKnownWord(t *testing.T) {
	t.Parallel()
	zeros := []byte{0, 1, 2, 3, 4, 5, 6, 7} // -8..-1 in offset binary
	packed := make([]byte, 4)
	if err := PackZeros(packed, zeros, 8, 1, 4); err != nil || binary.LittleEndian.Uint32(packed) != 0x76543210 {
		t.Errorf("%x, %v", packed, err)
	}
}

// packedBit reads one bit of the packed zero points by the definition: bit p of the stream of a column is bit p%32 of word p/32.
func packedBit(packed []byte, groups, group, p int) byte {
	word := binary.LittleEndian.Uint32(packed[4*(p/32*groups+group):])
	return byte(word >> (p % 32) & 1)
}

func TestPackingRoundTrips(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for bits := 2; bits <= 8; bits++ {
		for _, size := range [][2]int{{1, 1}, {8, 4}, {21, 3}, {33, 7}, {64, 5}} {
			rows, cols := size[0], size[1]
			codes := make([]byte, rows*cols)
			for i := range codes {
				codes[i] = byte(r.IntN(1 << bits))
			}
			zeros := make([]byte, PackedZeroBytes(rows, cols, bits))
			if err := PackZeros(zeros, codes, rows, cols, bits); err != nil {
				t.Fatal(err)
			}
			if len(zeros) != 4*cols*((rows*bits+31)/32) {
				t.Fatalf("%d bytes", len(zeros))
			}
			for g := range cols {
				for p := range len(zeros) / cols * 8 {
					want := byte(0)
					if row := p / bits; row < rows {
						want = codes[row*cols+g] >> (p % bits) & 1
					}
					if packedBit(zeros, cols, g, p) != want {
						t.Fatalf("%d bits, %v: bit %d of column %d", bits, size, p, g)
					}
				}
			}
			back := make([]byte, len(codes))
			if err := UnpackZeros(back, zeros, rows, cols, bits); err != nil || !bytes.Equal(back, codes) {
				t.Fatalf("%d bits, %v: zeros do not come back: %v", bits, size, err)
			}

			rowBytes := tensor.PackedRowBytes(cols, bits)
			packed := make([]byte, rows*rowBytes)
			for i := range rows {
				tensor.PackRow(packed[i*rowBytes:(i+1)*rowBytes], codes[i*cols:(i+1)*cols], bits)
			}
			signed := make([]byte, len(codes))
			if err := CodesToInt8(signed, packed, cols, bits); err != nil {
				t.Fatal(err)
			}
			for i, c := range codes {
				if int(int8(signed[i])) != int(c)-1<<(bits-1) {
					t.Fatalf("%d bits: code %d became %d", bits, c, int8(signed[i]))
				}
				if bits == 8 && signed[i] != c^0x80 {
					t.Fatalf("code %d became %d", c, signed[i])
				}
			}
			again := make([]byte, len(packed))
			if err := Int8ToCodes(again, signed, cols, bits); err != nil || !bytes.Equal(again, packed) {
				t.Fatalf("%d bits, %v: codes do not come back: %v", bits, size, err)
			}
			ZerosToInt8(signed, codes, bits)
			Int8ToZeros(signed, signed, bits)
			if !bytes.Equal(signed, codes) {
				t.Fatalf("%d bits: signed zeros do not come back", bits)
			}
		}
	}
}

func TestPackingRefuses(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"zeros short":    PackZeros(make([]byte, 4), make([]byte, 7), 8, 1, 4),
		"packed short":   PackZeros(make([]byte, 3), make([]byte, 8), 8, 1, 4),
		"unpack long":    UnpackZeros(make([]byte, 8), make([]byte, 8), 8, 1, 4),
		"no groups":      PackZeros(nil, nil, 8, 0, 4),
		"codes short":    CodesToInt8(make([]byte, 8), make([]byte, 3), 8, 4),
		"no columns":     CodesToInt8(nil, nil, 0, 4),
		"bits":           Int8ToCodes(nil, nil, 8, 9),
		"code too large": Int8ToCodes(make([]byte, 4), []byte{8}, 1, 4),
		"code too small": Int8ToCodes(make([]byte, 4), []byte{0xf7}, 1, 4),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestShapeData(t *testing.T) {
	t.Parallel()
	b := QuantizedLinear{Rows: 3, Cols: 5}.ShapeData()
	if !bytes.Equal(b, []byte{3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("%v", b)
	}
}
