package queue

import (
	"github.com/nats-io/nats-server/v2/server"
)

// Role says what a user of the broker may do.
type Role string

// The roles. deploy/nats holds the same as a configuration file of NATS.
const (
	// RoleCoordinator drives runs: it makes the streams, publishes and withdraws tasks.
	RoleCoordinator Role = "coordinator"
	// RoleWorker is one worker, of the user's name: it takes tasks and speaks in its
	// own name.
	RoleWorker Role = "worker"
	// RoleWorkers is any worker: those who share such a user can speak in each other's
	// names, and not do more than that.
	RoleWorkers Role = "workers"
	// RoleClient submits, cancels and watches runs.
	RoleClient Role = "client"
	// RoleObserver watches.
	RoleObserver Role = "observer"
)

func roles() []Role {
	return []Role{RoleCoordinator, RoleWorker, RoleWorkers, RoleClient, RoleObserver}
}

// permissions are what a user of the role may publish and subscribe to. What is not
// named is refused.
func permissions(role Role, name string) *server.Permissions {
	allow := func(publish, subscribe []string) *server.Permissions {
		return &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: publish},
			Subscribe: &server.SubjectPermission{Allow: subscribe},
		}
	}
	look := []string{
		"$JS.API.INFO",
		"$JS.API.STREAM.INFO.*",
		"$JS.API.STREAM.MSG.GET.TASKS",
		"$JS.API.CONSUMER.LIST.TASKS", "$JS.API.CONSUMER.NAMES.TASKS", "$JS.API.CONSUMER.INFO.*.*",
		"$JS.API.DIRECT.GET.KV_WORKERS.>", "$JS.API.DIRECT.GET.KV_RUNS.>", "$JS.API.DIRECT.GET.KV_LEASES.>",
		// Reading a whole bucket takes a consumer that lives for the moment.
		"$JS.API.CONSUMER.CREATE.KV_WORKERS.>", "$JS.API.CONSUMER.DELETE.KV_WORKERS.*", "$JS.FC.>",
	}
	watch := []string{"_INBOX.>", "event.*", "note.>"}
	switch role {
	case RoleCoordinator:
		return allow(
			[]string{"$JS.API.>", "$JS.FC.>", "$KV.RUNS.*", "$KV.LEASES.*", "task.>", "event.*", "run.*.*"},
			append(watch, "run.*.*"))
	case RoleWorkers:
		return permissions(RoleWorker, "*")
	case RoleWorker:
		inbox := "_INBOX." + name + ".>"
		if name == "*" {
			inbox = "_INBOX.>"
		}
		return allow(
			[]string{
				"$JS.API.STREAM.INFO.TASKS", "$JS.API.STREAM.INFO.KV_WORKERS", "$JS.API.CONSUMER.NAMES.TASKS",
				"$JS.API.CONSUMER.MSG.NEXT.TASKS.*", "$JS.ACK.TASKS.>",
				"$KV.WORKERS." + name, "note." + name + ".*.*",
				"wake.>", // a task that was given back
			},
			[]string{inbox, "wake.> workers", "run.cancel.*"})
	case RoleClient:
		return allow(append(look, "run.submitted.*", "run.cancel.*"), watch)
	case RoleObserver:
		return allow(look, watch)
	}
	return allow([]string{">"}[:0], nil) // nothing; the reader of users refuses other roles
}
