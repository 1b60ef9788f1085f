//go:build !linux

package telemetry

// residentMemory is the process's memory in bytes.
func residentMemory() int64 { return goMemory() }
