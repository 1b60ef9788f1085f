// Package queue moves tasks from coordinators to workers over NATS JetStream, at
// least once, and what else a fleet says to itself. It is the one place that knows
// NATS.
//
//	task.<class>.<rank>.<memory class>.<task id>[-<copy>]   work queue TASKS, one message a task
//	wake.<...>                                              its headers again, to one idle worker
//	note.<worker>.<state>.<task id>                         began, progress, done, failed, audited: hints
//	event.<run>                                             what its coordinator says of a run, to watchers
//	run.submitted.<run>, run.cancel.<run>                   hints to coordinators
//	bucket WORKERS                                          worker -> what it says of itself; entries die with it
//	bucket RUNS                                             run -> snapshot of a live run
//	bucket LEASES                                           run -> coordinator; saves work, decides nothing
//
// The queue holds scheduling state only. The object store is the truth, and a
// coordinator can rebuild everything here from it: the whole queue can be lost.
// For the same reason an acknowledgement excludes nobody; the commit of a result,
// put if absent, does.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "TASKS"
	// ackWait is how long a worker may be silent before its task is offered to
	// another one; it is the time in which a dead worker is noticed.
	ackWait = 30 * time.Second
	// requestTimeout is for one question. NATS's own 5 s may be exceeded by a busy disk
	// behind a broker that syncs always.
	requestTimeout = 30 * time.Second
	// readLimit bounds what is asked for people and for status, with all its tries.
	readLimit = 10 * time.Second
)

// ErrOutstanding is returned by Publish for a task that is queued or being worked
// on; nothing needs to be done about it.
var ErrOutstanding = errors.New("task is already outstanding")

// ErrNotFound is returned for what is not there.
var ErrNotFound = errors.New("not found")

// Queue is a connection to a broker.
type Queue struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	opts  Options
	log   *slog.Logger
	link  link
	idle  idlers
	pulls pulls
	// embedded says that the broker lives and dies with this process.
	embedded bool

	mu      sync.Mutex
	classes []string // numeric classes that were set up
	buckets map[string]jetstream.KeyValue
	leased  map[string]bool // leases that this connection has had

	setupMu  sync.Mutex // one Setup at a time
	restored time.Time  // under setupMu
}

func newQueue(o Options) *Queue {
	q := &Queue{opts: o, log: o.Log, link: newLink(), buckets: map[string]jetstream.KeyValue{}, leased: map[string]bool{}}
	q.idle.init()
	return q
}

func (q *Queue) start(nc *nats.Conn) (*Queue, error) {
	q.nc = nc
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	q.js = js
	return q, nil
}

// Close ends the connection. Tasks that were fetched and not given back are offered
// to others after the acknowledgement time.
func (q *Queue) Close() {
	q.link.mu.Lock()
	select {
	case <-q.link.closed:
	default:
		close(q.link.closed)
	}
	q.link.mu.Unlock()
	// What was published last must not be lost with the buffer; a broker that does not
	// answer must not hold the end up.
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	if q.nc.IsConnected() {
		_ = q.nc.FlushWithContext(ctx) // hints only
	}
	q.nc.Close()
}

// AckWait is the time in which a dead worker is noticed. A delivery must be
// extended several times within it.
func (q *Queue) AckWait() time.Duration { return q.opts.AckWait }
