package tensor

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkTableStream encodes 256 MiB of BF16 weights by a table of 16 numbers in panels, as a method does: the magnitudes of a panel, then its
// codes. It reports medians and the share of read bandwidth, on one thread, turn by turn.
//
//	go test -run - -bench TableStream -benchtime 9x ./internal/tensor
func BenchmarkTableStream(b *testing.B) {
	const (
		cols, block, panel = 4096, 64, TablePanel / 2 / 4096
		size               = 256 << 20
		rows               = size / 2 / cols
	)
	src := hugeBytes(b, size)
	rng := rand.New(rand.NewPCG(1, 1))
	one := make([]byte, 1<<20)
	fillWeights(rng, one, BF16, 0)
	for i := 0; i < size; i += len(one) {
		copy(src[i:], one)
	}
	type contender struct {
		name string
		run  func()
	}
	contenders := []contender{{"read", func() { sinks.Add(sumWords(src)) }}}
	r := TableResult{Codes: hugeBytes(b, panel*cols/2), Error: make([]float64, panel), Power: make([]float64, panel)}
	absmax := make([]float32, panel*cols/block)
	table := testTables()[3]
	for _, name := range Names()[1:] {
		k, err := ForName(name)
		if err != nil {
			b.Fatal(err)
		}
		pass := func(encode bool) func() {
			return func() {
				for at := 0; at < rows; at += panel {
					part := src[at*cols*2:][:panel*cols*2]
					if bad := k.RunsAbsmax(absmax, part, BF16, block); bad >= 0 {
						b.Errorf("%s: bad run %d", name, bad)
					}
					if encode {
						k.EncodeTable(&r, part, BF16, panel, cols, block, absmax, absmax, table)
					}
				}
			}
		}
		contenders = append(contenders, contender{name + "-absmax", pass(false)}, contender{name, pass(true)})
	}
	times := make([][]time.Duration, len(contenders))
	for _, c := range contenders {
		c.run()
	}
	for b.Loop() {
		for i, c := range contenders {
			times[i] = append(times[i], busy(c.run))
		}
	}
	var read float64
	for i, c := range contenders {
		slices.Sort(times[i])
		rate := size / times[i][len(times[i])/2].Seconds() / 1e9
		b.ReportMetric(rate, c.name+"-GB/s")
		if i == 0 {
			read = rate
		} else {
			b.ReportMetric(rate/read, c.name+"-ratio-to-read")
		}
	}
	b.SetBytes(size * int64(len(contenders)))
}
