package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"testing"

	"github.com/shardpress/shardpress/internal/tensor"
)

// TestFillIsPinned holds the bytes: measurements on synthetic checkpoints must mean the same next year.
func TestFillIsPinned(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind   kind
		dtype  tensor.DType
		digest string
	}{
		{weight, tensor.BF16, "33fbd4d2c8943741"},
		{norm, tensor.BF16, "5446c0a033198f14"},
		{weight, tensor.F16, "67e49a749d052324"},
		{weight, tensor.F32, "9fb130653577a50e"},
		{quarter, tensor.F8E4M3, "c6711fc09c883d9b"},
		{scale, tensor.F32, "8d699388adee755c"},
	}
	for _, test := range tests {
		dst := make([]byte, 1<<16)
		g := seed("model.layers.0.mlp.up_proj.weight")
		newPalette(test.kind, test.dtype).fill(dst, &g)
		sum := sha256.Sum256(dst)
		if got := hex.EncodeToString(sum[:8]); got != test.digest {
			t.Errorf("kind %d of %v: digest %s, want %s", test.kind, test.dtype, got, test.digest)
		}
	}
}

// TestFillInParts holds that whole steps may be drawn in any parts, and that the short end of a tensor is the beginning of a long one.
func TestFillInParts(t *testing.T) {
	t.Parallel()
	for _, dtype := range []tensor.DType{tensor.BF16, tensor.F32, tensor.F8E4M3} {
		p := newPalette(weight, dtype)
		step := drawn * dtype.Size()
		whole := make([]byte, 10*step)
		g := seed("a")
		p.fill(whole, &g)
		parts := make([]byte, 9*step+dtype.Size())
		g = seed("a")
		p.fill(parts[:3*step], &g)
		p.fill(parts[3*step:], &g)
		if !bytes.Equal(parts, whole[:len(parts)]) {
			t.Errorf("%v: in parts\n%x, at once\n%x", dtype, parts, whole)
		}
	}
}

// TestDistribution holds the spread of the weights, and that two tensors differ.
func TestDistribution(t *testing.T) {
	t.Parallel()
	const n = 1 << 16
	dst, other := make([]byte, 2*n), make([]byte, 2*n)
	g, h := seed("a"), seed("b")
	p := newPalette(weight, tensor.BF16)
	p.fill(dst, &g)
	p.fill(other, &h)
	if bytes.Equal(dst, other) {
		t.Error("two tensors have the same weights")
	}
	values := make([]float32, n)
	tensor.ToFloat32(values, dst, tensor.BF16)
	var sum, square float64
	for _, v := range values {
		sum += float64(v)
		square += float64(v) * float64(v)
	}
	if mean := sum / n; math.Abs(mean) > 5*spread/math.Sqrt(n) {
		t.Errorf("mean is %g", mean)
	}
	if deviation := math.Sqrt(square / n); math.Abs(deviation/spread-1) > 0.02 {
		t.Errorf("standard deviation is %g, want %g", deviation, spread)
	}
}

// TestE4M3 compares the rounding with a search for the nearest code.
func TestE4M3(t *testing.T) {
	t.Parallel()
	codes, values := make([]byte, 256), make([]float32, 256)
	for i := range codes {
		codes[i] = byte(i)
	}
	tensor.ToFloat32(values, codes, tensor.F8E4M3)
	for i := -50000; i <= 50000; i++ {
		v := float32(i) / 97
		got := values[toE4M3(v)]
		best := math.Inf(1)
		for _, w := range values {
			if distance := math.Abs(float64(w) - float64(v)); distance < best { // never for NaN
				best = distance
			}
		}
		if math.Abs(float64(got)-float64(v)) != best {
			t.Fatalf("%g becomes %g, which is not nearest", v, got)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	for name, dtype := range map[string]tensor.DType{"BF16": tensor.BF16, "F32": tensor.F32, "F8_E4M3": tensor.F8E4M3} {
		b.Run(name, func(b *testing.B) {
			p := newPalette(weight, dtype)
			dst := make([]byte, chunkBytes)
			g := seed("a")
			b.SetBytes(chunkBytes)
			for b.Loop() {
				p.fill(dst, &g)
			}
		})
	}
}
