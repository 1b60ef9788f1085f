package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shardpress/shardpress/internal/task"
)

// Check is one finding about the broker.
type Check struct {
	Name   string // what was looked at
	State  CheckState
	Detail string // what was found
	Remedy string // what to do, unless it is well
}

// CheckState says how grave a finding is.
type CheckState string

// The states of a check.
const (
	CheckOK      CheckState = "ok"
	CheckWarning CheckState = "warning" // it works, but see the remedy
	CheckMissing CheckState = "missing" // Setup makes it
	CheckFailed  CheckState = "failed"
)

// minAPILevel is that of a server that knows all that is used here (a bucket's
// markers need level 1, which came with 2.11).
const minAPILevel = 1

// leastStorage is what a broker should have room for, in bytes.
const leastStorage = 64 << 20

// Check looks whether a broker has what a fleet needs. It changes nothing. What the
// user may not see is a warning.
func (q *Queue) Check(ctx context.Context) ([]Check, error) {
	ctx, stop := context.WithTimeout(ctx, readLimit)
	defer stop()
	if err := q.connected(ctx); err != nil {
		return nil, fmt.Errorf("check broker: %w", err)
	}
	checks := []Check{q.checkConnection(), q.checkPayload(), q.checkSync()}
	checks = append(checks, q.checkJetStream(ctx))
	checks = append(checks, q.checkTasks(ctx)...)
	for _, c := range q.bucketConfigs() {
		checks = append(checks, q.checkBucket(ctx, c))
	}
	return checks, nil
}

func (q *Queue) checkConnection() Check {
	c := Check{Name: "connection", State: CheckOK}
	rtt, err := q.nc.RTT()
	if err != nil {
		return Check{c.Name, CheckFailed, err.Error(), "check the network between here and the broker"}
	}
	_, err = q.nc.TLSConnectionState()
	how := "TLS"
	if err != nil {
		how = "no TLS"
	}
	c.Detail = fmt.Sprintf("%s, NATS %s, %s, round trip %s", q.nc.ConnectedUrlRedacted(), q.nc.ConnectedServerVersion(), how, rtt.Round(time.Microsecond))
	return c
}

func (q *Queue) checkPayload() Check {
	limit := q.nc.MaxPayload()
	c := Check{Name: "largest message", State: CheckOK, Detail: strconv.FormatInt(limit>>10, 10) + " KiB"}
	if need := int64(task.MaxMessage + 4096); limit < need {
		c.State = CheckFailed
		c.Remedy = fmt.Sprintf("set max_payload of the broker to at least %d bytes, better to 1MB", need)
	} else if limit < 1<<20 {
		c.State = CheckWarning
		c.Remedy = "snapshots of large runs may not fit: set max_payload of the broker to 1MB"
	}
	return c
}

// checkSync can tell only of our own broker: no client sees this setting.
func (q *Queue) checkSync() Check {
	if q.nc.ConnectedServerName() == brokerName {
		return Check{Name: "sync mode", State: CheckOK, Detail: "always (shardpress broker)"}
	}
	return Check{
		"sync mode", CheckWarning, "not visible to a client",
		"look at http://BROKER:8222/jsz?config=1, which must say \"sync_always\": true; if it does not, set jetstream { sync_interval: always } in the broker's configuration",
	}
}

func (q *Queue) checkJetStream(ctx context.Context) Check {
	c := Check{Name: "JetStream", State: CheckOK}
	var info *jetstream.AccountInfo
	err := q.look(ctx, "$JS.API.INFO", func(ctx context.Context) (err error) {
		info, err = q.js.AccountInfo(ctx)
		return err
	})
	switch {
	case errors.Is(err, ErrDenied):
		return unseen(c.Name, err)
	case gone(err), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return Check{c.Name, CheckFailed, "not enabled", "start the broker with a jetstream { store_dir: ... } section, and enable it for the user's account"}
	case err != nil:
		return Check{c.Name, CheckFailed, err.Error(), "see the broker's log"}
	}
	c.Detail = fmt.Sprintf("API level %d, %d streams, %d MiB stored", info.API.Level, info.Streams, info.Store>>20)
	if info.API.Level < minAPILevel {
		c.State, c.Remedy = CheckFailed, "use NATS 2.11 or newer, better 2.15"
	} else if limit := info.Limits.MaxStore; limit >= 0 {
		c.Detail += fmt.Sprintf(" of %d MiB", limit>>20)
		if limit < leastStorage {
			c.State, c.Remedy = CheckWarning, fmt.Sprintf("give the account at least %d MiB of file storage", leastStorage>>20)
		}
	}
	return c
}

// checkTasks looks at the stream and its consumers.
func (q *Queue) checkTasks(ctx context.Context) []Check {
	name := "stream " + streamName
	var stream jetstream.Stream
	err := q.look(ctx, "$JS.API.STREAM.", func(ctx context.Context) (err error) {
		stream, err = q.js.Stream(ctx, streamName)
		return err
	})
	switch {
	case errors.Is(err, ErrDenied):
		return []Check{unseen(name, err)}
	case gone(err):
		return []Check{{name, CheckMissing, "not there", "start a coordinator, or run doctor --create"}}
	case err != nil:
		return []Check{{name, CheckFailed, err.Error(), "see the broker's log"}}
	}
	info := stream.CachedInfo()
	c := Check{Name: name, State: CheckOK, Detail: fmt.Sprintf("%d tasks, %d consumers, %d replicas", info.State.Msgs, info.State.Consumers, info.Config.Replicas)}
	if !sameStream(info.Config, q.streamConfig()) {
		c.State, c.Remedy = CheckFailed, "its settings are not those of this version: start a coordinator of this version, or run doctor --create; if that does not help, remove the stream (it holds scheduling state only)"
	}
	return []Check{c, q.checkConsumers(ctx, stream)}
}

func (q *Queue) checkConsumers(ctx context.Context, stream jetstream.Stream) Check {
	c := Check{Name: "consumers", State: CheckOK}
	there := map[Cell]bool{}
	var strange []string
	err := q.look(ctx, "$JS.API.CONSUMER.", func(ctx context.Context) error {
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			cell, found := parseConsumer(info.Name)
			if !found || !sameConsumer(info.Config, q.consumerConfig(cell)) {
				strange = append(strange, info.Name)
			}
			there[cell] = found
		}
		return list.Err()
	})
	switch {
	case errors.Is(err, ErrDenied):
		return unseen(c.Name, err)
	case err != nil:
		return Check{c.Name, CheckFailed, err.Error(), "see the broker's log"}
	}
	q.mu.Lock()
	classes := append([]string(nil), q.classes...)
	q.mu.Unlock()
	var missing []string
	for _, class := range classes {
		for _, cell := range Ladder(class, largestClass) {
			if !there[cell] {
				missing = append(missing, cell.String())
			}
		}
	}
	c.Detail = fmt.Sprintf("%d", len(there))
	switch {
	case len(missing) > 0:
		c.State, c.Remedy = CheckMissing, "start a coordinator, or run doctor --create"
		c.Detail += fmt.Sprintf("; %d are not there: %s", len(missing), short(missing))
	case len(strange) > 0:
		c.State = CheckWarning
		c.Detail += fmt.Sprintf("; %d with other settings than this version's: %s", len(strange), short(strange))
		c.Remedy = "remove these consumers while nothing runs, and start a coordinator"
	}
	return c
}

// sameConsumer compares what decides how tasks are offered.
func sameConsumer(have, want jetstream.ConsumerConfig) bool {
	return have.FilterSubject == want.FilterSubject && have.AckPolicy == want.AckPolicy && have.AckWait == want.AckWait &&
		have.MaxDeliver == want.MaxDeliver && have.MaxAckPending == want.MaxAckPending && len(have.BackOff) == 0
}

func (q *Queue) checkBucket(ctx context.Context, want jetstream.KeyValueConfig) Check {
	c := Check{Name: "bucket " + want.Bucket, State: CheckOK}
	var status jetstream.KeyValueStatus
	err := q.look(ctx, "$JS.API.STREAM.", func(ctx context.Context) error {
		kv, err := q.js.KeyValue(ctx, want.Bucket)
		if err == nil {
			status, err = kv.Status(ctx)
		}
		return err
	})
	switch {
	case errors.Is(err, ErrDenied):
		return unseen(c.Name, err)
	case gone(err):
		return Check{c.Name, CheckMissing, "not there", "start a coordinator, or run doctor --create"}
	case err != nil:
		return Check{c.Name, CheckFailed, err.Error(), "see the broker's log"}
	}
	c.Detail = fmt.Sprintf("%d entries, which live %s", status.Values(), status.TTL())
	if status.TTL() != want.TTL {
		c.State, c.Remedy = CheckWarning, fmt.Sprintf("entries should live %s: remove the bucket while nothing runs, and start a coordinator", want.TTL)
	}
	return c
}

// look asks once, without making anything.
func (q *Queue) look(ctx context.Context, prefix string, f func(context.Context) error) error {
	return q.ask(ctx, prefix, readLimit, f)
}

func unseen(name string, err error) Check {
	return Check{name, CheckWarning, "not visible: " + err.Error(), "look with the credentials of a coordinator"}
}

// short is a list of names for a line of text.
func short(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}
