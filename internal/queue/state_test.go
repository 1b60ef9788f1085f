package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/shardpress/shardpress/internal/task"
)

// brief are times to live as short as a broker has them.
func brief(url string) Options {
	return Options{URL: url, RegistryTTL: time.Second, LeaseTTL: time.Second}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, brief(b.URL()))
	ctx := within(t)
	for _, name := range []string{"b", "a", "gone"} {
		if err := q.Register(ctx, &task.WorkerInfo{Name: name, Memory: 7}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Unregister(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	for _, damage := range []struct{ key, value string }{{"c", "{"}, {"d", `{"name":"a"}`}, {"e", ""}} {
		if err := q.nc.Publish("$KV.WORKERS."+damage.key, []byte(damage.value)); err != nil {
			t.Fatal(err)
		}
	}
	list := func() string {
		ws, err := q.Workers(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, w := range ws {
			names = append(names, w.Name)
		}
		return strings.Join(names, " ")
	}
	if got := list(); got != "a b" {
		t.Errorf("workers %q", got)
	}
	if err := q.Register(ctx, &task.WorkerInfo{Name: "a.b"}); !errors.Is(err, task.ErrInvalid) {
		t.Errorf("a name with a dot: %v", err)
	}
	// Only who says again that it lives stays.
	until(t, "the silent worker is gone", func() bool {
		if err := q.Register(ctx, &task.WorkerInfo{Name: "a"}); err != nil {
			t.Fatal(err)
		}
		got := list()
		if got != "a" && got != "a b" {
			t.Fatalf("workers %q", got)
		}
		return got == "a"
	})
}

func TestLease(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	first, second := ready(t, brief(b.URL())), ready(t, brief(b.URL()))
	ctx := within(t)
	l, err := first.Acquire(ctx, "run", "first")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.Renew(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := second.Acquire(ctx, "run", "second"); !errors.Is(err, ErrLeased) {
			t.Fatalf("a lease that is held: %v", err)
		}
	}
	if h, err := second.Holder(ctx, "run"); err != nil || h != "first" {
		t.Errorf("holder %q, %v", h, err)
	}
	// The first one hangs, and comes back when another one has taken over.
	var taken *Lease
	until(t, "the lease is over", func() bool {
		taken, err = second.Acquire(ctx, "run", "second")
		if err != nil && !errors.Is(err, ErrLeased) {
			t.Fatal(err)
		}
		return err == nil
	})
	if err := l.Renew(ctx); !errors.Is(err, ErrLeased) {
		t.Errorf("renewing a lease that another one has: %v", err)
	}
	if err := l.Release(ctx); err != nil { // ends nobody's
		t.Error(err)
	}
	if err := taken.Renew(ctx); err != nil {
		t.Errorf("the new holder: %v", err)
	}
	if err := taken.Release(ctx); err != nil {
		t.Error(err)
	}
	l, err = first.Acquire(ctx, "run", "first")
	if err != nil {
		t.Fatalf("a lease that was released: %v", err)
	}
	// Killed and started again, it need not wait for the end of its own lease.
	again := ready(t, brief(b.URL()))
	if _, err := again.Acquire(ctx, "run", "first"); err != nil {
		t.Errorf("a lease of one's own: %v", err)
	}
	if err := l.Renew(ctx); !errors.Is(err, ErrLeased) {
		t.Errorf("renewing a lease that was taken again: %v", err)
	}
	// Two of one name do not take it from each other for ever.
	if _, err := first.Acquire(ctx, "run", "first"); !errors.Is(err, ErrLeased) {
		t.Errorf("a lease that was taken again: %v", err)
	}
	// Of many who want it at once, one gets it.
	var wg sync.WaitGroup
	got := make(chan string, 20)
	for n := range 20 {
		wg.Go(func() {
			name := fmt.Sprint(n)
			if _, err := second.Acquire(ctx, "race", name); err == nil {
				got <- name
			} else if !errors.Is(err, ErrLeased) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Errorf("%d hold the lease", len(got))
	}
	if _, err := first.Holder(ctx, "nobody's"); !errors.Is(err, task.ErrInvalid) {
		t.Error(err)
	}
	if _, err := first.Holder(ctx, "nobody"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestSnapshots(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL()})
	ctx := within(t)
	for _, s := range []string{"one", "two"} {
		if err := q.PutSnapshot(ctx, "run", []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := q.Snapshot(ctx, "run"); err != nil || string(b) != "two" {
		t.Errorf("%q, %v", b, err)
	}
	if err := q.DeleteSnapshot(ctx, "run"); err != nil {
		t.Error(err)
	}
	if _, err := q.Snapshot(ctx, "run"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := q.PutSnapshot(ctx, "run", make([]byte, 2<<20)); !errors.Is(err, task.ErrInvalid) {
		t.Errorf("larger than the broker takes: %v", err)
	}
	if err := q.PutSnapshot(ctx, "a.b", nil); !errors.Is(err, task.ErrInvalid) {
		t.Error(err)
	}
}

func TestBacklogAndCopies(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL()})
	ctx := within(t)
	if s, err := q.Backlog(ctx); err != nil || len(s) != 0 {
		t.Errorf("nothing: %v, %v", s, err)
	}
	twin, audit := message(1, 1), message(1, 1)
	twin.Copy, audit.Copy, audit.Audit = task.CopyTwin, task.CopyAudit, "attempt"
	publish(t, q, message(1, 1), twin, audit, message(2, 2<<30), chained(3, 1))
	for _, m := range []*task.Message{message(1, 1), twin, audit} {
		if err := q.Publish(ctx, m); !errors.Is(err, ErrOutstanding) {
			t.Errorf("copy %q again: %v", m.Copy, err)
		}
	}
	d := next(t, q, 4<<30)
	if id(t, d) != 3 || d.Cell() != (Cell{class, true, 64 << 20}) {
		t.Errorf("the first is %d of %s", id(t, d), d.Cell())
	}
	s, err := q.Backlog(ctx)
	if err != nil || len(s) != 3 {
		t.Fatalf("%v, %v", s, err)
	}
	for i, want := range []CellState{
		{Cell: Cell{class, true, 64 << 20}, InFlight: 1},
		{Cell: Cell{class, false, 2 << 30}, Waiting: 1},
		{Cell: Cell{class, false, 64 << 20}, Waiting: 3},
	} {
		got := s[i]
		if (got.Oldest > 0) != (want.Waiting > 0) || got.Oldest > patience {
			t.Errorf("%s: the oldest waits for %s", got.Cell, got.Oldest)
		}
		if got.Oldest = 0; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	count := func(which string, want ...byte) {
		t.Helper()
		ids, err := q.OutstandingCopies(ctx, which)
		if which == "" {
			ids, err = q.Outstanding(ctx)
		}
		if err != nil || len(ids) != len(want) {
			t.Errorf("outstanding %q: %v, %v", which, ids, err)
		}
		for _, n := range want {
			if !ids[task.ID{n}] {
				t.Errorf("outstanding %q: %d is missing", which, n)
			}
		}
	}
	count("", 1, 2, 3)
	count(task.CopyTwin, 1)
	count(task.CopyAudit, 1)
	for _, m := range []*task.Message{twin, chained(3, 1), message(9, 1)} { // queued, in flight, not there
		if err := q.Withdraw(ctx, m); err != nil {
			t.Error(err)
		}
	}
	count("", 1, 2)
	count(task.CopyTwin)
	if err := d.Done(ctx); err != nil {
		t.Errorf("the worker of a task that was withdrawn: %v", err)
	}
	// What somebody else put there stops nobody.
	if _, err := q.js.Publish(ctx, "task.x", nil); err != nil {
		t.Fatal(err)
	}
	count("", 1, 2)
}

// A task of a class that nobody set up must not lie where no consumer sees it.
func TestPublishMakesConsumers(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := connect(t, Options{URL: b.URL()})
	m := message(1, 1)
	m.Class = "other@3"
	publish(t, q, m)
	d, err := q.Next(within(t), func() []Cell { return Ladder("other@3", 1<<30) })
	if err != nil || id(t, d) != 1 {
		t.Errorf("%v, %v", d, err)
	}
	m.Class = "with.dot"
	if err := q.Publish(within(t), m); !errors.Is(err, task.ErrInvalid) {
		t.Error(err)
	}
}

// A message says the same as its subject, by which the broker chose the worker.
func TestMessageOfAnotherSubject(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL()})
	body, err := message(1, 64<<30).Encode() // needs more than the cell says
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.js.Publish(within(t), Cell{class, false, 64 << 20}.subject(message(1, 1)), body); err != nil {
		t.Fatal(err)
	}
	if m, err := next(t, q, 1<<30).Message(); !errors.Is(err, task.ErrInvalid) {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestManySetUpAtOnce(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	var wg sync.WaitGroup
	for range 8 {
		q := connect(t, Options{URL: b.URL()})
		wg.Go(func() {
			for range 2 {
				if err := q.Setup(within(t), class, "other@1"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	q := ready(t, Options{URL: b.URL()})
	publish(t, q, message(1, 1))
	next(t, q, 1<<30)
}

// A stream of an earlier version is brought up to date and keeps its tasks.
func TestSetupUpdatesTheStream(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	old := connect(t, Options{URL: b.URL()})
	c := old.streamConfig()
	c.MaxMsgSize, c.RePublish = 1<<20, nil
	if _, err := old.js.CreateStream(within(t), c); err != nil {
		t.Fatal(err)
	}
	if _, err := old.js.Publish(within(t), Cell{class, false, 64 << 20}.subject(message(1, 1)), nil); err != nil {
		t.Fatal(err)
	}
	q := ready(t, Options{URL: b.URL()})
	info, err := q.js.Stream(within(t), streamName)
	if err != nil || !sameStream(info.CachedInfo().Config, q.streamConfig()) {
		t.Errorf("%+v, %v", info.CachedInfo().Config, err)
	}
	if out, err := q.Outstanding(within(t)); err != nil || len(out) != 1 {
		t.Errorf("outstanding: %v, %v", out, err)
	}
}

func TestTraceTravels(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL(), AckWait: 200 * time.Millisecond})
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	if err := q.Publish(trace.ContextWithSpanContext(within(t), span), message(1, 1)); err != nil {
		t.Fatal(err)
	}
	for attempt := 1; attempt <= 2; attempt++ { // it survives a redelivery
		d := next(t, q, 1<<30)
		if got := trace.SpanContextFromContext(d.Context(t.Context())); !got.Equal(span.WithRemote(true)) || d.Attempt() != attempt {
			t.Errorf("attempt %d: %+v", d.Attempt(), got)
		}
	}
}

func TestForgedNotices(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL()})
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	ch, err := q.Notices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := task.Notice{ID: task.ID{1}, State: task.Done, Worker: "w1"}
	b1, err := n.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		"note.w2.done." + n.ID.String(), "note.w1.failed." + n.ID.String(), "note.w1.done." + task.ID{2}.String(), "note.w1.done", "note.done." + n.ID.String(),
	} {
		if err := q.nc.Publish(subject, b1); err != nil {
			t.Fatal(err)
		}
	}
	last := task.Notice{ID: task.ID{9}, State: task.Began, Worker: "w1"}
	if err := q.Notify(&last); err != nil {
		t.Fatal(err)
	}
	if got := <-ch; got == nil || *got != last {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []task.Notice{{State: task.Done, Worker: "a.b"}, {State: "x.y", Worker: "w"}, {State: task.Done}} {
		if err := q.Notify(&bad); !errors.Is(err, task.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestEventsAndHints(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL()})
	ctx, stop := context.WithCancel(within(t))
	events, err := q.Events(ctx, "run")
	if err != nil {
		t.Fatal(err)
	}
	hints, err := q.Hints(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		q.Announce(ctx, "other", []byte("no")), q.Announce(ctx, "run", []byte("yes")),
		q.Hint(ctx, HintSubmitted, "a"), q.Hint(ctx, HintCancel, "b"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if e := <-events; string(e) != "yes" {
		t.Errorf("event %q", e)
	}
	seen := map[Hint]bool{<-hints: true, <-hints: true}
	if !seen[Hint{HintSubmitted, "a"}] || !seen[Hint{HintCancel, "b"}] {
		t.Errorf("hints %v", seen)
	}
	for _, err := range []error{q.Hint(ctx, "other", "a"), q.Hint(ctx, HintCancel, "a.b"), q.Announce(ctx, "*", nil)} {
		if !errors.Is(err, task.ErrInvalid) {
			t.Error(err)
		}
	}
	if _, err := q.Events(ctx, ">"); !errors.Is(err, task.ErrInvalid) {
		t.Error(err)
	}
	stop()
	for range events { // closes
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	find := func(t *testing.T, q *Queue, name string) Check {
		t.Helper()
		checks, err := q.Check(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			if (c.State == CheckOK) != (c.Remedy == "") {
				t.Errorf("%+v: a remedy is for what is not well", c)
			}
			if c.Name == name {
				return c
			}
		}
		t.Fatalf("no check of %s in %+v", name, checks)
		return Check{}
	}
	t.Run("bare", func(t *testing.T) {
		t.Parallel()
		q := connect(t, Options{URL: broker(t, BrokerOptions{}).URL()})
		for _, name := range []string{"stream TASKS", "bucket WORKERS", "bucket RUNS", "bucket LEASES"} {
			if c := find(t, q, name); c.State != CheckMissing {
				t.Errorf("%+v", c)
			}
		}
		if c := find(t, q, "sync mode"); c.State != CheckOK {
			t.Errorf("%+v", c)
		}
		if _, err := q.js.Stream(within(t), streamName); !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("the check made the stream: %v", err)
		}
	})
	t.Run("strange", func(t *testing.T) {
		t.Parallel()
		q := ready(t, Options{URL: broker(t, BrokerOptions{}).URL()})
		stream, err := q.js.Stream(within(t), streamName)
		if err != nil {
			t.Fatal(err)
		}
		lost, changed := Cell{class, true, 1 << 30}, Cell{class, false, 1 << 30}
		if err := stream.DeleteConsumer(within(t), lost.String()); err != nil {
			t.Fatal(err)
		}
		if c := find(t, q, "consumers"); c.State != CheckMissing || !strings.Contains(c.Detail, lost.String()) {
			t.Errorf("%+v", c)
		}
		if err := q.Setup(within(t), class); err != nil {
			t.Fatal(err)
		}
		c := q.consumerConfig(changed)
		c.AckWait = time.Hour
		if _, err := stream.UpdateConsumer(within(t), c); err != nil {
			t.Fatal(err)
		}
		if c := find(t, q, "consumers"); c.State != CheckWarning || !strings.Contains(c.Detail, changed.String()) {
			t.Errorf("%+v", c)
		}
		s := q.streamConfig()
		s.MaxMsgSize = 100
		if _, err := q.js.UpdateStream(within(t), s); err != nil {
			t.Fatal(err)
		}
		if c := find(t, q, "stream TASKS"); c.State != CheckFailed {
			t.Errorf("%+v", c)
		}
	})
	t.Run("no JetStream, small messages", func(t *testing.T) {
		t.Parallel()
		q := connect(t, Options{URL: foreign(t, 8<<10)})
		if c := find(t, q, "JetStream"); c.State != CheckFailed {
			t.Errorf("%+v", c)
		}
		if c := find(t, q, "largest message"); c.State != CheckFailed {
			t.Errorf("%+v", c)
		}
		if c := find(t, q, "sync mode"); c.State != CheckWarning || !strings.Contains(c.Remedy, "sync_always") {
			t.Errorf("%+v", c)
		}
		if err := q.Setup(within(t), class); !errors.Is(err, errNoJetStream) {
			t.Errorf("set up: %v", err)
		}
	})
}

func FuzzParseSubject(f *testing.F) {
	f.Add(Cell{class, true, 64 << 20}.subject(message(1, 1)), "f32@1-b-m64")
	f.Add("task.f32@1.b.m0064."+task.ID{}.String()+"-twin", "a-b-c-m128")
	f.Fuzz(func(t *testing.T, subject, consumer string) {
		if c, id, which, err := parseSubject(subject); err == nil {
			m := &task.Message{ID: id, Class: c.Class, Chain: c.Chain, Memory: c.Memory, Copy: which}
			if got := c.subject(m); strings.TrimPrefix(got, "task") != subject[strings.IndexByte(subject, '.'):] && which != "" {
				t.Errorf("%q -> %q", subject, got)
			}
			if again, err := CellOf(m); err != nil || again != c {
				t.Errorf("%q: cell %v, %v", subject, again, err)
			}
		}
		if c, found := parseConsumer(consumer); found && c.String() != consumer {
			t.Errorf("%q -> %q", consumer, c)
		}
	})
}
