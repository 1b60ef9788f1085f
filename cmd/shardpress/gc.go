package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
)

func newGC() *cobra.Command {
	var store string
	var remote storeFlags
	var age time.Duration
	var dry, asJSON bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove old results from a store",
		Long: `Remove from a store the task results that were not written for longer than
--older-than, records of old runs, checkpoints that were uploaded for them, and whatever
killed attempts left behind.
Finished checkpoints stay as they are, also where they share bytes with the store;
their room on the disk becomes free when they are removed too.

Which store that is must be said: SHARDPRESS_STORE is not asked.

Ages are by the store's own clock. A store that cannot be written has none to ask:
there --dry-run takes the time of the last write for now.`,
		Example: `  shardpress gc --store ./.shardpress --dry-run
  shardpress gc --store ./.shardpress --older-than 0s
  shardpress gc --store s3://models/fleet --older-than 720h`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if age < 0 {
				return &usageError{fmt.Errorf("--older-than %s: want an age that is not negative", age)}
			}
			got, err := collect(c.Context(), &remote, store, age, dry)
			if errors.Is(err, objstore.ErrRoot) && !c.Flags().Changed("store") {
				return fmt.Errorf("%w: name the store with --store: it lies beside the results of compress", err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(got)
			}
			verb := "removed"
			if dry {
				verb = "would remove"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s %d tasks, %d stale attempts, %d runs and %d uploads, %s; kept %d tasks, %s\n",
				verb, got.Tasks, got.Attempts, got.Runs, got.Sources, formatBytes(got.Bytes), got.Kept, formatBytes(got.KeptSize))
			return err
		},
	}
	c.Flags().StringVar(&store, "store", ".shardpress", "the store: a directory, or a fleet's s3://bucket/prefix")
	remote.registerS3(c)
	c.Flags().DurationVar(&age, "older-than", 7*24*time.Hour, "age from which a result is removed, by the store's clock")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// collect collects from a directory that is one process's own, or from a fleet's
// store, which runs may be using.
func collect(ctx context.Context, f *storeFlags, store string, age time.Duration, dry bool) (coordinator.Collected, error) {
	if !isS3(store) {
		return local.Collect(ctx, store, age, dry)
	}
	f.store = store
	b, err := f.open(ctx)
	if err != nil {
		return coordinator.Collected{}, err
	}
	got, err := coordinator.Collect(ctx, b, coordinator.CollectOptions{Age: age, Dry: dry})
	if s, ok := b.(*s3.Bucket); ok && err == nil && !dry {
		_, err = s.SweepUploads(ctx, max(age, 24*time.Hour))
	}
	return got, err
}
