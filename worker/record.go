package worker

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Every attempt leaves a record with its run. It is written when the operation is
// about to begin, and again at its end. If the worker dies in between the first one
// stays, and is all that tells of it.

// begin says that an attempt starts.
func (s *shift) begin(ctx context.Context, a *attempt) error {
	r := s.record(a, task.AttemptStarted)
	key, body, err := encodeRecord(a, r)
	if err != nil {
		return err
	}
	a.begun = true // even if the answer is an error it may be there
	return s.putRecord(ctx, key, body)
}

func (s *shift) record(a *attempt, state string) *task.AttemptRecord {
	return &task.AttemptRecord{
		ID: a.m.ID, Attempt: a.id, Worker: s.Name, Memory: a.cell.Memory, Copy: a.m.Copy, State: state, Started: a.since,
	}
}

func encodeRecord(a *attempt, r *task.AttemptRecord) (key string, body []byte, err error) {
	body, err = r.Encode()
	if err != nil {
		return "", nil, fmt.Errorf("encode record of attempt %s: %w", r.Attempt, err)
	}
	return task.AttemptKey(a.m.Run, a.m.ID, a.id), body, nil
}

func (s *shift) putRecord(ctx context.Context, key string, body []byte) error {
	if _, err := s.store.Put(ctx, key, bytes.NewReader(body), int64(len(body)), objstore.PutOptions{}); err != nil {
		return fmt.Errorf("write record of attempt: %w", err)
	}
	return nil
}

// unsettled is a record whose end the store does not know.
type unsettled struct {
	key  string
	body []byte
}

// maxUnsettled bounds the memory for such records: of what is beyond it the store
// keeps that a worker may have died.
const maxUnsettled = 256

// end says how an attempt ended, with what was logged of it. What the store does not
// take now it is given later: until then it holds that the worker may have died.
func (s *shift) end(ctx context.Context, a *attempt, state string, cause error) {
	if !a.begun {
		return
	}
	r := s.record(a, state)
	r.Ended = time.Now()
	r.Log = a.tail.text()
	if cause != nil {
		r.Detail = public(cause)
	}
	key, body, err := encodeRecord(a, r)
	if err == nil {
		err = s.putRecord(ctx, key, body)
	}
	if err == nil || key == "" {
		if err != nil {
			s.warn(ctx, "record of attempt not written", a.m.ID, err)
		}
		return
	}
	a.log.Warn("record of attempt not written, will be tried again", "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unsettled) < maxUnsettled {
		s.unsettled[a.id] = unsettled{key, body}
	}
}

// knows reports whether this worker knows better than the store what became of an
// attempt: it is at it, or could not write that it has ended.
func (s *shift) knows(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.unsettled[id]; ok {
		return true
	}
	for _, a := range s.at {
		if a.id == id {
			return true
		}
	}
	return false
}

// settleEvery is how often records are tried again that the store did not take.
const settleEvery = 2 * time.Second

// settleRecords writes what the store did not take before, until the returned
// function is called, which tries once more.
func (s *shift) settleRecords(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(settleEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.writeUnsettled(ctx)
			}
		}
	}()
	return func() {
		cancel()
		<-ended
		calm, cancel := last(ctx)
		defer cancel()
		s.writeUnsettled(calm)
	}
}

// writeUnsettled tries all such records, until the store refuses one.
func (s *shift) writeUnsettled(ctx context.Context) {
	s.mu.Lock()
	all := make(map[string]unsettled, len(s.unsettled))
	for id, u := range s.unsettled {
		all[id] = u
	}
	s.mu.Unlock()
	for id, u := range all {
		if err := s.putRecord(ctx, u.key, u.body); err != nil {
			return
		}
		s.mu.Lock()
		delete(s.unsettled, id)
		s.mu.Unlock()
	}
}
