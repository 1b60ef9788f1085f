package tensor

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"
)

func TestExp32(t *testing.T) {
	t.Parallel()
	worst := 0.0
	for i := range 400_000 {
		x := float32(-104 + float64(i)*(193.0/400_000))
		want := math.Exp(float64(x))
		have := Exp32(x)
		if want < 0x1p-126 {
			if math.Abs(float64(have)-want) > 0x1p-149 {
				t.Fatalf("Exp32(%v) = %v, want %v", x, have, want)
			}
			continue
		}
		if want > math.MaxFloat32 {
			if !math.IsInf(float64(have), 1) {
				t.Fatalf("Exp32(%v) = %v, want an infinity", x, have)
			}
			continue
		}
		unit := math.Ldexp(1, int(math.Floor(math.Log2(want)))-23)
		worst = max(worst, math.Abs(float64(have)-want)/unit)
	}
	if worst > 1 {
		t.Errorf("Exp32 errs by %.3f units in the last place", worst)
	}
	inf := float32(math.Inf(1))
	for _, c := range []struct{ x, want float32 }{
		{0, 1}, {inf, inf}, {-inf, 0}, {-1e30, 0}, {1e30, inf}, {float32(math.Copysign(0, -1)), 1}, {88.72283, 3.4027985e38},
	} {
		if have := Exp32(c.x); have != c.want {
			t.Errorf("Exp32(%v) = %v, want %v", c.x, have, c.want)
		}
	}
	if have := Exp32(float32(math.NaN())); have == have {
		t.Errorf("Exp32(NaN) = %v", have)
	}
}

func TestElementary64(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		x := r.Float64()*1400 - 700
		if have, want := Exp64(x), math.Exp(x); math.Abs(have-want) > 1e-15*want {
			t.Fatalf("Exp64(%v) = %v, want %v", x, have, want)
		}
		x = math.Exp(r.Float64()*200 - 100)
		if have, want := Log64(x), math.Log(x); math.Abs(have-want) > 1e-15*math.Max(math.Abs(want), 1e-1) {
			t.Fatalf("Log64(%v) = %v, want %v", x, have, want)
		}
		x = (r.Float64() - 0.5) * math.Exp(r.Float64()*20)
		sin, cos := SinCos64(x)
		if ws, wc := math.Sincos(x); math.Abs(sin-ws) > 1e-15 || math.Abs(cos-wc) > 1e-15 {
			t.Fatalf("SinCos64(%v) = %v, %v, want %v, %v", x, sin, cos, ws, wc)
		}
	}
	if s, c := SinCos64(math.Inf(1)); s == s || c == c {
		t.Error("SinCos64 of an infinity is a number")
	}
	if !math.IsInf(Log64(0), -1) || !math.IsNaN(Log64(-1)) || Log64(1) != 0 || Exp64(0) != 1 || Exp64(-800) != 0 || !math.IsInf(Exp64(800), 1) {
		t.Error("special values of Log64 and Exp64")
	}
}

// TestElementaryBits holds the words, which no kernel, GOAMD64 or architecture changes.
func TestElementaryBits(t *testing.T) {
	t.Parallel()
	h := fnv.New64a()
	put := func(x ...float32) {
		for _, v := range x {
			_ = binary.Write(h, binary.LittleEndian, math.Float32bits(v))
		}
	}
	put64 := func(x ...float64) {
		for _, v := range x {
			_ = binary.Write(h, binary.LittleEndian, math.Float64bits(v))
		}
	}
	const n = 333
	for _, name := range Names() {
		h.Reset()
		k, err := ForName(name)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(3, 4))
		x, y, w := make([]float32, 2*n), make([]float32, 2*n), make([]float32, n)
		for i := range x {
			x[i], y[i] = float32(r.Float64()*16-8), float32(r.Float64()*4-2)
			w[i/2] = x[i] + 1
			put(Exp32(10 * x[i]))
			s, c := SinCos64(float64(x[i]) * 1e4)
			put64(Exp64(float64(x[i])), Log64(math.Abs(float64(y[i]))), s, c)
		}
		k.RMSNorm(x, x, w, 1e-6)
		put(x...)
		put(k.ExpSum(x))
		k.SiLU(x, y)
		put(x...)
		k.Rotate(x, y[:n], w)
		put(x...)
		k.Softmax(0.3, x)
		put(x...)
		const want = 0xb712170e389f1bae
		if have := h.Sum64(); have != want {
			t.Errorf("kernel %s: digest %#x, want %#x", name, have, uint64(want))
		}
	}
}

func TestNormSoftmaxSiLU(t *testing.T) {
	t.Parallel()
	k := Detect()
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 2, 7, 64, 65, 333} {
		x, up, w := make([]float32, n), make([]float32, n), make([]float32, n)
		for i := range x {
			x[i], up[i], w[i] = float32(r.NormFloat64()*3), float32(r.NormFloat64()), float32(r.NormFloat64())
		}
		squares, sum := 0.0, 0.0
		for _, v := range x {
			squares += float64(v) * float64(v)
			sum += math.Exp(float64(v) / 2)
		}
		normed, soft, gated := make([]float32, n), append([]float32(nil), x...), append([]float32(nil), x...)
		k.RMSNorm(normed, x, w, 1e-5)
		k.Softmax(0.5, soft)
		k.SiLU(gated, up)
		most, total := k.ExpSum(x)
		log := 0.0
		for i, v := range x {
			d := float64(v)
			log += math.Exp(d)
			near(t, "RMSNorm", normed[i], d/math.Sqrt(squares/float64(n)+1e-5)*float64(w[i]))
			near(t, "Softmax", soft[i], math.Exp(d/2)/sum)
			near(t, "SiLU", gated[i], d/(1+math.Exp(-d))*float64(up[i]))
		}
		near(t, "ExpSum", float32(float64(most)+math.Log(float64(total))), math.Log(log))
	}
	bad := []float32{1, float32(math.NaN()), 3}
	k.Softmax(1, bad)
	if Finite(bad) != 0 || Finite([]float32{1, 2}) != -1 || Finite([]float32{1, float32(math.Inf(-1))}) != 1 {
		t.Error("a NaN is lost")
	}
	if most, sum := k.ExpSum(nil); !math.IsInf(float64(most), -1) || sum != 0 {
		t.Errorf("ExpSum of nothing is %v, %v", most, sum)
	}
}

func near(t *testing.T, what string, have float32, want float64) {
	t.Helper()
	if math.Abs(float64(have)-want) > 2e-6*math.Abs(want)+1e-30 {
		t.Fatalf("%s: %v, want %v", what, have, want)
	}
}
