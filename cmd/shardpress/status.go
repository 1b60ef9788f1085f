package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// clientFlags are those of commands that ask a fleet.
type clientFlags struct {
	store storeFlags
	nats  natsFlags
}

func (f *clientFlags) register(c *cobra.Command) {
	f.store.register(c)
	f.nats.register(c)
}

// client connects to a fleet.
func (f *clientFlags) client(c *cobra.Command) (*fleet.Client, *queue.Queue, error) {
	store, err := f.store.open(c.Context())
	if err != nil {
		return nil, nil, err
	}
	log := newLogger(c.ErrOrStderr())
	q, err := f.nats.dial(c.Context(), "client", log)
	if err != nil {
		return nil, nil, err
	}
	return &fleet.Client{Store: store, Queue: q, Log: log}, q, nil
}

func newStatus() *cobra.Command {
	var flags clientFlags
	var watch, asJSON bool
	c := &cobra.Command{
		Use:   "status RUN",
		Short: "Show how a run of a fleet goes on",
		Long: `Show a run: what is done, who works on it and how fast, how long it will still
take, which tasks take longest, and which kind of worker it waits for. "last" stands
for the run that was submitted last.`,
		Example: `  shardpress status last --watch --nats nats://broker:4222 --store s3://models/fleet
  shardpress status 01JD5ZC0V7T9KQ3S1B2N4M6P8R --json --nats nats://broker:4222 --store s3://models/fleet`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, q, err := flags.client(c)
			if err != nil {
				return err
			}
			defer q.Close()
			run, err := runNamed(c.Context(), client.Store, args[0])
			if err != nil {
				return err
			}
			return showStatus(c, client, q, run, watch, asJSON)
		},
	}
	flags.register(c)
	c.Flags().BoolVar(&watch, "watch", false, "go on showing it until the run is over")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line each time")
	return c
}

// runNamed finds the run that is meant.
func runNamed(ctx context.Context, store objstore.Bucket, name string) (string, error) {
	if name != "last" {
		if !task.ValidToken(name) {
			return "", &usageError{fmt.Errorf("run %q: want the name of a run, as shardpress runs lists them, or last", name)}
		}
		return name, nil
	}
	runs, err := coordinator.Runs(ctx, store)
	if err != nil {
		return "", err
	}
	if len(runs) == 0 {
		return "", fmt.Errorf("last run: %w: no run was submitted to this store", objstore.ErrNotExist)
	}
	return runs[len(runs)-1], nil
}

// noSuchRun says what to do about a run that is not in the store.
func noSuchRun(err error) error {
	if errors.Is(err, objstore.ErrNotExist) {
		return fmt.Errorf("%w: there is no such run in the store; shardpress runs lists them", err)
	}
	return err
}

// statusEvery is how often a watched status is drawn.
const statusEvery = time.Second

func showStatus(c *cobra.Command, client *fleet.Client, q *queue.Queue, run string, watch, asJSON bool) error {
	ctx, w := c.Context(), c.OutOrStdout()
	drawn := 0
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		s, err := readStatus(ctx, client, q, run)
		if err != nil {
			return err
		}
		if asJSON {
			if err := json.NewEncoder(w).Encode(s); err != nil {
				return err
			}
		} else {
			text := s.render()
			if drawn > 0 {
				if isTerminal(w) {
					fmt.Fprintf(w, "\x1b[%dA\x1b[J", drawn) // over what was drawn before
				} else {
					text = "\n" + text
				}
			}
			fmt.Fprint(w, text)
			drawn = strings.Count(text, "\n")
		}
		if !watch || s.Record != nil {
			if s.Record != nil && watch {
				return fleet.Ended(s.Record)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil // watching was stopped, not the run
		case <-tick.C:
		}
	}
}

// status is all that is known of a run.
type status struct {
	Run      string                `json:"run"`
	State    string                `json:"state"`
	Snapshot *coordinator.Snapshot `json:"snapshot,omitempty"`
	Record   *coordinator.Record   `json:"record,omitempty"`
	Fleet    []*task.WorkerInfo    `json:"fleet,omitempty"`
}

func readStatus(ctx context.Context, client *fleet.Client, q *queue.Queue, run string) (*status, error) {
	s := &status{Run: run, State: "submitted"}
	r, err := coordinator.ReadRecord(ctx, client.Store, run)
	if err != nil {
		return nil, err
	}
	if r != nil {
		s.Record, s.State = r, r.State
		return s, nil
	}
	if _, err := coordinator.ReadSubmission(ctx, client.Store, run); err != nil {
		return nil, noSuchRun(err)
	}
	if s.Snapshot, err = client.Snapshot(ctx, run); err != nil {
		return nil, err
	}
	if s.Snapshot != nil {
		s.State = s.Snapshot.Phase
	}
	if s.Fleet, err = q.Workers(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// render writes a status for people.
func (s *status) render() string {
	var b strings.Builder
	switch {
	case s.Record != nil:
		renderRecord(&b, s.Record)
	case s.Snapshot == nil:
		fmt.Fprintf(&b, "run %s: submitted; no coordinator has taken it up yet\n", s.Run)
	default:
		s.renderLive(&b)
	}
	return b.String()
}

func renderRecord(w io.Writer, r *coordinator.Record) {
	fmt.Fprintf(w, "run %s: %s", r.Run, r.State)
	if r.Error != "" {
		fmt.Fprintf(w, ": %s", r.Error)
	}
	t := r.Totals
	fmt.Fprintf(w, "\n%s -> %s\n%d tasks: %d run, %d reused, %d unfinished; %d failed attempts, %d repairs; %s of source in %.1f s; workers %s\n",
		r.Model, r.Out, t.Tasks, t.Run, t.Reused, t.Unfinished, t.Failures, t.Repaired, formatBytes(t.SourceBytes), t.Elapsed, orNone(strings.Join(r.Workers, ", ")))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (s *status) renderLive(w io.Writer) {
	n := s.Snapshot
	fmt.Fprintf(w, "run %s: %s", n.Run, n.Phase)
	if n.Reason != "" {
		fmt.Fprintf(w, " (%s)", n.Reason)
	}
	fmt.Fprintf(w, ", coordinator %s\n%s -> %s by %s\n", n.Coordinator, n.Model, n.Out, n.Recipe)
	t := n.Tasks
	fmt.Fprintf(w, "bytes   %s %s of %s, %s/s, %s left\n", bar(n.DoneBytes, n.SourceBytes), formatBytes(n.DoneBytes), formatBytes(n.SourceBytes), formatBytes(int64(n.Rate)), left(n.Left))
	fmt.Fprintf(w, "tasks   %s %d of %d done (%d reused), %d running, %d queued, %d waiting, %d being placed\n", bar(int64(t.Done), int64(t.Total)), t.Done, t.Total, t.Reused, t.Running, t.Queued, t.Waiting, t.Placing)
	if t.Failures+t.Repaired+t.Twins+t.Audits > 0 {
		fmt.Fprintf(w, "trouble %d failed attempts, %d repairs, %d twins of stragglers, %d audits to come\n", t.Failures, t.Repaired, t.Twins, t.Audits)
	}
	for _, x := range n.Waits {
		fmt.Fprintf(w, "waits   %d tasks wait for a worker with %s or more for tasks, class %s, operation %s\n", x.Tasks, formatBytes(x.Memory), x.Class, x.Op)
	}
	rates := map[string]coordinator.SnapshotWorker{}
	for _, x := range n.Workers {
		rates[x.Name] = x
	}
	for _, i := range s.Fleet {
		state := "idle"
		if x, ok := rates[i.Name]; ok && x.Tasks > 0 {
			state = fmt.Sprintf("%d tasks, %s/s", x.Tasks, formatBytes(int64(x.Rate)))
		} else if others := slices.DeleteFunc(slices.Clone(i.Tasks), func(t task.WorkerTask) bool { return t.Run == n.Run }); len(others) > 0 {
			state = fmt.Sprintf("%d tasks of other runs", len(others))
		}
		if i.Draining {
			state += ", draining"
		}
		fmt.Fprintf(w, "worker  %-24s %s of memory, %d slots, %s, %s\n", i.Name, formatBytes(i.Memory), i.Slots, i.Kernel, state)
	}
	if len(s.Fleet) == 0 {
		fmt.Fprintln(w, "worker  none is there")
	}
	for _, x := range n.Slowest {
		fmt.Fprintf(w, "running %s %s %s on %s for %.0f s\n", bar(x.Bytes, x.Of), x.Task, x.File, x.Worker, x.Seconds)
	}
}

// bar draws how much of a whole is there.
func bar(n, of int64) string {
	const width = 24
	full := width
	if of > 0 {
		full = int(float64(width) * float64(min(n, of)) / float64(of))
	}
	return "[" + strings.Repeat("=", full) + strings.Repeat("-", width-full) + "]"
}

func left(seconds float64) string {
	if seconds < 0 {
		return "unknown time"
	}
	return (time.Duration(seconds) * time.Second).String()
}
