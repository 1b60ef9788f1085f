package tensor

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// busy returns the processor time that f takes: other work on the machine counts
// only by the memory bandwidth it uses.
func busy(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
			panic(err)
		}
		return time.Duration(ts.Nano())
	}
	start := now()
	f()
	return now() - start
}
