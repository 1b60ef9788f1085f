package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sinks keeps results that nothing else uses.
var sinks atomic.Uint64

// sumWords reads everything: the yardstick of the streaming kernels.
func sumWords(p []byte) uint64 {
	var a, b, c, d uint64
	for ; len(p) >= 64; p = p[64:] {
		q := p[:64]
		a += binary.LittleEndian.Uint64(q) + binary.LittleEndian.Uint64(q[8:])
		b += binary.LittleEndian.Uint64(q[16:]) + binary.LittleEndian.Uint64(q[24:])
		c += binary.LittleEndian.Uint64(q[32:]) + binary.LittleEndian.Uint64(q[40:])
		d += binary.LittleEndian.Uint64(q[48:]) + binary.LittleEndian.Uint64(q[56:])
	}
	return a + b + c + d
}

func hugeBytes(tb testing.TB, n int) []byte {
	b, err := NewBuffer(n)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Free(); err != nil {
			tb.Error(err)
		}
	})
	p := b.Bytes()
	for i := 0; i < len(p); i += 4096 {
		p[i] = 1
	}
	return p
}

// BenchmarkStream measures reading, copying and encoding the same 256 MiB of
// BF16 weights, turn by turn, so that a busy machine disturbs them alike. It
// reports medians and the share of read bandwidth, on one and two threads, in
// processor time of the slower thread.
//
//	go test -run - -bench Stream -benchtime 15x ./internal/tensor
func BenchmarkStream(b *testing.B) {
	const (
		cols, group = 4096, 128
		size        = 256 << 20
		rows        = size / 2 / cols
	)
	src, dst := hugeBytes(b, size), hugeBytes(b, size)
	rng := rand.New(rand.NewPCG(1, 1))
	one := make([]byte, 1<<20)
	fillWeights(rng, one, BF16, 0)
	for i := 0; i < size; i += len(one) {
		copy(src[i:], one)
	}
	codes, scales := hugeBytes(b, size/4), hugeBytes(b, size/group)
	sums := make([]float64, 2*rows)
	type contender struct {
		name string
		run  func(first, n int) // rows
	}
	contenders := []contender{
		{"read", func(first, n int) { sinks.Add(sumWords(src[first*cols*2:][:n*cols*2])) }},
		{"copy", func(first, n int) { copy(dst[first*cols*2:], src[first*cols*2:][:n*cols*2]) }},
		{"widen", func(first, n int) {
			w := make([]float32, 1<<14)
			for i := range n * cols / len(w) {
				ToFloat32(w, src[first*cols*2+i*len(w)*2:], BF16)
			}
		}},
	}
	for _, name := range Names()[1:] {
		k, err := ForName(name)
		if err != nil {
			b.Fatal(err)
		}
		encode := func(panel int, keep bool) func(first, n int) {
			return func(first, n int) {
				for at := first; at < first+n; at += panel {
					m := min(panel, first+n-at)
					to := at
					if !keep { // the codes of every panel go to the same place
						to = first
					}
					r := GroupResult{
						Codes: codes[to*cols/2:][:m*cols/2], Scales: scales[to*cols/group*2:][:m*cols/group*2],
						Error: sums[at:][:m], Power: sums[rows+at:][:m],
					}
					if bad := k.EncodeGroups(&r, src[at*cols*2:][:m*cols*2], BF16, m, cols, group, 4, BF16); bad >= 0 {
						b.Errorf("%s: bad row %d", name, bad)
					}
				}
			}
		}
		contenders = append(contenders,
			contender{name + "-keep", encode(256, true)},
			contender{name + "-reuse", encode(256, false)},
			contender{name + "-e4m3", func(first, n int) {
				for row := first; row < first+n; row++ {
					top := []uint32{0}
					data := src[row*cols*2:][:cols*2]
					k.MaxMagnitudes(top, data, BF16, cols)
					sums[row], sums[rows+row] = k.EncodeFloat8(codes[row%16*cols:][:cols], data, BF16, []float32{math.Float32frombits(top[0]) / MaxE4M3}, F8E4M3)
				}
			}},
		)
	}
	for threads := 1; threads <= 2; threads++ {
		b.Run(fmt.Sprintf("threads%d", threads), func(b *testing.B) {
			times := make([][]time.Duration, len(contenders))
			once := func(c contender) time.Duration {
				var wg sync.WaitGroup
				n := rows / threads
				took := make([]time.Duration, threads)
				for t := range threads {
					wg.Go(func() { took[t] = busy(func() { c.run(t*n, n) }) })
				}
				wg.Wait()
				return slices.Max(took)
			}
			for _, c := range contenders {
				once(c)
			}
			for b.Loop() {
				for i, c := range contenders {
					times[i] = append(times[i], once(c))
				}
			}
			rate := make([]float64, len(contenders))
			for i, c := range contenders {
				slices.Sort(times[i])
				rate[i] = size / times[i][len(times[i])/2].Seconds() / 1e9
				b.ReportMetric(rate[i], c.name+"-GB/s")
				if i > 0 {
					b.ReportMetric(rate[i]/rate[0], c.name+"-ratio-to-read")
				}
			}
			b.SetBytes(size * int64(len(contenders)))
		})
	}
}

// BenchmarkEncodeGroups runs in cache: what the instructions alone cost.
func BenchmarkEncodeGroups(b *testing.B) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, name := range Names() {
		k, err := ForName(name)
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range []panel{
			{d: BF16, scale: BF16, bits: 4, group: 128},
			{d: BF16, scale: BF16, bits: 4, group: 32},
			{d: BF16, scale: BF16, bits: 8, group: 4096},
			{d: BF16, scale: BF16, bits: 3, group: 128},
			{d: BF16, scale: F32, bits: 4, group: 128},
			{d: F16, scale: F16, bits: 4, group: 128},
			{d: F32, scale: BF16, bits: 4, group: 128},
		} {
			p.rows, p.cols = 4, 4096
			p.src = make([]byte, p.rows*p.cols*p.d.Size())
			fillWeights(rng, p.src, p.d, 0)
			r := p.result()
			b.Run(fmt.Sprintf("%s/%v-%v-int%d-g%d", name, p.d, p.scale, p.bits, p.group), func(b *testing.B) {
				b.SetBytes(int64(len(p.src)))
				took := busy(func() {
					for b.Loop() {
						p.encode(k, r)
					}
				})
				b.ReportMetric(float64(len(p.src))*float64(b.N)/took.Seconds()/1e9, "GB/cpu-s")
			})
		}
	}
}
