package fleet_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// TestBadSubmissions puts into the store what no client of ours would. Each run ends
// as failed and says why, and the coordinator goes on.
func TestBadSubmissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	put := func(key, text string) {
		if _, err := w.store.Put(t.Context(), key, strings.NewReader(text), int64(len(text)), objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	changed := func(change func(*coordinator.Submission)) func(run string) string {
		return func(run string) string {
			s := w.submission()
			s.Version, s.Run, s.Out = 1, run, coordinator.ResultPrefix(run)
			change(s)
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
	}
	put("taken/other.txt", "somebody else's")
	cases := []struct {
		name string
		text func(run string) string
		want string
	}{
		{"empty", func(string) string { return "" }, "read run"},
		{"garbage", func(string) string { return "\x00\xff{" }, "read run"},
		{"list", func(string) string { return "[]" }, "read run"},
		{"newer", changed(func(s *coordinator.Submission) { s.Version = 2 }), "version 2, this program knows 1"},
		{"unknown field", func(run string) string {
			return strings.Replace(changed(func(*coordinator.Submission) {})(run), "{", `{"shards":3,`, 1)
		}, "shards"},
		{"another's name", changed(func(s *coordinator.Submission) { s.Run = coordinator.NewRun() }), "it says that it is run"},
		{"reserved place", changed(func(s *coordinator.Submission) { s.Out = "tasks/00" }), "its own"},
		{"another run's place", changed(func(s *coordinator.Submission) { s.Out = coordinator.ResultPrefix(coordinator.NewRun()) }), "its own"},
		{"place outside", changed(func(s *coordinator.Submission) { s.Out = "../x" }), "no key"},
		{"taken place", changed(func(s *coordinator.Submission) { s.Out = "taken" }), "not empty"},
		{"audit", changed(func(s *coordinator.Submission) { s.Audit = 2 }), "audit"},
		{"priority", changed(func(s *coordinator.Submission) { s.Priority = "first" }), "priority"},
		{"workers", changed(func(s *coordinator.Submission) { s.MaxWorkers = -1 }), "workers"},
		{"no recipe", changed(func(s *coordinator.Submission) { s.Recipe = json.RawMessage(`{}`) }), ""},
		{"unknown recipe", changed(func(s *coordinator.Submission) { s.Recipe = json.RawMessage(`{"name":"w0"}`) }), ""},
		{"recipe of another kind", changed(func(s *coordinator.Submission) { s.Recipe = json.RawMessage(`7`) }), ""},
		{"no source", changed(func(s *coordinator.Submission) { s.Source = "" }), ""},
		{"file of the machine", changed(func(s *coordinator.Submission) { s.Source = "file:///etc" }), ""},
		{"source that is not there", changed(func(s *coordinator.Submission) { s.Source = "store:nothing/here" }), ""},
		{"upload that is not there", changed(func(s *coordinator.Submission) { s.Source = "store:sources/" + strings.Repeat("0", 64) }), ""},
		{"hub", changed(func(s *coordinator.Submission) { s.Source = "hf://a/b@main" }), ""},
	}
	runs := make([]string, len(cases))
	for i, c := range cases {
		runs[i] = coordinator.NewRun()
		put(coordinator.RunKey(runs[i], "submit.json"), c.text(runs[i]))
		put("open/"+runs[i], "{}")
	}
	put("open/nobody", "{}")          // a run that gc has removed
	put("open/no name of a run", "?") // not ours
	w.coordinator("c1")
	w.worker("w1")
	good := w.submit()
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var r *coordinator.Record
			until(t, "the run is refused", func() bool {
				var err error
				if r, err = coordinator.ReadRecord(t.Context(), w.store, runs[i]); err != nil {
					t.Fatal(err)
				}
				return r != nil
			})
			if r.State != coordinator.StateFailed || r.Error == "" || !strings.Contains(r.Error, c.want) {
				t.Errorf("%+v, want it failed because of %q", r, c.want)
			}
			if err := fleet.Ended(r); !r.Invalid || !errors.Is(err, task.ErrInvalid) || !strings.Contains(err.Error(), r.Error) {
				t.Errorf("%+v gives %v, want an error of what was asked for", r, err)
			}
			w.closed(runs[i])
		})
	}
	w.closed("nobody")
	good.well()
}
