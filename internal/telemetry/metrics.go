package telemetry

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/shardpress/shardpress/internal/task"
)

// instruments are what is counted and measured. docs/observability.md explains each
// under the name that it has for Prometheus, and a test holds the two together.
// Nothing here is labelled by task or run: what a label can say must stay few.
type instruments struct {
	meter metric.Meter

	runsFinished metric.Int64Counter
	published    metric.Int64Counter
	reused       metric.Int64Counter
	repaired     metric.Int64Counter
	retried      metric.Int64Counter
	audits       metric.Int64Counter

	attempts     metric.Int64Counter
	redeliveries metric.Int64Counter
	duration     metric.Float64Histogram
	workerTasks  metric.Int64Counter
	workerBusy   metric.Int64UpDownCounter
	workerMemory metric.Int64UpDownCounter

	storeRequests metric.Int64Counter
	storeBytes    metric.Int64Counter
	storeDuration metric.Float64Histogram

	mu   sync.Mutex
	runs map[string]runCounts // of runs that this process follows
}

// runCounts are the tasks of a run by state.
type runCounts struct {
	state string
	tasks map[string]int64
}

// Bounds of the histograms' buckets, in seconds: tasks take seconds to hours, and
// requests to a store milliseconds to a minute.
func taskSeconds() []float64 {
	return []float64{0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000}
}

func requestSeconds() []float64 {
	return []float64{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100}
}

func newInstruments(m metric.Meter) (*instruments, error) {
	in := &instruments{meter: m, runs: map[string]runCounts{}}
	var errs []error
	counter := func(to *metric.Int64Counter, name, unit, what string) {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
		*to, errs = c, append(errs, err)
	}
	level := func(to *metric.Int64UpDownCounter, name, unit, what string) {
		c, err := m.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
		*to, errs = c, append(errs, err)
	}
	histogram := func(to *metric.Float64Histogram, name, what string, bounds []float64) {
		h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(bounds...))
		*to, errs = h, append(errs, err)
	}
	counter(&in.runsFinished, "shardpress.runs.finished", "{run}", "Runs that this coordinator brought to an end, by how they ended.")
	counter(&in.published, "shardpress.tasks.published", "{task}", "Messages published to the queue, by reason.")
	counter(&in.reused, "shardpress.tasks.reused", "{task}", "Tasks whose result was there before the run.")
	counter(&in.repaired, "shardpress.tasks.repaired", "{task}", "Tasks whose stored bytes were lost or damaged and are made again.")
	counter(&in.retried, "shardpress.tasks.retried", "{task}", "Tasks tried again after a failure, by kind of failure.")
	counter(&in.audits, "shardpress.audits", "{task}", "Tasks run again on another worker to compare bytes, by result.")

	counter(&in.attempts, "shardpress.attempts", "{attempt}", "Attempts at tasks, by operation and outcome.")
	counter(&in.redeliveries, "shardpress.redeliveries", "{delivery}", "Deliveries of tasks that had been delivered before, by operation.")
	histogram(&in.duration, "shardpress.task.duration", "Time that attempts with a result took, by operation.", taskSeconds())
	counter(&in.workerTasks, "shardpress.worker.tasks", "{task}", "Tasks done, by worker.")
	level(&in.workerBusy, "shardpress.worker.running", "{task}", "Tasks being worked on, by worker.")
	level(&in.workerMemory, "shardpress.worker.memory.used", "By", "Memory that the tasks being worked on were admitted with, by worker.")

	counter(&in.storeRequests, "shardpress.store.requests", "{request}", "Requests to the object store, by operation and outcome.")
	counter(&in.storeBytes, "shardpress.store.transferred", "By", "Bytes read from and written to the object store, by operation.")
	histogram(&in.storeDuration, "shardpress.store.request.duration", "Time from the beginning of a request to its last byte, by operation.", requestSeconds())

	tasks, err := m.Int64ObservableGauge("shardpress.tasks", metric.WithUnit("{task}"), metric.WithDescription("Tasks of the runs that this coordinator drives, by state."))
	errs = append(errs, err)
	runs, err := m.Int64ObservableGauge("shardpress.runs", metric.WithUnit("{run}"), metric.WithDescription("Runs that this coordinator drives, by state."))
	errs = append(errs, err)
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		runsBy, tasksBy := in.totals()
		for state, n := range runsBy {
			o.ObserveInt64(runs, n, by("state", state))
		}
		for state, n := range tasksBy {
			o.ObserveInt64(tasks, n, by("state", state))
		}
		return nil
	}, tasks, runs)
	return in, errors.Join(append(errs, err)...)
}

// by labels a measurement with keys and values in turn.
func by(pairs ...string) metric.MeasurementOption {
	kvs := make([]attribute.KeyValue, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		kvs = append(kvs, attribute.String(pairs[i], pairs[i+1]))
	}
	return metric.WithAttributeSet(attribute.NewSet(kvs...))
}

func (in *instruments) setRun(run, state string, tasks map[string]int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.runs[run] = runCounts{state, tasks}
}

func (in *instruments) endRun(run string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.runs, run)
}

func (in *instruments) totals() (runs, tasks map[string]int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	runs, tasks = map[string]int64{}, map[string]int64{}
	for _, r := range in.runs {
		runs[r.state]++
		for state, n := range r.tasks {
			tasks[state] += n
		}
	}
	return runs, tasks
}

// observeProcess tells of the process itself.
func (in *instruments) observeProcess(service, version string, started time.Time) error {
	memory, err1 := in.meter.Int64ObservableGauge("shardpress.process.memory", metric.WithUnit("By"),
		metric.WithDescription("Memory of the process that is resident, or that Go has from the system where that is not known."))
	start, err2 := in.meter.Float64ObservableGauge("shardpress.process.start.time", metric.WithUnit("s"),
		metric.WithDescription("When the process started, in seconds since 1970."))
	build, err3 := in.meter.Int64ObservableGauge("shardpress.build.info", metric.WithDescription("Always 1, labelled with what is running."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	what := by("service", service, "version", version, "go", runtime.Version())
	_, err := in.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(memory, residentMemory())
		o.ObserveFloat64(start, float64(started.UnixMilli())/1000)
		o.ObserveInt64(build, 1, what)
		return nil
	}, memory, start, build)
	return err
}

// Cell is what waits in the queue for one sort of worker.
type Cell struct {
	Class   string // numeric class
	Memory  string // memory class, "m512"
	Chain   bool   // whether other tasks wait for these
	Waiting int64
	// InFlight are tasks that workers have and have not acknowledged.
	InFlight int64
	// Oldest is how long the oldest task that waits has waited.
	Oldest time.Duration
	// Workers could take the cell's tasks.
	Workers int64
}

// A backlog is asked for at most every backlogEvery, however many ask for metrics,
// and must come within backlogWithin.
const (
	backlogEvery  = 2 * time.Second
	backlogWithin = 3 * time.Second
)

// ObserveBacklog measures what the queue holds, by asking for it when somebody
// asks for metrics. A queue that does not answer is not measured.
func (t *Telemetry) ObserveBacklog(backlog func(context.Context) ([]Cell, error)) error {
	if !t.measuring {
		return nil
	}
	m := t.metrics.meter
	waiting, err1 := m.Int64ObservableGauge("shardpress.queue.waiting", metric.WithUnit("{task}"), metric.WithDescription("Tasks that wait for a worker, by cell."))
	flight, err2 := m.Int64ObservableGauge("shardpress.queue.in_flight", metric.WithUnit("{task}"), metric.WithDescription("Tasks that a worker has, by cell."))
	oldest, err3 := m.Float64ObservableGauge("shardpress.queue.oldest.age", metric.WithUnit("s"), metric.WithDescription("How long the oldest waiting task of a cell has waited."))
	workers, err4 := m.Int64ObservableGauge("shardpress.queue.workers", metric.WithUnit("{worker}"), metric.WithDescription("Live workers that could take tasks of a cell that holds any."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	cached := cache{every: backlogEvery, ask: backlog}
	_, err := m.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		cells, err := cached.get(ctx)
		if err != nil {
			t.log.DebugContext(ctx, "backlog not measured", "err", err)
			return nil // the other metrics stand
		}
		for _, c := range cells {
			rank := "bulk"
			if c.Chain {
				rank = "chain"
			}
			labels := by("class", c.Class, "memory", c.Memory, "rank", rank)
			o.ObserveInt64(waiting, c.Waiting, labels)
			o.ObserveInt64(flight, c.InFlight, labels)
			o.ObserveFloat64(oldest, c.Oldest.Seconds(), labels)
			o.ObserveInt64(workers, c.Workers, labels)
		}
		return nil
	}, waiting, flight, oldest, workers)
	return err
}

// cache keeps an answer for a while.
type cache struct {
	every time.Duration
	ask   func(context.Context) ([]Cell, error)

	mu    sync.Mutex
	at    time.Time
	cells []Cell
	err   error
}

func (c *cache) get(ctx context.Context) ([]Cell, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || time.Since(c.at) >= c.every {
		ctx, cancel := context.WithTimeout(ctx, backlogWithin)
		defer cancel()
		c.cells, c.err = c.ask(ctx)
		c.at = time.Now()
	}
	return c.cells, c.err
}

// observeWorker tells what a worker may use, and how much it has done.
func (in *instruments) observeWorker(w *Worker, memory int64, slots int) error {
	budget, err1 := in.meter.Int64ObservableGauge("shardpress.worker.memory.budget", metric.WithUnit("By"), metric.WithDescription("Memory that a worker's tasks may need together."))
	most, err2 := in.meter.Int64ObservableGauge("shardpress.worker.slots", metric.WithUnit("{task}"), metric.WithDescription("Tasks that a worker does at once at most."))
	source, err3 := in.meter.Int64ObservableCounter("shardpress.worker.source", metric.WithUnit("By"), metric.WithDescription("Source bytes worked through, by worker."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	_, err := in.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(budget, memory, w.self)
		o.ObserveInt64(most, int64(slots), w.self)
		o.ObserveInt64(source, w.bytes(), w.self)
		return nil
	}, budget, most, source)
	return err
}

// opOf is the operation of a message, without its version.
func opOf(m *task.Message) string {
	for i := range len(m.Op) {
		if m.Op[i] == '@' {
			return m.Op[:i]
		}
	}
	if m.Op == "" {
		return "unknown"
	}
	return m.Op
}
