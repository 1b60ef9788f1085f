// Package telemetry lets a fleet be watched: traces and metrics over OTLP, metrics
// for Prometheus, and structured logs.
//
// # Traces
//
// A run is one tree. Coordinators, workers and submitters put their spans into it
// without telling each other, because the trace's ID and the ID of its root span
// follow from the run's name alone:
//
//	run                                    who finishes the run tells of it, from its beginning to its end
//	├─ run started                         by each coordinator that takes the run up
//	├─ plan
//	├─ send task.encode                    one publish; its context travels with the message
//	│   ├─ claimed task.encode             at the start of an attempt: all that a killed worker leaves
//	│   ├─ claimed task.encode             the next delivery
//	│   └─ process task.encode             child of the publish and linked to it; deliveries are siblings
//	├─ place
//	└─ assemble
//
// Viewers become slow at some thousand spans, so the tasks of a large run have a
// trace each, linked to the run.
//
// # Cost
//
// Without a collector configured and without an address for Prometheus nothing is
// collected. A collector that is down costs the run nothing: batches are dropped,
// and the log says so once.
//
// The package leaves the global providers of OpenTelemetry alone.
package telemetry
