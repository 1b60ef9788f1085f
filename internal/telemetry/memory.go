package telemetry

import runtimemetrics "runtime/metrics"

// goMemory is what the Go runtime has mapped and not given back, in bytes.
func goMemory() int64 {
	s := []runtimemetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	runtimemetrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
