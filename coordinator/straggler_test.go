package coordinator

import (
	"testing"
	"time"
)

func TestStraggles(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	same := func(n int, bytes int64, took time.Duration) *pace {
		p := &pace{}
		for range n {
			p.add(bytes, took)
		}
		return p
	}
	mixed := same(10, mib, 10*time.Second)
	for range 4 { // fewer than half: they do not move the median
		mixed.add(mib, time.Hour)
	}
	changed := same(maxSamples, mib, time.Hour)
	for range maxSamples { // what was long ago is forgotten
		changed.add(mib, 10*time.Second)
	}
	for name, c := range map[string]struct {
		pace  *pace
		bytes int64
		age   time.Duration
		want  bool
	}{
		"nothing known":                  {&pace{}, mib, time.Hour, false},
		"too few known":                  {same(stragglerSamples-1, mib, time.Second), mib, time.Hour, false},
		"enough known":                   {same(stragglerSamples, mib, time.Second), mib, time.Hour, true},
		"as long as its like":            {same(9, mib, 30*time.Second), mib, 30 * time.Second, false},
		"at the bound":                   {same(9, mib, 30*time.Second), mib, 120 * time.Second, false},
		"beyond the bound":               {same(9, mib, 30*time.Second), mib, 121 * time.Second, true},
		"larger takes longer":            {same(9, mib, 30*time.Second), 2 * mib, 121 * time.Second, false},
		"much slower, but over soon":     {same(9, mib, time.Millisecond), mib, stragglerLeast - 1, false},
		"much slower":                    {same(9, mib, time.Millisecond), mib, stragglerLeast, true},
		"some were slow":                 {mixed, mib, 41 * time.Second, true},
		"the fleet has become faster":    {changed, mib, 41 * time.Second, true},
		"tasks of no bytes":              {same(9, 0, time.Second), 0, time.Hour, true},
		"results that say they took 0 s": {same(9, mib, 0), mib, time.Hour, true},
		"results that lie":               {same(9, -1, -time.Hour), -1, time.Second, false},
	} {
		if got := c.pace.straggles(c.bytes, c.age); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPaceIsBounded(t *testing.T) {
	t.Parallel()
	p := &pace{}
	for range 10 * maxSamples {
		p.add(1, time.Second)
	}
	if len(p.samples) != maxSamples {
		t.Errorf("%d samples", len(p.samples))
	}
}
