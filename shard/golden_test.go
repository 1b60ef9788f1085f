package shard

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/internal/tensor"
)

// goldenArray is an array of testdata/compressedtensors.
type goldenArray struct {
	DType DType
	Shape []int64
	Data  hexBytes
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// golden is a linear that compressed-tensors itself stored; README.md beside the files says what is what.
type golden struct {
	Rows, Cols int64
	Format     Format
	Args       struct {
		Bits      int `json:"num_bits"`
		Strategy  string
		Symmetric bool
		Group     int64 `json:"group_size"`
	}
	Scale     goldenArray
	ZeroPoint *goldenArray `json:"zero_point"`
	Codes     goldenArray
	Stored    map[string]goldenArray
	Config    json.RawMessage `json:"quantization_config"`
}

func (g golden) linear() QuantizedLinear {
	return QuantizedLinear{Name: "m", Rows: g.Rows, Cols: g.Cols, Format: g.Format, Scheme: Scheme{Kind: KindInt, Bits: g.Args.Bits, Symmetric: g.Args.Symmetric, Strategy: g.Args.Strategy, Group: g.Args.Group, ScaleDType: g.Scale.DType}}
}

// store makes the bytes of a stored tensor from codes, scales and zero points in the form in which encoders give them.
func (g golden) store(t *testing.T, part Part) []byte {
	t.Helper()
	bits, cols := g.Args.Bits, int(g.Cols)
	offset := func(signed []byte) []byte {
		out := make([]byte, len(signed))
		Int8ToZeros(out, signed, bits)
		return out
	}
	switch part {
	case PartScales:
		return g.Scale.Data
	case PartShape:
		return g.linear().ShapeData()
	case PartZeros:
		zeros := offset(g.ZeroPoint.Data)
		out := make([]byte, len(zeros))
		if g.Format == FormatIntQuantized {
			ZerosToInt8(out, zeros, bits)
			return out
		}
		groups := int(g.linear().groups())
		out = make([]byte, PackedZeroBytes(int(g.Rows), groups, bits))
		if err := PackZeros(out, zeros, int(g.Rows), groups, bits); err != nil {
			t.Fatal(err)
		}
		return out
	}
	rowBytes := tensor.PackedRowBytes(cols, bits)
	codes, packed := offset(g.Codes.Data), make([]byte, int(g.Rows)*rowBytes)
	for r := range int(g.Rows) {
		tensor.PackRow(packed[r*rowBytes:(r+1)*rowBytes], codes[r*cols:(r+1)*cols], bits)
	}
	if g.Format == FormatPackQuantized {
		return packed
	}
	out := make([]byte, len(codes))
	if err := CodesToInt8(out, packed, cols, bits); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGoldenCompressedTensors(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(filepath.Join("testdata", "compressedtensors", "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var g golden
			if err := json.Unmarshal(b, &g); err != nil {
				t.Fatal(err)
			}
			tensors, err := g.linear().Tensors()
			if err != nil {
				t.Fatal(err)
			}
			if len(tensors) != len(g.Stored) {
				t.Errorf("%d tensors, want %d", len(tensors), len(g.Stored))
			}
			for _, x := range tensors {
				want, ok := g.Stored[x.Name[len("m."):]]
				if !ok || x.DType != want.DType || !slices.Equal(x.Shape, want.Shape) {
					t.Errorf("%s is %s %v, want %s %v", x.Name, x.DType, x.Shape, want.DType, want.Shape)
					continue
				}
				if got := g.store(t, x.Part); !bytes.Equal(got, want.Data) {
					t.Errorf("%s is\n%x, want\n%x", x.Name, got, want.Data)
				}
			}
			g.checkConfig(t)
		})
	}
}

// checkConfig compares what config.json would say with what compressed-tensors says, in every member that both have.
func (g golden) checkConfig(t *testing.T) {
	t.Helper()
	m, err := classified(t, "", bf16("model.embed_tokens.weight", 8, 8), bf16("model.layers.0.m.weight", g.Rows, g.Cols))
	if err != nil {
		t.Fatal(err)
	}
	q := g.linear()
	q.Name = "model.layers.0.m"
	if g.Format == FormatIntQuantized {
		q.Scheme.Activations = ActivationsInt8Token
	}
	config, err := QuantizationConfig(m, []QuantizedLinear{q})
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	for _, x := range []struct {
		from []byte
		to   *map[string]any
	}{{config, &got}, {g.Config, &want}} {
		if err := json.Unmarshal(x.from, x.to); err != nil {
			t.Fatal(err)
		}
	}
	compareShared(t, "quantization_config", got, want)
}

func compareShared(t *testing.T, at string, got, want map[string]any) {
	t.Helper()
	for key, w := range want {
		g, ok := got[key]
		if !ok {
			continue // members that older releases do not know, or that are empty
		}
		name := fmt.Sprintf("%s.%s", at, key)
		inner, isObject := w.(map[string]any)
		ours, oursToo := g.(map[string]any)
		switch {
		case isObject && oursToo:
			compareShared(t, name, ours, inner)
		case !reflect.DeepEqual(g, w):
			t.Errorf("%s is %v, want %v", name, g, w)
		}
	}
}
