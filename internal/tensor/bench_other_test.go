//go:build !linux

package tensor

import "time"

func busy(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
