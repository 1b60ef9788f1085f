package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// submitFlags are those of a compress that a fleet carries out.
type submitFlags struct {
	store      storeFlags
	nats       natsFlags
	priority   string
	maxWorkers int
	audit      string
	keepGoing  bool
	detach     bool
}

func (f *submitFlags) register(c *cobra.Command) {
	f.store.registerS3(c)
	f.nats.register(c)
	// The variable alone makes no fleet's work of a command that could be this machine's.
	c.Flags().Lookup("nats").Usage = "URL of the fleet's broker, such as nats://host:4222 or tls://host:4222; without it the work is done on this machine"
	c.Flags().StringVar(&f.priority, "priority", coordinator.PriorityNormal, "on a fleet: share beside other runs: low, normal or high")
	c.Flags().IntVar(&f.maxWorkers, "max-workers", 0, "on a fleet: tasks that are worked on at a time, at most (default no bound)")
	c.Flags().StringVar(&f.audit, "audit", "0", "on a fleet: share of the tasks to run again on another worker, to compare the bytes, such as 1%")
	c.Flags().BoolVar(&f.keepGoing, "keep-going", false, "on a fleet: when a task fails for good, do the others all the same and report all failures together")
	c.Flags().BoolVar(&f.detach, "detach", false, "on a fleet: submit the run and leave; --out must be in the store")
}

// fleet reports whether the work is a fleet's.
func (f *submitFlags) fleet(c *cobra.Command) (bool, error) {
	if c.Flags().Changed("nats") {
		return true, nil
	}
	for _, name := range []string{"priority", "max-workers", "audit", "keep-going", "detach", "s3-endpoint"} {
		if c.Flags().Changed(name) {
			return false, &usageError{fmt.Errorf("--%s is for a fleet: name its broker with --nats", name)}
		}
	}
	return false, nil
}

// parseShare reads 1% or 0.01.
func parseShare(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, errors.New("want a share such as 1% or 0.01")
	}
	return v, nil
}

// below gives the key of an S3 URL that lies below the store's.
func (f *submitFlags) below(flag, url string) (string, error) {
	key, ok := strings.CutPrefix(url, strings.TrimSuffix(f.store.store, "/")+"/")
	key = strings.TrimSuffix(key, "/")
	if !ok || objstore.CheckKey(key) != nil {
		return "", &usageError{fmt.Errorf("%s %s: want a place below the store, %s/...: workers reach nothing else", flag, url, strings.TrimSuffix(f.store.store, "/"))}
	}
	return key, nil
}

// submission is a compress that a fleet is to carry out.
type submission struct {
	*submitFlags
	c      *cobra.Command
	job    *local.Job
	out    string // as the user called it
	json   bool
	report string

	client *fleet.Client
	ck     *shard.Checkpoint
	plan   *coordinator.Plan
	sub    *coordinator.Submission
	view   view
}

// submit hands a job to a fleet and watches it.
func (s *submission) run() error {
	ctx := s.c.Context()
	s.store.store = orEnv(s.job.Store, envStore)
	share, err := parseShare(s.audit)
	if err != nil {
		return &usageError{fmt.Errorf("--audit %s: %w", s.audit, err)}
	}
	if s.maxWorkers < 0 {
		return &usageError{fmt.Errorf("--max-workers %d: want 1 or more, or 0 for no bound", s.maxWorkers)}
	}
	switch s.priority {
	case coordinator.PriorityLow, coordinator.PriorityNormal, coordinator.PriorityHigh:
	default:
		return &usageError{fmt.Errorf("--priority %s: want low, normal or high", s.priority)}
	}
	store, err := s.store.open(ctx)
	if err != nil {
		return err
	}
	q, err := s.nats.dial(ctx, "client", s.job.Log)
	if err != nil {
		return err
	}
	defer q.Close()
	s.client = &fleet.Client{Store: s.job.Telemetry.Bucket(store), Queue: q, Log: s.job.Log}
	location, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer s.ck.Close() //nolint:errcheck // opened for reading
	run := coordinator.NewRun()
	s.sub = &coordinator.Submission{
		Run: run, Out: coordinator.ResultPrefix(run), NoReuse: s.job.NoReuse, KeepGoing: s.keepGoing, Audit: share, Priority: s.priority, MaxWorkers: s.maxWorkers,
		Request: map[string]any{"model": s.ck.Location(), "out": s.out, "recipe": s.job.Recipe.Name},
	}
	if s.sub.Recipe, err = s.job.Recipe.Canonical(); err != nil {
		return err
	}
	var place *local.Place
	switch {
	case isS3(s.out):
		if s.sub.Out, err = s.below("--out", s.out); err != nil {
			return err
		}
		if err := s.sub.Check(); err != nil { // before a model is uploaded in vain
			return &usageError{fmt.Errorf("--out %s: %w", s.out, err)}
		}
	case s.detach:
		return &usageError{fmt.Errorf("--detach: --out must be in the store, such as %s/results/name: nobody would fetch the result to %s", strings.TrimSuffix(s.store.store, "/"), s.out)}
	default:
		dir, err := filepath.Abs(s.out)
		if err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		s.sub.Request["out"] = dir
		if place, err = local.OpenPlace(ctx, dir, s.job.Overwrite, s.client.Store, s.plan); err != nil {
			if errors.Is(err, local.ErrComplete) {
				return s.complete()
			}
			return err
		}
		defer place.Close()
	}
	if location == "" {
		if location, err = s.upload(ctx); err != nil {
			return err
		}
	}
	s.sub.Source = location
	if err := s.client.Submit(ctx, s.sub); err != nil {
		return err
	}
	if s.detach {
		_, err := fmt.Fprintln(s.c.OutOrStdout(), run)
		return err
	}
	return s.watch(ctx, place)
}

func (s *submission) complete() error {
	if s.json {
		return json.NewEncoder(s.c.OutOrStdout()).Encode(map[string]any{"kind": "complete", "out": s.out})
	}
	_, err := fmt.Fprintf(s.c.OutOrStdout(), "%s is complete already: nothing to do (shardpress verify checks its bytes, --overwrite makes it again)\n", s.out)
	return err
}

// open opens the model and plans, so that what can never work is refused before
// anything is sent. location is where workers find the model, "" if it is to be
// uploaded.
func (s *submission) open(ctx context.Context) (location string, err error) {
	model := s.job.Model
	opener, err := (&sourceFlags{}).opener(s.client.Store)
	if err != nil {
		return "", err
	}
	switch {
	case strings.HasPrefix(model, "hf://"):
		location = model
	case isS3(model):
		key, err := s.below("--model", model)
		if err != nil {
			return "", err
		}
		location = source.Store(key)
	}
	if location == "" {
		s.ck, err = shard.Open(ctx, model, shard.OpenOptions{HashSource: s.job.HashSource})
	} else if s.ck, err = opener.Open(ctx, location); err == nil {
		location = source.Of(s.ck)
	}
	if err != nil {
		return "", err
	}
	s.plan, err = coordinator.NewPlan(s.ck.Manifest, s.job.Recipe, coordinator.PlanOptions{Config: s.ck.Config, Salt: s.job.Salt})
	if err != nil {
		return "", errors.Join(err, s.ck.Close())
	}
	return location, nil
}

// upload sends the model to the store, by layer.
func (s *submission) upload(ctx context.Context) (location string, err error) {
	w := s.c.OutOrStdout()
	if s.json {
		w = io.Discard
	}
	last, begin := time.Time{}, time.Now()
	id, err := shard.Upload(ctx, s.ck, s.client.Store, func(done, total int64) {
		if done < total && time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		text := fmt.Sprintf("upload  %s %s of %s", bar(done, total), formatBytes(done), formatBytes(total))
		switch {
		case isTerminal(w):
			fmt.Fprintf(w, "\r%s", text)
		case done == total:
			fmt.Fprintf(w, "%s in %.1f s\n", text, time.Since(begin).Seconds())
		}
	})
	if isTerminal(w) {
		fmt.Fprintln(w)
	}
	if err != nil {
		return "", err // which says that it is of an upload, and of what
	}
	return source.Uploaded(id), nil
}

// watch shows the run, and fetches its result to place, if that is not nil.
func (s *submission) watch(ctx context.Context, place *local.Place) error {
	w := s.c.OutOrStdout()
	s.view = newView(w, s.json)
	var mirror *fleet.Mirror
	if place != nil {
		mirror = s.client.Mirror(ctx, s.plan, s.sub.Out, place.Bucket)
	}
	fmt.Fprintf(s.c.ErrOrStderr(), "run %s is submitted: it goes on also without this command (shardpress status %s)\n", s.sub.Run, s.sub.Run)
	record, err := s.client.Watch(ctx, s.sub.Run, fleet.Viewer{
		Planned: s.view.planned, Update: s.view.update,
		Placed: func(file string) {
			if mirror != nil {
				mirror.Want(file)
			}
		},
	})
	if err == nil {
		s.view.update(coordinator.Update{Kind: coordinator.UpdateFinished, Run: s.sub.Run, Message: record.Error})
	}
	s.view.close()
	if err == nil {
		err = fleet.Ended(record)
	}
	if err != nil {
		if mirror != nil {
			mirror.Stop()
		}
		if record == nil {
			fmt.Fprintf(s.c.ErrOrStderr(), "run %s goes on: shardpress status %s shows it, shardpress cancel %s ends it\n", s.sub.Run, s.sub.Run, s.sub.Run)
		}
	} else if mirror != nil {
		if err = mirror.Finish(ctx); err == nil {
			err = place.Finish(ctx)
		}
	}
	if s.report != "" && record != nil {
		err = errors.Join(err, writeRecord(s.report, record))
	}
	if err != nil {
		return err
	}
	return s.summarize(ctx, record)
}

func (s *submission) summarize(ctx context.Context, r *coordinator.Record) error {
	b, err := objstore.ReadAll(ctx, s.client.Store, s.sub.Out+"/"+coordinator.ReportFile, 256<<20)
	if err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	var report coordinator.Report
	if err := json.Unmarshal(b, &report); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	w := s.c.OutOrStdout()
	if s.json {
		return json.NewEncoder(w).Encode(map[string]any{"kind": "report", "outcome": r, "report": &report})
	}
	return summary(w, s.out, &coordinator.Outcome{
		Run: r.Run, Tasks: r.Totals.Tasks, Reused: r.Totals.Reused, Executed: r.Totals.Run, Repaired: r.Totals.Repaired, Failures: r.Totals.Failures,
		Elapsed: time.Duration(r.Totals.Elapsed * float64(time.Second)), Record: r, Report: &report,
	})
}

// newView shows a run on w: as JSON lines, with bars, or as lines.
func newView(w io.Writer, asJSON bool) view {
	switch {
	case asJSON:
		return newJSONLines(w)
	case isTerminal(w):
		return newBars(w)
	}
	return newLines(w)
}
