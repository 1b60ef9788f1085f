package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Submission is what somebody wants of a fleet: runs/<run>/submit.json. It is
// content from outside: every coordinator checks it again.
type Submission struct {
	Version int    `json:"version"`
	Run     string `json:"run"`
	// Recipe is the canonical form of the resolved recipe.
	Recipe json.RawMessage `json:"recipe"`
	// Source is the location of the checkpoint, as internal/source reads it.
	Source string `json:"source"`
	// Out is the prefix below the store's at which the result is put together.
	Out string `json:"out"`
	// NoReuse runs every task although its result exists.
	NoReuse bool `json:"no_reuse,omitempty"`
	// KeepGoing does what can still be done after a task has failed for good.
	KeepGoing bool `json:"keep_going,omitempty"`
	// Audit is the share of tasks that are run again on another worker, 0 to 1.
	Audit float64 `json:"audit,omitempty"`
	// Priority is one of the constants below.
	Priority string `json:"priority,omitempty"`
	// MaxWorkers bounds the tasks of the run that are worked on at a time; 0 does not.
	MaxWorkers int `json:"max_workers,omitempty"`
	// Request says for people what was asked for; its "model" and "out" go into the
	// run's record.
	Request map[string]any `json:"request,omitempty"`
}

// Priorities of runs: how large a share of the fleet they get beside others.
const (
	PriorityLow    = "low"
	PriorityNormal = "normal"
	PriorityHigh   = "high"
)

const (
	submissionVersion = 1
	maxSubmission     = 16 << 20
)

// Names of a run's objects below runs/<run>/.
const (
	submitName = "submit.json"
	cancelName = "cancel"
	stateName  = "state.json"
	resultName = "result"
)

// RunKey is where a run keeps the object of that name.
func RunKey(run, name string) string { return "runs/" + run + "/" + name }

// openKey is the entry of a run in the short list of those that are not over. The
// list saves going through all runs that ever were; what is in it counts only with
// the run's own objects.
func openKey(run string) string { return "open/" + run }

// ResultPrefix is where a run's result is put together unless it is wanted
// elsewhere in the store.
func ResultPrefix(run string) string { return RunKey(run, resultName) }

// Check refuses what Submit would refuse, before a client has sent a model for it.
func (s *Submission) Check() error {
	s.Version = submissionVersion
	return s.check()
}

// check refuses what can never be carried out.
func (s *Submission) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("run %q: %w: %s", s.Run, task.ErrInvalid, fmt.Sprintf(format, args...))
	}
	if _, err := ulid.ParseStrict(s.Run); err != nil {
		return bad("its name is no ULID")
	}
	switch {
	case s.Version != submissionVersion:
		return bad("version %d, this program knows %d", s.Version, submissionVersion)
	case math.IsNaN(s.Audit) || s.Audit < 0 || s.Audit > 1:
		return bad("audit of %v: want a share from 0 to 1", s.Audit)
	case s.MaxWorkers < 0:
		return bad("at most %d workers", s.MaxWorkers)
	case s.Priority != "" && s.Priority != PriorityLow && s.Priority != PriorityNormal && s.Priority != PriorityHigh:
		return bad("priority %q: want low, normal or high", s.Priority)
	case objstore.CheckKey(s.Out) != nil || path.Clean(s.Out) != s.Out:
		return bad("result below %q: no key", s.Out)
	case s.Out != ResultPrefix(s.Run) && reserved(s.Out):
		return bad("result below %q: that part of the store is its own", s.Out)
	}
	return nil
}

// reserved reports whether a key lies where the store keeps its own objects.
func reserved(key string) bool {
	first, _, _ := strings.Cut(key, "/")
	switch first {
	case "tasks", "runs", "open", "sources", "clock":
		return true
	}
	return strings.HasPrefix(first, ".")
}

// weight is the share of a run beside one of normal priority.
func (s *Submission) weight() float64 {
	switch s.Priority {
	case PriorityHigh:
		return 4
	case PriorityLow:
		return 0.25
	}
	return 1
}

// NewRun names a run.
func NewRun() string { return ulid.Make().String() }

// Submit stores what is wanted. When it returns the run will be carried out by
// whichever coordinator of the store finds it, even if there is none yet.
func Submit(ctx context.Context, store objstore.Bucket, s *Submission) error {
	if err := s.Check(); err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("submit run %s: %w", s.Run, err)
	}
	put := func(key string, b []byte) error {
		_, err := store.Put(ctx, key, bytes.NewReader(b), int64(len(b)), objstore.PutOptions{IfAbsent: true})
		if err != nil && !errors.Is(err, objstore.ErrExist) { // a put that was asked twice finds itself
			return fmt.Errorf("submit run %s: %w", s.Run, err)
		}
		return nil
	}
	if err := put(RunKey(s.Run, submitName), b); err != nil {
		return err
	}
	return put(openKey(s.Run), []byte("{}"))
}

// ReadSubmission reads what was asked of a run.
func ReadSubmission(ctx context.Context, store objstore.Bucket, run string) (*Submission, error) {
	if !task.ValidToken(run) {
		return nil, fmt.Errorf("run %q: %w: no name of a run", run, task.ErrInvalid)
	}
	b, err := objstore.ReadAll(ctx, store, RunKey(run, submitName), maxSubmission)
	if err != nil {
		return nil, fmt.Errorf("read run %s: %w", run, err)
	}
	var s Submission
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a newer program asks for something that this one would leave out
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("read run %s: %w: %w", run, task.ErrInvalid, err)
	}
	if s.Run != run {
		return nil, fmt.Errorf("read run %s: %w: it says that it is run %q", run, task.ErrInvalid, s.Run)
	}
	return &s, s.check()
}

// Cancel asks for the end of a run. Whoever drives it will see it, now or when it
// comes back.
func Cancel(ctx context.Context, store objstore.Bucket, run string) error {
	if _, err := ReadSubmission(ctx, store, run); err != nil {
		return err
	}
	over, err := exists(ctx, store, RunKey(run, stateName))
	if err != nil {
		return err
	}
	if over {
		return fmt.Errorf("cancel run %s: %w", run, ErrOver)
	}
	_, err = store.Put(ctx, RunKey(run, cancelName), strings.NewReader("{}"), 2, objstore.PutOptions{})
	if err != nil {
		return fmt.Errorf("cancel run %s: %w", run, err)
	}
	return nil
}

// Errors about the end of runs.
var (
	ErrOver      = errors.New("the run is over")
	ErrCancelled = errors.New("the run was cancelled")
)

// OpenRuns lists the runs that are not over, oldest first.
func OpenRuns(ctx context.Context, store objstore.Bucket) ([]string, error) {
	var runs []string
	for info, err := range store.List(ctx, "open/") {
		if err != nil {
			return nil, fmt.Errorf("list open runs: %w", err)
		}
		if run := strings.TrimPrefix(info.Key, "open/"); task.ValidToken(run) {
			runs = append(runs, run)
		}
	}
	return runs, nil
}

// closeRun takes a run that is over off the list.
func closeRun(ctx context.Context, store objstore.Bucket, run string) error {
	if err := store.Delete(ctx, openKey(run)); err != nil {
		return fmt.Errorf("close run %s: %w", run, err)
	}
	return nil
}

// ReadRecord reads how a run ended; nil if it is not over.
func ReadRecord(ctx context.Context, store objstore.Bucket, run string) (*Record, error) {
	b, err := objstore.ReadAll(ctx, store, RunKey(run, stateName), maxDocument)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record of run %s: %w", run, err)
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read record of run %s: %w: %w", run, task.ErrInvalid, err)
	}
	return &r, nil
}

func exists(ctx context.Context, store objstore.Bucket, key string) (bool, error) {
	_, err := store.Stat(ctx, key)
	if errors.Is(err, objstore.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", key, err)
	}
	return true, nil
}

// Runs lists the runs of a store, oldest first.
func Runs(ctx context.Context, store objstore.Bucket) ([]string, error) {
	var runs []string
	for info, err := range store.List(ctx, "runs/") {
		if err != nil {
			return nil, fmt.Errorf("list runs: %w", err)
		}
		run, name, _ := strings.Cut(strings.TrimPrefix(info.Key, "runs/"), "/")
		if _, err := ulid.ParseStrict(run); err == nil && name == submitName {
			runs = append(runs, run)
		}
	}
	return runs, nil
}
