package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/shardpress/shardpress/internal/task"
)

// Notify tells whoever listens about a task. It may be lost.
func (q *Queue) Notify(n *task.Notice) error {
	if !task.ValidToken(n.Worker) || !task.ValidToken(n.State) {
		return fmt.Errorf("notice of task %s: %w: worker %q, state %q", n.ID.Short(), task.ErrInvalid, n.Worker, n.State)
	}
	b, err := n.Encode()
	if err != nil {
		return err
	}
	return q.nc.Publish("note."+n.Worker+"."+n.State+"."+n.ID.String(), b)
}

// Notices delivers what Notify sent, until ctx ends. A broker lets a worker publish
// below its own name only, so a notice that says another one is forged. That, and
// what cannot be read, is dropped: notices are only hints.
func (q *Queue) Notices(ctx context.Context) (<-chan *task.Notice, error) {
	return subscribe(ctx, q, []string{"note.>"}, func(m *nats.Msg) (*task.Notice, bool) {
		n, err := task.ParseNotice(m.Data)
		return n, err == nil && m.Subject == "note."+n.Worker+"."+n.State+"."+n.ID.String()
	})
}

// Announce tells watchers of a run what happened. It may be lost.
func (q *Queue) Announce(_ context.Context, run string, event []byte) error {
	if !task.ValidToken(run) {
		return fmt.Errorf("announce event: %w: run %q", task.ErrInvalid, run)
	}
	return q.nc.Publish("event."+run, event)
}

// Events delivers what is announced of a run, until ctx ends.
func (q *Queue) Events(ctx context.Context, run string) (<-chan []byte, error) {
	if !task.ValidToken(run) {
		return nil, fmt.Errorf("watch run: %w: run %q", task.ErrInvalid, run)
	}
	return subscribe(ctx, q, []string{"event." + run}, func(m *nats.Msg) ([]byte, bool) { return m.Data, true })
}

// Kinds of hints.
const (
	HintSubmitted = "submitted" // a run was submitted
	HintCancel    = "cancel"    // somebody wants a run to end
)

// Hint says that there is news of a run in the store.
type Hint struct{ Kind, Run string }

// Hint tells coordinators to look at a run. It may be lost.
func (q *Queue) Hint(_ context.Context, kind, run string) error {
	if !slices.Contains([]string{HintSubmitted, HintCancel}, kind) || !task.ValidToken(run) {
		return fmt.Errorf("hint: %w: kind %q, run %q", task.ErrInvalid, kind, run)
	}
	return q.nc.Publish("run."+kind+"."+run, nil)
}

// Hints delivers hints of those kinds, or of all, until ctx ends.
func (q *Queue) Hints(ctx context.Context, kinds ...string) (<-chan Hint, error) {
	if len(kinds) == 0 {
		kinds = []string{HintSubmitted, HintCancel}
	}
	subjects := make([]string, len(kinds))
	for i, kind := range kinds {
		subjects[i] = "run." + kind + ".*"
	}
	return subscribe(ctx, q, subjects, func(m *nats.Msg) (Hint, bool) {
		parts := strings.Split(m.Subject, ".")
		if len(parts) != 3 || !task.ValidToken(parts[2]) {
			return Hint{}, false
		}
		return Hint{Kind: parts[1], Run: parts[2]}, true
	})
}

// subscribe delivers the messages of some subjects that read accepts, until ctx ends.
// The subscriptions stand when it returns. Nobody waits for a slow receiver: what
// does not fit into the buffer is lost.
func subscribe[T any](ctx context.Context, q *Queue, subjects []string, read func(*nats.Msg) (T, bool)) (<-chan T, error) {
	out := make(chan T)
	raw := make(chan *nats.Msg, 8192)
	var subs []*nats.Subscription
	leave := func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // the connection may be gone already
		}
	}
	for _, subject := range subjects {
		s, err := q.nc.Subscribe(subject, func(m *nats.Msg) {
			select {
			case raw <- m:
			default:
			}
		})
		if err != nil {
			leave()
			return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		subs = append(subs, s)
	}
	if err := q.ask(ctx, subjects[0], requestTimeout, q.nc.FlushWithContext); err != nil {
		leave()
		return nil, fmt.Errorf("subscribe to %s: %w", strings.Join(subjects, ", "), err)
	}
	go func() {
		defer close(out)
		defer leave()
		for {
			select {
			case <-ctx.Done():
				return
			case <-q.link.closed:
				return
			case m := <-raw:
				v, ok := read(m)
				if !ok {
					continue
				}
				select {
				case out <- v:
				case <-ctx.Done():
					return
				case <-q.link.closed:
					return
				}
			}
		}
	}()
	return out, nil
}
