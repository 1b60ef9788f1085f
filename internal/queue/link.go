package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrDenied is returned for what the broker does not allow this user to do.
var ErrDenied = errors.New("the broker does not permit it")

var (
	errClosed       = errors.New("queue is closed")
	errDisconnected = errors.New("connection to the broker was lost")
)

// link is the state of the connection, and who waits for an answer over it. NATS
// says that it refuses a question, and that a connection broke, to the side: without
// this, who asked would wait for the whole of its time.
type link struct {
	mu      sync.Mutex
	up      chan struct{} // closed while connected
	again   chan struct{} // closed when a lost connection is back
	closed  chan struct{}
	waiting map[*question]struct{}
}

type question struct {
	prefix string // of the subject
	cancel context.CancelCauseFunc
}

func newLink() link {
	up := make(chan struct{})
	close(up)
	return link{up: up, again: make(chan struct{}), closed: make(chan struct{}), waiting: map[*question]struct{}{}}
}

func (q *Queue) disconnected(err error) {
	l := &q.link
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed: // on purpose
	default:
		select {
		case <-l.up:
			l.up = make(chan struct{})
			q.log.Warn("connection to the broker was lost; trying again", "err", err)
		default:
		}
	}
	for w := range l.waiting {
		w.cancel(errDisconnected)
	}
}

func (q *Queue) reconnected(nc *nats.Conn) {
	l := &q.link
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.up:
	default:
		close(l.up)
	}
	close(l.again)
	l.again = make(chan struct{})
	q.log.Info("connected to the broker again", "broker", nc.ConnectedUrlRedacted())
}

var deniedSubject = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`)

func (q *Queue) asyncError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if m := deniedSubject.FindStringSubmatch(err.Error()); m != nil {
		denied := fmt.Errorf("%s to %s: %w: give the user the permissions of its role", strings.ToLower(m[1]), m[2], ErrDenied)
		l := &q.link
		l.mu.Lock()
		defer l.mu.Unlock()
		for w := range l.waiting {
			if strings.HasPrefix(m[2], w.prefix) {
				w.cancel(denied)
			}
		}
		q.log.Debug("broker denies", "err", denied)
		return
	}
	q.log.Warn("broker reports", "err", err)
}

// restored is closed when the connection is back after it was lost the next time.
func (l *link) restored() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again
}

// connected waits for the connection.
func (q *Queue) connected(ctx context.Context) error {
	q.link.mu.Lock()
	up := q.link.up
	q.link.mu.Unlock()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errDisconnected, ctx.Err())
	case <-q.link.closed:
		return errClosed
	case <-up:
		return nil
	}
}

// ask carries out a question whose subject begins with prefix. It ends early when
// the broker denies it or the connection breaks.
func (q *Queue) ask(ctx context.Context, prefix string, timeout time.Duration, f func(context.Context) error) error {
	if err := q.connected(ctx); err != nil {
		return err
	}
	tctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	actx, cancel := context.WithCancelCause(tctx)
	defer cancel(nil)
	w := &question{prefix, cancel}
	l := &q.link
	l.mu.Lock()
	l.waiting[w] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, w)
	}()
	err := f(actx)
	if err == nil {
		return nil
	}
	if q.nc.IsClosed() {
		return errClosed
	}
	if cause := context.Cause(actx); errors.Is(cause, ErrDenied) || errors.Is(cause, errDisconnected) {
		return cause
	}
	return err
}

// gone reports whether the broker has no stream, consumer or bucket of that name.
func gone(err error) bool {
	for _, e := range []error{
		nats.ErrNoResponders, jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound,
		jetstream.ErrConsumerNotFound, jetstream.ErrBucketNotFound, jetstream.ErrConsumerDeleted,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// codeUnavailable is JetStream's error while a broker is not ready yet.
const codeUnavailable jetstream.ErrorCode = 10008

// passing reports whether waiting may help.
func passing(err error) bool {
	for _, e := range []error{
		errDisconnected, context.DeadlineExceeded, nats.ErrTimeout, nats.ErrConnectionReconnecting, nats.ErrDisconnected,
		nats.ErrReconnectBufExceeded, nats.ErrStaleConnection, nats.ErrNoServers,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var api *jetstream.APIError
	return gone(err) || errors.As(err, &api) && api.ErrorCode == codeUnavailable
}

// persist asks until there is an answer, the question is refused, or ctx ends. What
// a broker lost is made again meanwhile. Each try may take as long as timeout; a
// limit other than 0 bounds all of them.
func (q *Queue) persist(ctx context.Context, prefix string, limit time.Duration, f func(context.Context) error) error {
	if limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, limit)
		defer stop()
	}
	pause := 25 * time.Millisecond
	for {
		err := q.ask(ctx, prefix, requestTimeout, f)
		if err == nil {
			return nil
		}
		if !passing(err) || ctx.Err() != nil {
			return err
		}
		if gone(err) {
			if rerr := q.restore(ctx); rerr != nil && !passing(rerr) && !errors.Is(rerr, ErrDenied) && !errors.Is(rerr, errNoJetStream) {
				return fmt.Errorf("%w (and it could not be made again: %w)", err, rerr)
			}
		}
		if werr := q.wait(ctx, pause/2+rand.N(pause)); werr != nil {
			if errors.Is(werr, errClosed) {
				return werr
			}
			return fmt.Errorf("%w (gave up: %w)", err, werr)
		}
		pause = min(2*pause, 2*time.Second)
	}
}

func (q *Queue) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-q.link.closed:
		return errClosed
	case <-timer.C:
		return nil
	}
}
