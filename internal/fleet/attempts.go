package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Attempts lists the attempts of a run, oldest first. Damaged records are left out.
func Attempts(ctx context.Context, store objstore.Bucket, run string) ([]*task.AttemptRecord, error) {
	if !task.ValidToken(run) {
		return nil, fmt.Errorf("run %q: %w: no name of a run", run, task.ErrInvalid)
	}
	prefix := "runs/" + run + "/attempts/"
	var all []*task.AttemptRecord
	for info, err := range store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list attempts of run %s: %w", run, err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(info.Key, prefix), "-")
		id, err := task.ParseID(name)
		if err != nil {
			continue
		}
		b, err := objstore.ReadAll(ctx, store, info.Key, task.MaxAttempt)
		if err != nil {
			return nil, fmt.Errorf("read attempt %s: %w", info.Key, err)
		}
		if a, err := task.ParseAttempt(id, b); err == nil {
			all = append(all, a)
		}
	}
	slices.SortStableFunc(all, func(a, b *task.AttemptRecord) int { return cmp.Compare(a.Attempt, b.Attempt) }) // ULIDs sort by time
	return all, nil
}
