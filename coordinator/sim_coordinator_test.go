package coordinator

import (
	"slices"

	"github.com/shardpress/shardpress/internal/task"
)

// simCoordinator does what the driver does: it carries out effects, looks into the
// store at news, and compares what it waits for with the queue from time to time.
type simCoordinator struct {
	*world
	state  *State
	inbox  []news
	slow   []func() Event // effects under way that take their time
	paused bool           // it waits for the store
	done   bool
	err    error
}

// news is one of the things that a coordinator hears.
type news struct {
	done    task.ID
	failure *task.Failure
	audited *Audited
	event   Event
}

// start is a coordinator that knows only what the store holds.
func (c *simCoordinator) start() {
	c.inbox, c.slow, c.paused = nil, nil, false
	c.Window = 1 + c.IntN(4)
	if c.IntN(2) == 0 {
		c.Window = 1 + c.IntN(len(c.plan)+1)
	}
	nodes := make([]Node, len(c.plan))
	for i, n := range c.plan {
		nodes[i] = n.Node
	}
	c.state = NewState(nodes, c.Options)
	e := Started{Audits: c.audits}
	e.Results, e.Present = c.look(c.plan)
	c.step(e)
}

// mortal reports whether the coordinator may die. Results of a later stage that an
// earlier run left behind are found stale by what this run remembers of the stage
// before; that one with a broken machine may be lost with it.
func (c *simCoordinator) mortal() bool { return !c.world.stale || !c.decides() }

// look reads what the store holds of nodes.
func (c *simCoordinator) look(nodes []*simNode) (results map[task.ID]*task.Result, present map[task.ID]bool) {
	results, present = map[task.ID]*task.Result{}, map[task.ID]bool{}
	for _, n := range nodes {
		if r := c.results[n.ID]; r != nil {
			results[n.ID] = r
			if _, there := c.bytes[r.Attempt]; there { // whether it is damaged only reading tells
				present[n.ID] = true
			}
		}
	}
	if c.harm && c.IntN(4) == 0 {
		present = nil
	}
	return results, present
}

// step passes an event on, checks what comes of it, and carries it out. A
// coordinator may die on the way.
func (c *simCoordinator) step(e Event) int {
	effects := c.state.Step(e)
	c.check(effects)
	c.count("event", e)
	c.trace("%T %+v", e, e)
	for i, e := range effects {
		c.count("effect", e)
		c.trace("    -> %T %+v", e, e)
		if c.IntN(50) == 0 && c.mortal() && c.fault() {
			c.trace("coordinator dies")
			c.litter = true
			c.start()
			return i
		}
		c.act(e)
	}
	return len(effects)
}

func (c *simCoordinator) act(e Effect) {
	switch e := e.(type) {
	case Publish:
		if e.Copy != "" {
			c.copies++
		}
		c.offer(e)
	case Withdraw:
		c.ack(&message{Publish: Publish{ID: e.ID, Copy: e.Copy}})
	case Look:
		c.inbox = append(c.inbox, news{done: e.ID})
	case Forget:
		if r := c.results[e.ID]; r != nil && r.Attempt == e.Attempt {
			delete(c.results, e.ID)
		}
	case Expire:
		delete(c.bytes, e.Attempt)
	case Pause:
		c.paused = true
	case Place:
		c.slow = append(c.slow, func() Event { return c.place(e.Result) })
	case Decide:
		c.slow = append(c.slow, func() Event { return c.decide(e.Result) })
	case Assemble:
		results := c.state.Results()
		c.slow = append(c.slow, func() Event { return c.assemble(results) })
	case Finish:
		c.done, c.err = true, e.Err
		c.trace("finish: %v", e.Err)
		if c.litter || len(c.coords) > 1 { // messages of an earlier life, or of the other one
			c.queue = slices.DeleteFunc(c.queue, func(m *message) bool { return c.state.index[m.ID] != nil })
		}
	}
}

func (c *simCoordinator) place(r *task.Result) Event {
	if !c.intact(r) {
		return Broken{ID: r.ID, Attempt: r.Attempt, Reason: "simulated"}
	}
	c.world.placed[r.ID] = c.bytes[r.Attempt]
	return Placed{ID: r.ID, Attempt: r.Attempt}
}

func (c *simCoordinator) decide(r *task.Result) Event {
	if !c.intact(r) {
		return Broken{ID: r.ID, Attempt: r.Attempt, Reason: "simulated"}
	}
	nodes := c.quiet.nodes[r.ID].grows(c.bytes[r.Attempt])
	e := Grown{ID: r.ID, Attempt: r.Attempt, Audits: c.audits}
	for _, n := range nodes {
		e.Nodes = append(e.Nodes, n.Node)
		if c.quiet.nodes[n.ID] == nil && !c.badWorker {
			c.fail("a decision that nobody makes")
		}
		if c.quiet.nodes[n.ID] == nil {
			c.quiet.nodes[n.ID] = n
		}
	}
	e.Results, e.Present = c.look(nodes)
	return e
}

// assemble looks once more at what the checkpoint links to.
func (c *simCoordinator) assemble(results []*task.Result) Event {
	for _, r := range results {
		if !c.intact(r) && c.IntN(2) == 0 {
			return Broken{ID: r.ID, Attempt: r.Attempt, Reason: "simulated"}
		}
	}
	return Assembled{}
}

// turn lets the coordinator do one thing.
func (c *simCoordinator) turn() {
	if c.done {
		return
	}
	switch n, m := len(c.inbox), len(c.slow); {
	case c.cancelled && c.IntN(3) == 0:
		c.step(Stopped{Err: errCancelled})
	case c.paused && c.IntN(4) == 0:
		c.full, c.paused = false, false // somebody has made room
		c.step(Resumed{})
	case n > 0 && (m == 0 || c.IntN(2) == 0):
		i := c.IntN(n) // any order
		e := c.inbox[i]
		c.inbox = slices.Delete(c.inbox, i, i+1)
		c.hear(e)
	case m > 0:
		i := c.IntN(m)
		f := c.slow[i]
		c.slow = slices.Delete(c.slow, i, i+1)
		e := f()
		switch e.(type) {
		case Placed, Broken:
			if c.IntN(4) == 0 {
				c.inbox = append(c.inbox, news{event: e}) // comes again
			}
		}
		c.step(e)
	case c.IntN(3) == 0:
		c.reconcile()
	}
}

func (c *simCoordinator) hear(n news) {
	switch {
	case n.failure != nil:
		c.step(Failed{Failure: *n.failure})
	case n.audited != nil:
		c.step(*n.audited)
	case n.event != nil:
		c.step(n.event)
	default:
		c.find(n.done)
	}
}

// find looks for a task's result.
func (c *simCoordinator) find(id task.ID) {
	if r := c.results[id]; r != nil {
		if c.step(Finished{Result: r}) > 0 {
			return
		}
	}
	c.step(Missing{ID: id})
}

// reconcile makes good what was lost on the way.
func (c *simCoordinator) reconcile() {
	for _, p := range c.state.Outstanding() {
		state := c.state
		if c.world.find(p.ID, p.Copy) != nil {
			continue
		}
		switch p.Copy {
		case "":
			c.revisit(p.ID)
		case task.CopyAudit:
			if a, there := c.audits[p.ID]; there {
				c.step(a)
				break
			}
			for _, f := range c.failures[p.ID] {
				if f.Copy == p.Copy && c.step(Failed{Failure: f}) > 0 {
					break
				}
			}
			c.step(Missing{ID: p.ID, Copy: p.Copy})
		default:
			c.step(Missing{ID: p.ID, Copy: p.Copy})
		}
		if c.done || c.state != state { // died
			return
		}
	}
}

// revisit looks at a task that has left the queue: at its failures, then its result.
func (c *simCoordinator) revisit(id task.ID) {
	for _, f := range c.failures[id] {
		if c.step(Failed{Failure: f}) > 0 {
			return
		}
	}
	c.find(id)
}

// disturb tells the coordinator of things that may happen at any time.
func (c *simCoordinator) disturb() {
	if c.done {
		return
	}
	switch c.IntN(5) {
	case 0:
		if ids := c.state.Queued(); len(ids) > 0 {
			c.step(Slow{ID: ids[c.IntN(len(ids))], Worker: workerName(c.IntN(c.workers))})
		}
	case 1:
		c.step(Resized{Window: c.IntN(5)})
	case 2:
		if c.fault() {
			c.paused = true
			c.step(Paused{Reason: "simulated"})
		}
	case 3:
		if c.mortal() && c.fault() {
			c.trace("coordinator is killed")
			c.litter = true
			c.start()
		}
	case 4: // very late news
		n := c.plan[c.IntN(len(c.plan))]
		if r := c.results[n.ID]; r != nil {
			c.inbox = append(c.inbox, news{event: Finished{Result: r}})
		}
	}
}

// check looks at every step: what it publishes can run, is due, and has room.
func (c *simCoordinator) check(effects []Effect) {
	published := false
	for _, e := range effects {
		p, ok := e.(Publish)
		if !ok {
			continue
		}
		published = true
		u := c.state.index[p.ID]
		for _, in := range u.inputs {
			if in.result == nil || in.gone {
				c.fail("task %s is published while input %s is missing", u.ID.Short(), in.ID.Short())
			}
			if c.harms == 0 && len(c.coords) == 1 && !c.litter && !c.aged {
				if r := c.results[in.ID]; r == nil || !c.intact(r) {
					c.fail("task %s is published while the store does not hold input %s", u.ID.Short(), in.ID.Short())
				}
			}
		}
		if c.state.paused {
			c.fail("task %s is published during a pause", u.ID.Short())
		}
		if p.Copy == "" {
			for _, o := range c.state.units {
				if o.phase == ready && (o.Chain && !u.Chain || o.Chain == u.Chain && o.pos < u.pos) {
					c.fail("task %s is published before %s", u.ID.Short(), o.ID.Short())
				}
			}
		}
	}
	if n := len(c.state.Outstanding()); published && n > c.state.Window {
		c.fail("%d are outstanding, the window is %d", n, c.state.Window)
	}
	for _, e := range effects {
		if _, ok := e.(Assemble); ok {
			c.complete()
		}
	}
}

// complete looks at a run that is about to assemble its checkpoint.
func (c *simCoordinator) complete() {
	if n := len(c.state.Outstanding()); n > 0 {
		c.fail("%d are outstanding when the checkpoint is put together", n)
	}
	for _, u := range c.state.units {
		if u.result == nil {
			continue
		}
		if in, stale := u.stale(); stale {
			c.fail("task %s is of other bytes than its input %v has", u.ID.Short(), in)
		}
	}
}
