package local_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

// strander is a queue that strands the first task: it has it and says so, and offers
// it to nobody until it is told to drop such ones.
type strander struct {
	local.Queue
	mu      sync.Mutex
	id      task.ID
	has     bool
	dropped int
}

func (q *strander) Publish(ctx context.Context, m *task.Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.id == task.ID{}:
		q.id, q.has = m.ID, true
		return nil
	case q.has && m.ID == q.id:
		return queue.ErrOutstanding
	}
	return q.Queue.Publish(ctx, m)
}

func (q *strander) Outstanding(ctx context.Context) (map[task.ID]bool, error) {
	ids, err := q.Queue.Outstanding(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil && q.has {
		ids[q.id] = true
	}
	return ids, err
}

func (q *strander) DropStranded(ctx context.Context) (int, error) {
	n, err := q.Queue.DropStranded(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.has {
		q.has = false
		q.dropped++
		n++
	}
	return n, err
}

// A run gets over a task that the queue has, and would never offer to anybody.
func TestStrandedTask(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 2)
	want := calm(t, model)
	out := filepath.Join(t.TempDir(), "out")
	j := mustJob(t, model, out)
	var q *strander
	j.Wrap.Queue = func(inner local.Queue) local.Queue {
		q = &strander{Queue: inner}
		return q
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := local.Run(ctx, j); err != nil {
		t.Fatal(err)
	}
	if q.dropped != 1 {
		t.Errorf("stranded tasks were dropped %d times, want once", q.dropped)
	}
	if err := same(out, want); err != nil {
		t.Error(err)
	}
}
