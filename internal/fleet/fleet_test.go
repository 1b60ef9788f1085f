package fleet_test

import (
	"flag"
	"testing"
)

// TestFleetMakesTheSameBytes runs a job on a small fleet, undisturbed.
func TestFleetMakesTheSameBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.coordinator("c1")
	w.coordinator("c2")
	w.worker("w1")
	w.worker("w2")
	r := w.submit().well()
	if r.Totals.Run != len(w.plan.Units) || r.Totals.Reused != 0 || r.Totals.Failures != 0 {
		t.Errorf("totals %+v", r.Totals)
	}
	if r = w.submit().well(); r.Totals.Run != 0 || r.Totals.Reused != len(w.plan.Units) {
		t.Errorf("the second time: totals %+v", r.Totals)
	}
}

// TestMain runs more tests at once than there are processors: what they do is wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	m.Run()
}
