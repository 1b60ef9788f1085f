// Package operation holds what tasks do: pure functions from a spec and its
// inputs to output bytes, and the sizes that a plan needs to know before them.
//
// Coordinators plan with it, workers run it. It knows checkpoints, methods and
// stores, but neither the queue nor the fleet.
package operation

import (
	"context"
	"errors"
	"io"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/hub"
	"github.com/shardpress/shardpress/shard"
)

// ClassF32 is the numeric class of all arithmetic so far: float32, every step
// fused or not by rule, so that all machines agree on every bit.
const ClassF32 = "f32@1"

// Env is what an operation may use besides its spec.
type Env struct {
	// Message says where the sources are. It is not part of what is computed.
	Message *task.Message
	Sources Sources
	Store   objstore.Bucket
	Kernel  compress.Kernel
	// Progress is told the bytes of source that were worked through since the last
	// call. The task counts as alive for as long as it is called: with 0 where there
	// is work that the plan does not count, such as a first pass over a tensor.
	Progress func(bytes int64)
	// Put writes an output of the attempt.
	Put func(ctx context.Context, name string, r io.Reader, size int64) error
}

// Sources opens the checkpoints that tasks read.
type Sources interface {
	// Source opens weight files of the checkpoint at location, which is a message's and
	// as little to be trusted, and refuses files that are not what their identities say.
	Source(ctx context.Context, location string, files []shard.File) (*shard.Source, error)
}

// Operation runs the tasks of one op@version. It returns what it consumed, in the
// order of the spec's inputs.
type Operation interface {
	Run(ctx context.Context, spec *task.Spec, env *Env) ([]task.Consumed, error)
}

// All returns the operations of this program by op@version, for one worker: the tasks
// at once share what they keep between them.
func All() map[string]Operation {
	return map[string]Operation{
		EncodeOp: Encode{buffers: &pool{}},
	}
}

// Classify says what an error of an operation means for the run.
func Classify(err error) task.Kind {
	switch {
	case errors.Is(err, shard.ErrSourceChanged), errors.Is(err, shard.ErrDamaged):
		return task.Changed
	case errors.Is(err, compress.ErrInvalid), errors.Is(err, task.ErrInvalid),
		errors.Is(err, shard.ErrMalformed), errors.Is(err, shard.ErrMissing), errors.Is(err, shard.ErrUnsupported),
		errors.Is(err, shard.ErrDuplicate), errors.Is(err, shard.ErrOrder), errors.Is(err, hub.ErrRefused):
		return task.Invalid
	case errors.Is(err, objstore.ErrFull):
		return task.Full
	case errors.Is(err, shard.ErrUnreachable):
		return task.Storage
	case errors.Is(err, objstore.ErrReadOnly), errors.Is(err, objstore.ErrRoot):
		return task.Invalid
	default:
		return task.Transient
	}
}
