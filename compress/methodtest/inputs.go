package methodtest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// Input is a matrix that methods are tried on.
type Input struct {
	Name    string
	Linear  compress.Linear
	Weights []float64 // rows × cols, row-major: exactly what Data holds
	Data    []byte    // the same in Linear.DType, little-endian
}

// NewInput makes an input of weights that are rounded to dtype: F64, F32, F16 or BF16.
func NewInput(name, dtype string, cols int, weights []float64) Input {
	l := compress.Linear{
		Name: "model.layers.0." + name, Rows: int64(len(weights) / cols), Cols: int64(cols), DType: dtype, Role: compress.RoleLinear,
	}
	in := Input{Name: name, Linear: l, Weights: slices.Clone(weights)}
	if dtype == "F64" {
		for _, w := range weights {
			in.Data = binary.LittleEndian.AppendUint64(in.Data, math.Float64bits(w))
		}
		return in
	}
	d, err := tensor.ParseDType(dtype)
	if err != nil {
		panic("methodtest: " + err.Error())
	}
	x := make([]float32, len(weights))
	for i, w := range weights {
		x[i] = float32(w)
	}
	in.Data = make([]byte, len(x)*d.Size())
	tensor.FromFloat32(in.Data, x, d)
	tensor.ToFloat32(x, in.Data, d)
	for i, v := range x {
		in.Weights[i] = float64(v)
	}
	return in
}

// with gives the input with another weight in one place.
func (in Input) with(row, col int, v float64) Input {
	w := slices.Clone(in.Weights)
	w[row*int(in.Linear.Cols)+col] = v
	return NewInput(in.Name, in.Linear.DType, int(in.Linear.Cols), w)
}

func (in Input) panel(from, to int) compress.Panel {
	n := len(in.Data) / int(in.Linear.Rows)
	return compress.Panel{
		Row: int64(from), Rows: to - from, Cols: int(in.Linear.Cols), DType: in.Linear.DType, Data: in.Data[from*n : to*n],
	}
}

// first gives the first random input of a dtype that m takes.
func first(m compress.Method, dtype string) *Input {
	for _, cols := range []int{256, 128, 48} {
		in := NewInput("weights", dtype, cols, random(9, cols, 5))
		if _, err := m.Layout(in.Linear); err == nil {
			return &in
		}
	}
	return nil
}

// random gives weights that are roughly normal, by additions only: the same on every machine.
func random(rows, cols int, seed uint64) []float64 {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	w := make([]float64, rows*cols)
	for i := range w {
		w[i] = (rng.Float64() + rng.Float64() + rng.Float64() + rng.Float64() - 2) / 16
	}
	return w
}

// Inputs gives the matrices that Run tries, each where the method takes its width.
func Inputs() []Input {
	var out []Input
	add := func(name, dtype string, cols int, w []float64) { out = append(out, NewInput(name, dtype, cols, w)) }
	fill := func(n int, f func(i int) float64) []float64 {
		w := make([]float64, n)
		for i := range w {
			w[i] = f(i)
		}
		return w
	}
	for _, dtype := range []string{"BF16", "F16", "F32", "F64"} {
		add("random "+dtype, dtype, 384, random(5, 384, 1))
	}
	add("zeros", "BF16", 128, make([]float64, 3*128))
	add("negative zeros", "BF16", 128, fill(3*128, func(i int) float64 { return math.Copysign(0, float64(i%3)-1) }))
	add("zero rows", "BF16", 128, append(make([]float64, 128), random(3, 128, 2)...))
	add("one value", "BF16", 128, fill(2*128, func(int) float64 { return 0.0371 }))
	add("one negative value", "F32", 128, fill(2*128, func(int) float64 { return -3 }))
	add("one weight", "F32", 1, []float64{0.7})
	add("one column", "BF16", 1, random(5, 1, 3))
	add("dead columns", "BF16", 128, fill(4*128, func(i int) float64 { return float64(i%128%2) * float64(i%13-6) }))
	add("all positive", "BF16", 128, fill(3*128, func(i int) float64 { return 1 + float64(i%31)/32 }))
	for _, cols := range []int{3, 31, 33, 172, 352} {
		add(fmt.Sprintf("%d columns", cols), "F32", cols, random(4, cols, uint64(cols)))
	}
	outlier := random(4, 256, 4)
	outlier[300] = 1e30
	add("outlier", "BF16", 256, outlier)
	outlier = random(4, 256, 4)
	outlier[300] = -60000
	add("outlier F16", "F16", 256, outlier)
	tiny := func(scale float64) []float64 {
		return fill(3*128, func(i int) float64 { return scale * float64(i%7-3) })
	}
	add("subnormal BF16", "BF16", 128, tiny(0x1p-133))
	add("subnormal F16", "F16", 128, tiny(0x1p-24))
	add("subnormal F32", "F32", 128, tiny(0x1p-149))
	// Halves of a step of a grid with 15 steps of 1/16: every rounding is a tie.
	add("ties", "BF16", 128, fill(2*128, func(i int) float64 {
		if i%128 == 0 {
			return 7.5 / 16
		}
		return (float64(i%15-7) + 0.5) / 16
	}))
	add("many rows", "BF16", 128, random(67, 128, 6))
	return out
}

// Digest is the SHA-256 of what m makes of Inputs: it changes when output bytes do.
func Digest(ctx context.Context, m compress.Method) (string, error) {
	h := sha256.New()
	for _, in := range Inputs() {
		layout, err := m.Layout(in.Linear)
		if err != nil {
			fmt.Fprintf(h, "%s refused\n", in.Name)
			continue
		}
		w, err := compress.NewWeights(in.Linear, in.Data)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %+v\n", in.Name, layout.Scheme)
		err = compress.Encode(ctx, m, w, compress.Options{PanelRows: int(in.Linear.Rows)}, func(e *compress.Encoded) error {
			for i, c := range layout.Components {
				fmt.Fprintf(h, "%s %s %d\n", c.Name, c.DType, c.Shape)
				h.Write(e.Data[i])
			}
			for i := range e.Error {
				fmt.Fprintf(h, "%x %x\n", math.Float64bits(e.Error[i]), math.Float64bits(e.Power[i]))
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
