package queue

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

// The accounts of a broker that has users. Permissions alone are not enough: who may
// ask JetStream anything may name where the answer goes, and a question whose answer
// goes to "$JS.API.STREAM.PURGE.TASKS" is an order. All but coordinators are in an
// account without JetStream. It imports what its members need, and so the answers
// stay in it.
const (
	fleetAccount   = "FLEET"
	membersAccount = "MEMBERS"
)

func (r Role) account() string {
	if r == RoleCoordinator {
		return fleetAccount
	}
	return membersAccount
}

// services are the questions that members may ask JetStream, and their confirmed
// writes.
func services() []string {
	return []string{
		"$JS.API.INFO",
		"$JS.API.STREAM.INFO.*",
		"$JS.API.STREAM.MSG.GET.TASKS",
		"$JS.API.CONSUMER.LIST.TASKS",
		"$JS.API.CONSUMER.NAMES.TASKS",
		"$JS.API.CONSUMER.MSG.NEXT.TASKS.*",
		"$JS.API.DIRECT.GET.KV_WORKERS.>",
		"$JS.API.DIRECT.GET.KV_RUNS.>",
		"$JS.API.DIRECT.GET.KV_LEASES.>",
		"$JS.ACK.TASKS.>",
		"$KV.WORKERS.*",
	}
}

// toMembers and toFleet are what one account hears of the other.
func toMembers() []string { return []string{"wake.>", "event.*"} }

func toFleet() []string { return []string{"note.>", "run.submitted.*", "run.cancel.*"} }

// rights are the subjects to which a user may publish and subscribe. What is not
// named is refused.
type rights struct{ publish, subscribe []string }

func rightsOf(role Role, name string) rights {
	look := []string{
		"$JS.API.INFO",
		"$JS.API.STREAM.INFO.*",
		"$JS.API.STREAM.MSG.GET.TASKS",
		"$JS.API.CONSUMER.LIST.TASKS",
		"$JS.API.CONSUMER.NAMES.TASKS",
		"$JS.API.DIRECT.GET.KV_WORKERS.>",
		"$JS.API.DIRECT.GET.KV_RUNS.>",
		"$JS.API.DIRECT.GET.KV_LEASES.>",
	}
	watch := []string{"_INBOX.>", "event.*", "note.>"}
	switch role {
	case RoleCoordinator:
		return rights{
			[]string{"$JS.API.>", "$KV.RUNS.*", "$KV.LEASES.*", "task.>", "event.*", "run.*.*"},
			append(watch, "run.*.*"),
		}
	case RoleWorkers:
		return rightsOf(RoleWorker, "*")
	case RoleWorker:
		inbox := "_INBOX." + name + ".>"
		if name == "*" {
			inbox = "_INBOX.>"
		}
		return rights{
			[]string{
				"$JS.API.STREAM.INFO.TASKS", "$JS.API.STREAM.INFO.KV_WORKERS", "$JS.API.CONSUMER.NAMES.TASKS",
				"$JS.API.CONSUMER.MSG.NEXT.TASKS.*", "$JS.ACK.TASKS.>",
				"$KV.WORKERS." + name, "note." + name + ".*.*",
				"wake.>", // a task that was given back
			},
			[]string{inbox, "wake.> workers", "run.cancel.*"},
		}
	case RoleClient:
		return rights{append(look, "run.submitted.*", "run.cancel.*"), watch}
	case RoleObserver:
		return rights{look, watch}
	}
	return rights{} // the check of users refuses other roles
}
