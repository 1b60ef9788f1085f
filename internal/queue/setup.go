package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shardpress/shardpress/internal/task"
)

// Buckets of the fleet.
const (
	workersBucket = "WORKERS"
	runsBucket    = "RUNS"
	leasesBucket  = "LEASES"
	// snapshotTTL is for runs whose coordinator never came back; the store knows how
	// those that ended did.
	snapshotTTL = 7 * 24 * time.Hour
	// markerTTL is how long a bucket remembers that an entry expired.
	markerTTL = time.Minute
)

// Limits of a consumer. MaxWaiting can never be changed later.
const (
	maxAckPending = 20_000
	maxWaiting    = 4096
)

var errNoJetStream = errors.New("the broker has no JetStream for this user: give it a jetstream section, and enable it for the user's account")

// Setup makes the stream, the consumers of the numeric classes and the buckets, or
// finds them. Many processes may do so at once. Who may not make them uses what is
// there, now or later.
func (q *Queue) Setup(ctx context.Context, classes ...string) error {
	for _, class := range classes {
		if !task.ValidToken(class) {
			return fmt.Errorf("set up queue: %w: numeric class %q", task.ErrInvalid, class)
		}
	}
	q.mu.Lock()
	for _, class := range classes {
		if !slices.Contains(q.classes, class) {
			q.classes = append(q.classes, class)
		}
	}
	q.mu.Unlock()
	// Nothing else depends on it: without persist's own repairs, which end up here.
	pause := 50 * time.Millisecond
	for {
		q.setupMu.Lock()
		err := q.setup(ctx)
		q.setupMu.Unlock()
		if err == nil || errors.Is(err, ErrDenied) {
			if err != nil {
				q.log.Info("queue is not set up by this process", "err", err)
			}
			return nil
		}
		if !passing(err) {
			return err
		}
		if werr := q.wait(ctx, pause); werr != nil {
			return fmt.Errorf("%w (gave up: %w)", err, werr)
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// restore makes again what a broker lost. It is called by whoever notices.
func (q *Queue) restore(ctx context.Context) error {
	q.setupMu.Lock()
	defer q.setupMu.Unlock()
	if time.Since(q.restored) < 100*time.Millisecond { // somebody else just did, and there are many
		return nil
	}
	defer func() { q.restored = time.Now() }()
	return q.setup(ctx)
}

func (q *Queue) streamConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:      streamName,
		Subjects:  []string{"task.>"},
		Retention: jetstream.WorkQueuePolicy,
		Storage:   jetstream.FileStorage,
		// A subject names one task: a second publish of a task that is queued or in
		// flight is refused, which dedupes for as long as it is outstanding.
		MaxMsgsPerSubject:    1,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		MaxMsgSize:           task.MaxMessage + 4096, // its headers count
		RePublish:            &jetstream.RePublish{Source: "task.>", Destination: "wake.>", HeadersOnly: true},
	}
}

func (q *Queue) consumerConfig(cell Cell) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       cell.String(),
		FilterSubject: cell.filter(),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       q.opts.AckWait,
		// Never give up here: a task at its delivery limit would stay in the
		// stream for ever, unseen. Workers count attempts themselves.
		MaxDeliver:    -1,
		MaxAckPending: maxAckPending,
		MaxWaiting:    maxWaiting,
		// What was delivered and not acknowledged is of no use to anybody after
		// an embedded broker's end, so it need not be on disk.
		MemoryStorage: q.embedded,
	}
}

func (q *Queue) bucketConfigs() []jetstream.KeyValueConfig {
	storage := jetstream.FileStorage
	if q.embedded {
		storage = jetstream.MemoryStorage
	}
	return []jetstream.KeyValueConfig{
		// A time to live of the whole bucket: that of one key is lost by its first update.
		{Bucket: workersBucket, Description: "workers that live", TTL: q.opts.RegistryTTL, LimitMarkerTTL: markerTTL, MaxValueSize: task.MaxMessage, Storage: jetstream.MemoryStorage},
		{Bucket: runsBucket, Description: "snapshots of live runs", TTL: snapshotTTL, LimitMarkerTTL: markerTTL, Storage: storage},
		{Bucket: leasesBucket, Description: "which coordinator drives which run", TTL: q.opts.LeaseTTL, LimitMarkerTTL: markerTTL, MaxValueSize: 4096, Storage: storage},
	}
}

// setup makes what is missing. What the user may not make is left to others.
func (q *Queue) setup(ctx context.Context) error {
	err := q.setupTasks(ctx)
	if err != nil && !errors.Is(err, ErrDenied) {
		return err
	}
	for _, c := range q.bucketConfigs() {
		if berr := q.setupBucket(ctx, c); berr != nil {
			if !errors.Is(berr, ErrDenied) {
				return berr
			}
			err = errors.Join(err, berr)
		}
	}
	return err
}

func (q *Queue) setupTasks(ctx context.Context) error {
	var stream jetstream.Stream
	err := q.ask(ctx, "$JS.API.STREAM.", requestTimeout, func(ctx context.Context) (err error) {
		stream, err = q.js.Stream(ctx, streamName)
		return err
	})
	want := q.streamConfig()
	if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && !sameStream(stream.CachedInfo().Config, want) {
		err = q.ask(ctx, "$JS.API.STREAM.", requestTimeout, func(ctx context.Context) (err error) {
			stream, err = q.js.CreateOrUpdateStream(ctx, want)
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process, of another version, was first
				stream, err = q.js.Stream(ctx, streamName)
			}
			return err
		})
	}
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fmt.Errorf("create stream %s: %w", streamName, errNoJetStream)
	}
	if err != nil {
		return fmt.Errorf("create stream %s: %w", streamName, err)
	}
	q.mu.Lock()
	classes := slices.Clone(q.classes)
	q.mu.Unlock()
	if len(classes) == 0 {
		return nil
	}
	there := map[string]bool{}
	err = q.ask(ctx, "$JS.API.CONSUMER.", requestTimeout, func(ctx context.Context) error {
		names := stream.ConsumerNames(ctx)
		for name := range names.Name() {
			there[name] = true
		}
		return names.Err()
	})
	if err != nil {
		return fmt.Errorf("list consumers of stream %s: %w", streamName, err)
	}
	for _, class := range classes {
		for _, cell := range Ladder(class, largestClass) {
			if there[cell.String()] {
				continue
			}
			err := q.ask(ctx, "$JS.API.CONSUMER.", requestTimeout, func(ctx context.Context) error {
				_, err := stream.CreateOrUpdateConsumer(ctx, q.consumerConfig(cell))
				return err
			})
			if err != nil {
				return fmt.Errorf("create consumer %s: %w", cell, err)
			}
		}
	}
	return nil
}

// sameStream compares what Setup asks for; a broker fills in the rest.
func sameStream(have, want jetstream.StreamConfig) bool {
	return slices.Equal(have.Subjects, want.Subjects) && have.Retention == want.Retention && have.Storage == want.Storage &&
		have.MaxMsgsPerSubject == want.MaxMsgsPerSubject && have.Discard == want.Discard && have.DiscardNewPerSubject == want.DiscardNewPerSubject &&
		have.MaxMsgSize == want.MaxMsgSize && have.RePublish != nil && *have.RePublish == *want.RePublish
}

func (q *Queue) setupBucket(ctx context.Context, c jetstream.KeyValueConfig) error {
	err := q.ask(ctx, "$JS.API.", requestTimeout, func(ctx context.Context) error {
		_, err := q.js.KeyValue(ctx, c.Bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			_, err = q.js.CreateKeyValue(ctx, c)
			if errors.Is(err, jetstream.ErrBucketExists) { // another process was first
				err = nil
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", c.Bucket, err)
	}
	return nil
}

// bucket opens a bucket. A handle outlives the bucket: it only knows its name.
func (q *Queue) bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	q.mu.Lock()
	kv := q.buckets[name]
	q.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := q.js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.buckets[name] = kv
	return kv, nil
}
