package tensor

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkFP4Stream measures reading 256 MiB of BF16 weights and encoding them as 4-bit floats on one thread, turn by turn, and reports
// medians and shares of the bandwidth of reading, as BenchmarkStream does.
//
//	go test -run - -bench FP4Stream -benchtime 9x ./internal/tensor
func BenchmarkFP4Stream(b *testing.B) {
	const (
		cols = 4096
		size = 256 << 20
		rows = size / 2 / cols
	)
	src := hugeBytes(b, size)
	one := make([]byte, 1<<20)
	fillWeights(rand.New(rand.NewPCG(1, 1)), one, BF16, 0)
	for i := 0; i < size; i += len(one) {
		copy(src[i:], one)
	}
	codes, scales := hugeBytes(b, size/4), hugeBytes(b, size/32)
	sums := make([]float64, 2*rows)
	top := [1]uint32{}
	type contender struct {
		name string
		run  func()
	}
	contenders := []contender{
		{"read", func() { sinks.Add(sumWords(src)) }},
		{"top", func() { Detect().MaxMagnitudes(top[:], src, BF16, size/2) }},
	}
	for _, name := range Names()[1:] {
		k, err := ForName(name)
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range []fp4Scheme{{group: MXFP4Group}, {group: NVFP4Group, global: 30000}} {
			kind := map[int]string{MXFP4Group: "-mxfp4", NVFP4Group: "-nvfp4"}[s.group]
			contenders = append(contenders, contender{name + kind, func() {
				r := FP4Result{Codes: codes, Scales: scales, Error: sums[:rows], Power: sums[rows:]}
				if bad := k.encodeFP4(&r, src, BF16, rows, cols, s); bad >= 0 {
					b.Errorf("%s: bad row %d", name, bad)
				}
			}})
		}
	}
	times := make([][]time.Duration, len(contenders))
	for b.Loop() {
		for i, c := range contenders {
			times[i] = append(times[i], busy(c.run))
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
}
