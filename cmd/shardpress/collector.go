package main

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much garbage a run may leave for what is in use, in percent. What
// tasks work in is used again, so that there is little to collect even so; with Go's
// own 100 the peak would depend on how long a run lasts, and on its plan twice.
const gcPercent = 10

// collectOften sets it for the rest of the process, unless the environment says
// otherwise. It is for a run that is planned: planning leaves more garbage.
func collectOften() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
