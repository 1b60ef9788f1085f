package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

const aRun = "01M85CJW8MD8E5AWKNN0KFTENN"

func aSubmission() *Submission {
	return &Submission{Version: submissionVersion, Run: aRun, Recipe: json.RawMessage(`{}`), Source: "store:x", Out: ResultPrefix(aRun)}
}

func TestSubmissionCheck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Submission)
		want   string // "" if it is good
	}{
		"as it is":            {func(*Submission) {}, ""},
		"elsewhere":           {func(s *Submission) { s.Out = "results/story" }, ""},
		"every option":        {func(s *Submission) { s.Audit, s.MaxWorkers, s.Priority = 1, 1000, PriorityLow }, ""},
		"no name":             {func(s *Submission) { s.Run = "" }, "no ULID"},
		"name is a path":      {func(s *Submission) { s.Run = "../" + aRun }, "no ULID"},
		"version":             {func(s *Submission) { s.Version = 0 }, "version 0"},
		"a newer version":     {func(s *Submission) { s.Version = 9 }, "version 9"},
		"audit below 0":       {func(s *Submission) { s.Audit = -0.01 }, "audit"},
		"audit above 1":       {func(s *Submission) { s.Audit = 1.01 }, "audit"},
		"audit is no number":  {func(s *Submission) { s.Audit = math.NaN() }, "audit"},
		"fewer than 0":        {func(s *Submission) { s.MaxWorkers = -1 }, "workers"},
		"priority":            {func(s *Submission) { s.Priority = "HIGH" }, "priority"},
		"no place":            {func(s *Submission) { s.Out = "" }, "no key"},
		"absolute":            {func(s *Submission) { s.Out = "/results" }, "no key"},
		"up":                  {func(s *Submission) { s.Out = "a/../../b" }, "no key"},
		"not clean":           {func(s *Submission) { s.Out = "a//b" }, "no key"},
		"slash at the end":    {func(s *Submission) { s.Out = "a/" }, "no key"},
		"tasks":               {func(s *Submission) { s.Out = "tasks" }, "its own"},
		"below tasks":         {func(s *Submission) { s.Out = "tasks/00" }, "its own"},
		"below sources":       {func(s *Submission) { s.Out = "sources/x" }, "its own"},
		"the clock":           {func(s *Submission) { s.Out = "clock" }, "its own"},
		"open runs":           {func(s *Submission) { s.Out = "open/x" }, "its own"},
		"hidden":              {func(s *Submission) { s.Out = ".objstore" }, "no key"},
		"the run's other":     {func(s *Submission) { s.Out = "runs/" + aRun + "/attempts" }, "its own"},
		"below its result":    {func(s *Submission) { s.Out = ResultPrefix(aRun) + "/x" }, "its own"},
		"another run's place": {func(s *Submission) { s.Out = ResultPrefix(strings.ToLower(aRun)) }, "its own"},
	} {
		s := aSubmission()
		c.change(s)
		err := s.check()
		switch {
		case c.want == "" && err != nil, c.want != "" && err == nil:
			t.Errorf("%s: %v", name, err)
		case err != nil && (!errors.Is(err, task.ErrInvalid) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestSubmitOnce submits twice, as a client does whose first answer was lost: what
// was stored first stays.
func TestSubmitOnce(t *testing.T) {
	t.Parallel()
	store, err := objstore.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"store:first", "store:second"} {
		s := aSubmission()
		s.Source = source
		if err := Submit(t.Context(), store, s); err != nil {
			t.Fatal(err)
		}
	}
	s, err := ReadSubmission(t.Context(), store, aRun)
	if err != nil || s.Source != "store:first" {
		t.Errorf("%+v, %v", s, err)
	}
	runs, err := OpenRuns(t.Context(), store)
	if err != nil || len(runs) != 1 || runs[0] != aRun {
		t.Errorf("open runs %q, %v", runs, err)
	}
	for _, run := range []string{"", "../x", "a/b", strings.Repeat("a", 1000)} {
		if _, err := ReadSubmission(t.Context(), store, run); !errors.Is(err, task.ErrInvalid) {
			t.Errorf("run %q: %v", run, err)
		}
	}
}

func FuzzReadSubmission(f *testing.F) {
	good, err := json.Marshal(aSubmission())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"run":"` + aRun + `","out":"../x"}`))
	f.Add([]byte(`{"version":1,"run":"x","audit":1e400}`))
	f.Add([]byte("[[[[[["))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ReadSubmission(t.Context(), holding{b: b}, aRun)
		switch {
		case err != nil && !errors.Is(err, task.ErrInvalid):
			t.Errorf("%v is not said to be invalid", err) // else it would be tried for ever
		case err == nil && (s.Run != aRun || s.check() != nil || reserved(s.Out) && s.Out != ResultPrefix(aRun)):
			t.Errorf("accepted: %+v", s)
		}
	})
}

// holding is a bucket in which every object has these bytes.
type holding struct {
	objstore.Bucket
	b []byte
}

func (h holding) Get(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(h.b)), nil
}
