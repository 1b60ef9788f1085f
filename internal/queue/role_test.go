package queue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/shardpress/shardpress/internal/task"
)

const password = "a-long-password"

// users are those of deploy/nats/shardpress.conf.
func users() []User {
	secret := "plain:" + password
	return []User{
		{"coordinator", RoleCoordinator, secret}, {"w1", RoleWorker, secret}, {"w2", RoleWorker, secret},
		{"pool", RoleWorkers, secret}, {"client", RoleClient, secret}, {"observer", RoleObserver, secret},
	}
}

// as is the URL of the broker with a user in it.
func as(user, url string) string { return strings.Replace(url, "://", "://"+user+":"+password+"@", 1) }

// example reads the example configuration. Its passwords come from the environment,
// which tests do not change.
func example(t *testing.T) *server.Options {
	t.Helper()
	b, err := os.ReadFile("../../deploy/nats/shardpress.conf")
	if err != nil {
		t.Fatal(err)
	}
	o := &server.Options{}
	if err := o.ProcessConfigString(regexp.MustCompile(`\$[A-Z0-9]+_PASSWORD`).ReplaceAllString(string(b), password)); err != nil {
		t.Fatal(err)
	}
	return o
}

// configured starts a broker from the example configuration that is documented.
func configured(t *testing.T) string {
	t.Helper()
	o := example(t)
	o.Host, o.Port, o.HTTPPort, o.StoreDir, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, 0, scratch(t), true, true
	if !o.SyncAlways {
		t.Error("the example does not sync always")
	}
	o.SyncAlways = false // slow, and nothing to do with permissions
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the broker is not ready")
	}
	return srv.ClientURL()
}

// The example and the broker of our own give the same permissions.
func TestExampleConfiguration(t *testing.T) {
	t.Parallel()
	o := example(t)
	have := map[string]*server.Permissions{}
	for _, u := range o.Users {
		have[u.Username] = u.Permissions
	}
	sorted := func(subjects []string) []string { return slices.Sorted(slices.Values(subjects)) }
	for _, u := range users() {
		if u.Name == "w2" {
			continue // like w1
		}
		want, got := rightsOf(u.Role, u.Name), have[u.Name]
		if got == nil {
			t.Errorf("the example has no user %s", u.Name)
			continue
		}
		if g, w := sorted(got.Publish.Allow), sorted(want.publish); !slices.Equal(g, w) {
			t.Errorf("%s may publish\n%q in the example, want\n%q", u.Name, g, w)
		}
		if g, w := sorted(got.Subscribe.Allow), sorted(want.subscribe); !slices.Equal(g, w) {
			t.Errorf("%s may subscribe\n%q in the example, want\n%q", u.Name, g, w)
		}
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(t *testing.T) string{
		"our broker": func(t *testing.T) string { return broker(t, BrokerOptions{Users: users()}).URL() },
		"example":    configured,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := url(t)
			t.Run("may", func(t *testing.T) { mayDoTheirWork(t, url) })
			t.Run("may not", func(t *testing.T) { mayNotDoMore(t, url) })
		})
	}
}

// mayDoTheirWork plays a run with every role.
func mayDoTheirWork(t *testing.T, url string) {
	ctx := within(t)
	// A worker that comes first waits for a coordinator, who makes everything.
	w := ready(t, Options{URL: as("w1", url), Name: "w1"})
	c := ready(t, Options{URL: as("coordinator", url), Name: "c1"})
	client := ready(t, Options{URL: as("client", url)})
	observer := ready(t, Options{URL: as("observer", url)})
	pool := ready(t, Options{URL: as("pool", url), Name: "pod-17"})
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	hints, err := c.Hints(ctx)
	check("hints", err)
	notices, err := c.Notices(ctx)
	check("notices", err)
	events, err := client.Events(ctx, "run")
	check("events", err)
	cancels, err := w.Hints(ctx, HintCancel)
	check("cancel hints", err)
	check("submit", client.Hint(ctx, HintSubmitted, "run"))
	if h := <-hints; h != (Hint{HintSubmitted, "run"}) {
		t.Errorf("hint %v", h)
	}
	lease, err := c.Acquire(ctx, "run", "c1")
	check("acquire", err)
	check("renew", lease.Renew(ctx))
	check("snapshot", c.PutSnapshot(ctx, "run", []byte("{}")))
	check("announce", c.Announce(ctx, "run", []byte("e")))
	if e := <-events; string(e) != "e" {
		t.Errorf("event %q", e)
	}
	for n, worker := range []*Queue{w, pool} {
		publish(t, c, message(byte(n), 1))
		name := worker.opts.Name
		check("register", worker.Register(ctx, &task.WorkerInfo{Name: name}))
		d := next(t, worker, 1<<30)
		check("notify", worker.Notify(&task.Notice{ID: task.ID{byte(n)}, State: task.Began, Worker: name}))
		if got := <-notices; got == nil || got.Worker != name {
			t.Errorf("notice %v", got)
		}
		check("extend", d.Extend())
		check("retry", d.Retry(0))
		d = next(t, worker, 1<<30)
		check("done", d.Done(ctx))
	}
	publish(t, c, message(3, 1))
	check("withdraw", c.Withdraw(ctx, message(3, 1)))
	_, err = c.DropStranded(ctx)
	check("drop stranded", err)
	check("cancel", client.Hint(ctx, HintCancel, "run"))
	if h := <-cancels; h != (Hint{HintCancel, "run"}) {
		t.Errorf("hint %v", h)
	}
	publish(t, c, message(4, 1))
	for _, q := range []*Queue{c, client, observer} {
		if ws, err := q.Workers(ctx); err != nil || len(ws) != 2 {
			t.Errorf("workers: %v, %v", ws, err)
		}
		b, err := q.Snapshot(ctx, "run")
		if err != nil || string(b) != "{}" {
			t.Errorf("snapshot: %q, %v", b, err)
		}
		if s, err := q.Backlog(ctx); err != nil || len(s) != 1 || s[0].Waiting != 1 {
			t.Errorf("backlog: %v, %v", s, err)
		}
		if h, err := q.Holder(ctx, "run"); err != nil || h != "c1" {
			t.Errorf("holder: %q, %v", h, err)
		}
		checks, err := q.Check(ctx)
		check("check", err)
		for _, c := range checks {
			if c.State != CheckOK && c.Name != "sync mode" {
				t.Errorf("check: %+v", c)
			}
		}
	}
	check("unregister", w.Unregister(ctx, "w1"))
	check("release", lease.Release(ctx))
	check("delete snapshot", c.DeleteSnapshot(ctx, "run"))
	check("withdraw", c.Withdraw(ctx, message(4, 1)))
}

// mayNotDoMore tries on the wire what a user with its own client could.
func mayNotDoMore(t *testing.T, url string) {
	ready(t, Options{URL: as("coordinator", url), Name: "c1"})
	for user, refused := range map[string]struct{ publish, subscribe []string }{
		"w1": {
			publish: []string{
				"$JS.API.STREAM.DELETE.TASKS", "$JS.API.STREAM.PURGE.TASKS", "$JS.API.STREAM.UPDATE.TASKS", "$JS.API.STREAM.CREATE.OTHER",
				"$JS.API.STREAM.MSG.DELETE.TASKS", "$JS.API.CONSUMER.DELETE.TASKS.f32@1-b-m64", "$JS.API.CONSUMER.CREATE.TASKS.x",
				"$JS.API.CONSUMER.DURABLE.CREATE.TASKS.x", "$JS.API.CONSUMER.PAUSE.TASKS.f32@1-b-m64",
				"$JS.API.STREAM.DELETE.KV_WORKERS", "$JS.API.STREAM.PURGE.KV_WORKERS", "$JS.API.STREAM.SNAPSHOT.TASKS",
				"task.f32@1.b.m64." + strings.Repeat("0", 64), "note.w2.done." + strings.Repeat("0", 64),
				"$KV.RUNS.run", "$KV.LEASES.run", "$KV.WORKERS.w2", "event.run", "run.submitted.run", "run.cancel.run", "_INBOX.w2.x",
			},
			subscribe: []string{">", "task.>", "note.>", "_INBOX.>", "_INBOX.w2.>", "$JS.>", "$KV.>", "event.*", "wake.>"},
		},
		"pool":     {publish: []string{"$JS.API.STREAM.PURGE.TASKS", "task.x", "$KV.RUNS.run", "event.run"}, subscribe: []string{">", "note.>", "$KV.>"}},
		"client":   {publish: []string{"$JS.API.STREAM.PURGE.TASKS", "task.x", "note.w1.done.x", "$KV.RUNS.run", "$JS.API.CONSUMER.MSG.NEXT.TASKS.f32@1-b-m64", "$JS.ACK.TASKS.x", "event.run"}, subscribe: []string{">", "$JS.>"}},
		"observer": {publish: []string{"$JS.API.STREAM.PURGE.TASKS", "task.x", "note.w1.done.x", "run.cancel.run", "run.submitted.run", "wake.x"}, subscribe: []string{">", "task.>"}},
		// Not even a coordinator speaks for a worker.
		"coordinator": {publish: []string{"note.w1.done.x", "$KV.WORKERS.w1"}, subscribe: []string{">"}},
	} {
		errs := make(chan error, 100)
		nc := raw(t, as(user, url), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
		expect := func(what string) {
			t.Helper()
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-errs:
				if !errors.Is(err, nats.ErrPermissionViolation) {
					t.Errorf("%s, %s: %v", user, what, err)
				}
			case <-time.After(patience / 4):
				t.Errorf("%s: the broker allows to %s", user, what)
			}
		}
		for _, s := range refused.publish {
			if err := nc.Publish(s, nil); err != nil {
				t.Fatal(err)
			}
			expect("publish to " + s)
		}
		for _, s := range refused.subscribe {
			sub, err := nc.SubscribeSync(s)
			if err != nil {
				t.Fatal(err)
			}
			expect("subscribe to " + s)
			_ = sub.Unsubscribe() // was never one
		}
	}
}

// Who asks the broker chooses where the answer goes: that must not be a way to give
// orders to the broker, or to speak in another's name. Permissions do not prevent it,
// accounts do.
func TestAnswersAreNoOrders(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) string{
		"our broker": func(t *testing.T) string { return broker(t, BrokerOptions{Users: users()}).URL() },
		"example":    configured,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := start(t)
			c := ready(t, Options{URL: as("coordinator", url)})
			notices, err := c.Notices(within(t))
			if err != nil {
				t.Fatal(err)
			}
			publish(t, c, message(1, 1), message(2, 1), message(3, 1))
			info, err := c.js.Stream(within(t), streamName)
			if err != nil {
				t.Fatal(err)
			}
			born := info.CachedInfo().Created
			for user, questions := range map[string][]string{
				// A pull is answered with a task, and without.
				"w1":     {"$JS.API.CONSUMER.MSG.NEXT.TASKS.f32@1-b-m64", "$JS.API.CONSUMER.MSG.NEXT.TASKS.f32@1-c-m64", "$JS.API.STREAM.INFO.TASKS"},
				"client": {"$JS.API.INFO", "$JS.API.STREAM.INFO.TASKS", "$JS.API.CONSUMER.NAMES.TASKS"},
			} {
				nc := raw(t, as(user, url), nats.CustomInboxPrefix("_INBOX."+user))
				for _, question := range questions {
					for _, reply := range []string{
						"$JS.API.STREAM.PURGE.TASKS", "$JS.API.STREAM.DELETE.TASKS", "$JS.API.STREAM.DELETE.KV_RUNS",
						"note.w2.done." + strings.Repeat("0", 64), "$KV.RUNS.run", "event.run", "task.f32@1.b.m64." + strings.Repeat("9", 64),
					} {
						if err := nc.PublishRequest(question, reply, []byte(`{"batch":1,"no_wait":true}`)); err != nil {
							t.Fatal(err)
						}
					}
				}
				if _, err := nc.Request("$JS.API.STREAM.INFO.TASKS", nil, patience); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := c.Outstanding(within(t)); err != nil || len(out) != 3 {
				t.Errorf("outstanding: %v, %v", out, err)
			}
			if info, err := c.js.Stream(within(t), streamName); err != nil || !info.CachedInfo().Created.Equal(born) {
				t.Errorf("the stream is another one: %v", err)
			}
			if s, err := c.Snapshot(within(t), "run"); !errors.Is(err, ErrNotFound) {
				t.Errorf("snapshot %q, %v", s, err)
			}
			select {
			case n := <-notices:
				t.Errorf("forged notice %v", n)
			default:
			}
		})
	}
}

// A question that the broker refuses fails at once, and names what is missing.
func TestDeniedAtOnce(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{Users: users()})
	c := ready(t, Options{URL: as("coordinator", b.URL())})
	if err := c.Publish(within(t), message(2, 1)); err != nil { // there has to be something to withdraw
		t.Fatal(err)
	}
	q := ready(t, Options{URL: as("observer", b.URL())})
	for what, f := range map[string]func(context.Context) error{
		"publish":  func(ctx context.Context) error { return q.Publish(ctx, message(1, 1)) },
		"withdraw": func(ctx context.Context) error { return q.Withdraw(ctx, message(2, 1)) },
		"register": func(ctx context.Context) error { return q.Register(ctx, &task.WorkerInfo{Name: "w"}) },
		"acquire":  func(ctx context.Context) error { _, err := q.Acquire(ctx, "run", "me"); return err },
		"next":     func(ctx context.Context) error { _, err := q.Next(ctx, fits(1<<30)); return err },
	} {
		if err := f(within(t)); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", what, err)
		} else if !strings.Contains(err.Error(), "permissions of its role") {
			t.Errorf("%s: no remedy in %q", what, err)
		}
	}
}

func TestParseUsers(t *testing.T) {
	t.Parallel()
	const hash = "$2a$11$ooooooooooooooooooooooooooooooooooooooooooooooooooooo"
	const key = "UBBRUTHLWYYFEXTUJRO6BZX2TWBPCQHMLQFXSBQU5R5CTHBLDE3XQLGQ"
	for _, c := range []struct{ name, text, want string }{
		{"all kinds", "# users\n\nc1 coordinator " + hash + "\nw1\tworker plain:a-long-password # comment\n", ""},
		{"nothing", "# none\n", "names no user"},
		{"words", "c1 coordinator\n", "line 1: "},
		{"more words", "c1 coordinator plain:a-long password\n", "4 words"},
		{"role", "c1 root " + hash, `role "root"`},
		{"name", "c.1 coordinator " + hash, `user "c.1"`},
		{"wildcard", "* worker " + hash, `user "*"`},
		{"twice", "a client " + hash + "\na client " + hash, "stands in line 1"},
		{"short password", "a client plain:short", "shorter than"},
		{"naked password", "a client a-long-password", "neither"},
		{"seed for a key", "a client S" + key[1:], "neither"},
		{"long", strings.Repeat("#", maxUsersFile+1), "more than"},
	} {
		got, err := ParseUsers([]byte(c.text))
		switch {
		case c.want == "" && (err != nil || len(got) != 2):
			t.Errorf("%s: %v, %v", c.name, got, err)
		case c.want != "" && (!errors.Is(err, task.ErrInvalid) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v", c.name, err)
		case err != nil && (strings.Contains(err.Error(), "long-pass") || strings.Contains(err.Error(), "oooo") || strings.Contains(err.Error(), key[1:])):
			t.Errorf("%s: the error shows the secret: %v", c.name, err)
		}
	}
	file := filepath.Join(t.TempDir(), "users")
	if _, err := StartBroker(BrokerOptions{Dir: t.TempDir(), AuthFile: file}); err == nil || !strings.Contains(err.Error(), "read users") {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(file, []byte("me client plain:"+password), 0o600); err != nil {
		t.Fatal(err)
	}
	b := broker(t, BrokerOptions{AuthFile: file})
	connect(t, Options{URL: as("me", b.URL())})
	if q, err := b.Connect(); err != nil { // this process needs no user
		t.Error(err)
	} else {
		q.Close()
	}
	if _, err := Dial(within(t), Options{URL: as("you", b.URL())}); !errors.Is(err, errRefused) || strings.Contains(err.Error(), password) {
		t.Errorf("a user that is not in the file: %v", err)
	}
	if _, err := Dial(within(t), Options{URL: b.URL()}); !errors.Is(err, errRefused) {
		t.Errorf("nobody: %v", err)
	}
}

func FuzzParseUsers(f *testing.F) {
	f.Add([]byte("a client plain:a-long-password\n# x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		users, err := ParseUsers(b)
		if err != nil {
			return
		}
		o := &server.Options{}
		if err := allow(o, users); err != nil {
			t.Fatalf("%v: %v", users, err)
		}
		for _, u := range users {
			if u.check() != nil || len(o.Users)+len(o.Nkeys) != len(users) {
				t.Errorf("accepted %v", u)
			}
		}
	})
}
