package queue

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkIdleWorkers measures what a fleet without work costs its broker, which is a
// process of its own: go test -run - -bench IdleWorkers -benchtime 1x ./internal/queue
func BenchmarkIdleWorkers(b *testing.B) {
	const workers, seconds = 1000, 10
	for _, c := range []struct {
		connections int
		busy        bool // others are at work
	}{{1, false}, {100, false}, {workers, false}, {workers, true}} {
		connections := c.connections
		b.Run(fmt.Sprintf("connections=%d/busy=%v", connections, c.busy), func(b *testing.B) {
			for range b.N {
				p := startProcess(b, scratch(b), "127.0.0.1:0")
				if _, err := cpu(p.cmd.Process.Pid); err != nil {
					b.Skip("needs /proc")
				}
				ctx, stop := context.WithCancel(b.Context())
				var wg sync.WaitGroup
				queues := make([]*Queue, connections)
				for i := range queues {
					queues[i] = ready(b, Options{URL: p.url, AckWait: time.Hour})
				}
				if c.busy {
					publish(b, queues[0], message(2, 1))
					if _, err := queues[0].Next(ctx, fits(1<<40)); err != nil {
						b.Fatal(err)
					}
				}
				for i := range workers {
					wg.Go(func() {
						if _, err := queues[i%connections].Next(ctx, fits(1<<40)); ctx.Err() == nil {
							b.Error(err)
						}
					})
				}
				for _, q := range queues {
					idle(b, q, workers/connections)
				}
				// The pauses between looks have grown to their full length.
				<-time.After(4 * lookLate)
				before, _ := cpu(p.cmd.Process.Pid)
				<-time.After(seconds * time.Second)
				after, _ := cpu(p.cmd.Process.Pid)
				b.ReportMetric(float64((after-before).Milliseconds())/seconds, "cpu-ms/s")
				start := time.Now()
				publish(b, queues[0], message(1, 1))
				b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "publish-ms")
				stop()
				wg.Wait()
				p.kill()
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpu is the time that a process has had of the processors.
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
