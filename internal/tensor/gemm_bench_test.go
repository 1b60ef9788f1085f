package tensor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// gemmShape is a product that models ask for: tokens × inputs by a weight stored
// outputs × inputs, unless square says XᵀX.
type gemmShape struct {
	name    string
	m, n, k int
	square  bool
}

func (s gemmShape) flops() float64 {
	f := 2 * float64(s.m) * float64(s.n) * float64(s.k)
	if s.square {
		f /= 2
	}
	return f
}

// BenchmarkGEMM measures products and, turn by turn with them, a loop of nothing
// but fused multiply-adds. It reports medians in processor time of one thread,
// the share of that loop's speed, and what two threads gain in wall time.
//
//	go test -run - -bench GEMM -benchtime 5x ./internal/tensor
func BenchmarkGEMM(b *testing.B) {
	shapes := []gemmShape{
		{"512", 512, 512, 512, false},
		{"1024", 1024, 1024, 1024, false},
		{"2048x4096x4096", 2048, 4096, 4096, false},
		{"4096x4096x128", 4096, 4096, 128, false},
		{"128x4096x4096", 128, 4096, 4096, false},
		{"syrk4096x2048", 4096, 4096, 2048, true},
	}
	for _, name := range Names()[1:] {
		k, err := ForName(name)
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range shapes {
			b.Run(fmt.Sprintf("f32/%s/%s", name, s.name), func(b *testing.B) {
				benchGEMM(b, s, k.FMALoop, func(threads int, a, w, c []float32) {
					if s.square {
						k.SYRK(threads, s.n, s.k, a, s.n, c, s.n, false)
					} else {
						k.GEMM(threads, false, true, s.m, s.n, s.k, a, s.k, w, s.k, c, s.n, false)
					}
				})
			})
		}
		for _, s := range shapes {
			b.Run(fmt.Sprintf("f64/%s/%s", name, s.name), func(b *testing.B) {
				benchGEMM(b, s, k.FMALoop64, func(threads int, a, w, c []float64) {
					if s.square {
						k.SYRK64(threads, s.n, s.k, a, s.n, c, s.n, false)
					} else {
						k.GEMM64(threads, false, true, s.m, s.n, s.k, a, s.k, w, s.k, c, s.n, false)
					}
				})
			})
		}
	}
}

func benchGEMM[T float](b *testing.B, s gemmShape, peak func(turns int) int, call func(threads int, a, w, c []T)) {
	rng := rand.New(rand.NewPCG(1, 33))
	matrix := func(n int) []T {
		m := make([]T, n)
		for i := range m {
			m[i] = T(rng.Float32() - 0.5)
		}
		return m
	}
	a, w, c := matrix(s.m*s.k), matrix(s.n*s.k), matrix(s.m*s.n)
	call(1, a, w, c)
	// As many calls as make a tenth of a second.
	calls := 1 + int(1e10/s.flops())
	var loop, one, wall1, wall2 []time.Duration
	turns := 1 << 22
	operations := peak(turns)
	for b.Loop() {
		loop = append(loop, busy(func() { peak(turns) }))
		start := time.Now()
		one = append(one, busy(func() {
			for range calls {
				call(1, a, w, c)
			}
		}))
		wall1 = append(wall1, time.Since(start))
		start = time.Now()
		for range calls {
			call(2, a, w, c)
		}
		wall2 = append(wall2, time.Since(start))
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return d[len(d)/2].Seconds()
	}
	speed := s.flops() * float64(calls) / median(one)
	b.ReportMetric(speed/1e9, "GF/cpu-s")
	b.ReportMetric(speed*median(loop)/float64(operations), "of-peak")
	b.ReportMetric(median(wall1)/median(wall2), "gain-of-2")
}

// The peak is that of both units together: two threads of it take as long as one.
func BenchmarkFMALoop(b *testing.B) {
	k := Detect()
	const turns = 1 << 22
	operations := k.FMALoop(turns)
	for threads := 1; threads <= 2; threads++ {
		b.Run(fmt.Sprint(threads), func(b *testing.B) {
			start := time.Now()
			for b.Loop() {
				var wg sync.WaitGroup
				for range threads {
					wg.Go(func() { k.FMALoop(turns) })
				}
				wg.Wait()
			}
			b.ReportMetric(float64(b.N)*float64(threads)*float64(operations)/time.Since(start).Seconds()/1e9, "GF/s")
		})
	}
}
