package coordinator

import (
	"errors"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/shard"
)

// invalid reports whether an error is one of what was asked for, which no other
// attempt can mend.
func invalid(err error) bool {
	for _, target := range []error{
		compress.ErrInvalid, task.ErrInvalid, shard.ErrMalformed, shard.ErrMissing, shard.ErrDuplicate, shard.ErrUnsupported, shard.ErrFused, shard.ErrOrder,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
