package local

import (
	"context"
	"fmt"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/objstore"
)

// Place is a directory on this machine in which a result appears that a fleet makes.
type Place struct {
	Bucket objstore.Bucket
	job    *Job
	unlock func()
}

// OpenPlace makes a directory ready for the result of a plan whose tasks are in
// store. It refuses to write over what is not an unfinished result, and returns
// ErrComplete if the very result stands there.
func OpenPlace(ctx context.Context, dir string, overwrite bool, store objstore.Bucket, plan *coordinator.Plan) (*Place, error) {
	j := &Job{Out: dir, Overwrite: overwrite}
	if _, _, err := lookAtOutput(ctx, j, store, plan); err != nil {
		return nil, err
	}
	unlock, err := lockOutput(dir)
	if err != nil {
		return nil, err
	}
	out, complete, err := openOutput(ctx, j, store, plan)
	if err == nil && complete {
		err = fmt.Errorf("%s: %w", dir, ErrComplete)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return &Place{Bucket: out, job: j, unlock: unlock}, nil
}

// Finish makes the directory an ordinary one: its result is complete.
func (p *Place) Finish(ctx context.Context) error {
	if err := p.job.release(ctx); err != nil {
		return fmt.Errorf("finish %s: %w", p.job.Out, err)
	}
	return nil
}

// Close lets go of the directory.
func (p *Place) Close() { p.unlock() }
