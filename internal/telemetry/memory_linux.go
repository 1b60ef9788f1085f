package telemetry

import (
	"bytes"
	"os"
	"strconv"
)

// residentMemory is the process's memory in bytes that is in RAM.
func residentMemory() int64 {
	b, err := os.ReadFile("/proc/self/statm") // proc(5): size, resident, ... in pages
	if err != nil {
		return goMemory()
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return goMemory()
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return goMemory()
	}
	return pages * int64(os.Getpagesize())
}
