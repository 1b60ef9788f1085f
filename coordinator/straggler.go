package coordinator

import (
	"slices"
	"time"
)

// A task is given to a second worker when it takes several times as long as its
// like. Fewer samples than minSamples say nothing, and what is over soon is not
// worth a second worker.
const (
	stragglerFactor  = 4
	stragglerSamples = 5
	stragglerLeast   = 20 * time.Second
)

// pace is how fast the tasks of a run were: seconds a byte of source, of the last
// ones that were finished.
type pace struct {
	samples []float64
	next    int
}

const maxSamples = 64

// add notes a task that was finished.
func (p *pace) add(bytes int64, took time.Duration) {
	sample := took.Seconds() / float64(max(bytes, 1))
	if len(p.samples) < maxSamples {
		p.samples = append(p.samples, sample)
		return
	}
	p.samples[p.next] = sample
	p.next = (p.next + 1) % maxSamples
}

// straggles reports whether a task of that many bytes that has been running for
// that long should have been done long ago.
func (p *pace) straggles(bytes int64, age time.Duration) bool {
	if len(p.samples) < stragglerSamples || age < stragglerLeast {
		return false
	}
	sorted := slices.Sorted(slices.Values(p.samples))
	median := sorted[len(sorted)/2]
	return age.Seconds() > stragglerFactor*median*float64(max(bytes, 1))
}
