package tensor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkStreamKeep measures reading and pruning the same 128 MiB of BF16 weights, turn by turn, on one thread. It reports
// medians as shares of read bandwidth, in processor time.
//
//	go test -run - -bench StreamKeep -benchtime 10x ./internal/tensor
func BenchmarkStreamKeep(b *testing.B) {
	const (
		cols, size = 4096, 128 << 20
		rows       = size / 2 / cols
		panel      = 64 // rows: half a MiB
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
	for _, name := range Names() {
		k, err := ForName(name)
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range [][2]int{{2, 4}, {4, 8}} {
			r := newKeep(BF16, panel, cols, p[0], p[1])
			contenders = append(contenders, contender{fmt.Sprintf("%s-%dof%d", name, p[0], p[1]), func() {
				n := rows
				if name == "scalar" {
					n = panel // it would take most of the time
				}
				for row := 0; row < n; row += panel {
					if bad := k.KeepLargest(r, src[row*cols*2:][:panel*cols*2], BF16, panel, cols, p[0], p[1]); bad >= 0 {
						b.Errorf("%s: row %d is refused", name, bad)
					}
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
	var read float64
	for i, c := range contenders {
		slices.Sort(times[i])
		bytes := float64(size)
		if i > 0 && c.name[:3] == "sca" {
			bytes = panel * cols * 2
		}
		rate := bytes / times[i][len(times[i])/2].Seconds() / 1e9
		b.ReportMetric(rate, c.name+"-GB/s")
		if i == 0 {
			read = rate
		} else {
			b.ReportMetric(rate/read, c.name+"-ratio-to-read")
		}
	}
}
