package coordinator

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"

	"github.com/shardpress/shardpress/internal/task"
)

// simNode is a made-up task: what it makes is a number that its ID and the numbers
// of its inputs decide.
type simNode struct {
	Node
	need  int // memory class below which it kills its worker
	fault simFault
	// grows is the plan that the number of a deciding node leads to.
	grows func(value uint64) []*simNode
}

// simFault is what is wrong with a node itself.
type simFault int

const (
	sound      simFault = iota
	unworkable          // fails at once, for ever
	failing             // fails at every attempt, as if it might pass
	poisonous           // kills its worker in every memory class
	simFaults           // how many there are
	needsMuch  = 1      // memory class of the nodes that need more than planned
	classes    = 3      // memory classes of the simulation
	deadlyPoll = 3      // deaths in a class after which a worker reports them
)

// mix is a hash of numbers, good enough to tell every mistake.
func mix(numbers ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, n := range numbers {
		h ^= n
		h *= 0xff51afd7ed558ccd
		h ^= h >> 32
	}
	return h
}

func simID(numbers ...uint64) task.ID {
	var id task.ID
	h := mix(numbers...)
	for i := 0; i < len(id); i += 8 {
		binary.BigEndian.PutUint64(id[i:], mix(h, uint64(i)))
	}
	return id
}

func number(id task.ID) uint64 { return binary.BigEndian.Uint64(id[:]) }

// value is what a node makes of the values of its inputs.
func (n *simNode) value(inputs []uint64) uint64 {
	return mix(append([]uint64{number(n.ID)}, inputs...)...)
}

func sum(value uint64) string { return strconv.FormatUint(value, 16) }

// simPlan makes up a plan of one of the shapes that runs have, or of none.
type simPlan struct {
	*rand.Rand
	nodes []*simNode
}

func (p *simPlan) add(n Node, inputs ...*simNode) *simNode {
	for _, in := range inputs {
		n.Inputs = append(n.Inputs, in.ID)
	}
	n.ID, n.Memory = simID(1, uint64(len(p.nodes))), 1
	node := &simNode{Node: n}
	p.nodes = append(p.nodes, node)
	return node
}

func (p *simPlan) some(n int, of []*simNode) []*simNode {
	var all []*simNode
	for range n {
		if len(of) > 0 {
			all = append(all, of[p.IntN(len(of))]) // twice the same, too
		}
	}
	return all
}

func newSimPlan(r *rand.Rand) []*simNode {
	p := &simPlan{Rand: r}
	switch r.IntN(7) {
	case 0: // independent tasks, as data-free methods make
		for range 1 + r.IntN(8) {
			p.add(Node{Output: true})
		}
	case 1: // a chain of block boundaries that expire, and a solve for each
		p.dense()
	case 2: // statistics in parts, merged, solved; the next block reads the solved one
		p.sequential()
	case 3: // decisions
		p.decisions()
	case 4:
		p.dense()
		p.decisions()
	case 5:
		p.anything(3 + r.IntN(12))
	case 6: // much of everything
		for range 1 + r.IntN(3) {
			p.dense()
			p.sequential()
			p.anything(r.IntN(20))
		}
		p.decisions()
	}
	return p.nodes
}

func (p *simPlan) dense() {
	var last []*simNode
	for range 2 + p.IntN(4) {
		forward := p.add(Node{Chain: true, Expires: true}, last...)
		p.add(Node{Output: true}, forward)
		last = []*simNode{forward}
	}
}

func (p *simPlan) sequential() {
	parts := 1 + p.IntN(3)
	boundaries := make([]*simNode, parts)
	for i := range parts {
		boundaries[i] = p.add(Node{Chain: true, Expires: true})
	}
	for range 1 + p.IntN(3) {
		var stats []*simNode
		for _, b := range boundaries {
			stats = append(stats, p.add(Node{Chain: true, Expires: true}, b))
		}
		merged := p.add(Node{Chain: true}, stats...)
		solved := p.add(Node{Output: true}, merged)
		for i, b := range boundaries {
			boundaries[i] = p.add(Node{Chain: true, Expires: true}, b, solved)
		}
	}
}

// decisions are made of statistics that expire, and are often the same.
func (p *simPlan) decisions() {
	var stats []*simNode
	for range 1 + p.IntN(3) {
		stats = append(stats, p.add(Node{Expires: p.IntN(2) == 0}))
	}
	for range 1 + p.IntN(2) {
		d := p.add(Node{Decide: true, Output: p.IntN(4) == 0}, p.some(1+p.IntN(2), stats)...)
		children, further := 1+p.IntN(3), p.IntN(3) == 0
		d.grows = func(value uint64) []*simNode {
			return grown(value%2, children, further, stats)
		}
	}
}

// grown is the stage after a decision: a pure function of the decision.
func grown(decision uint64, children int, further bool, stats []*simNode) []*simNode {
	var nodes []*simNode
	prepare := &simNode{Node: Node{ID: simID(2, decision), Memory: 1, Inputs: []task.ID{stats[0].ID}, Expires: true, Chain: true}}
	nodes = append(nodes, prepare)
	for i := range children {
		n := &simNode{Node: Node{
			ID: simID(3, decision, uint64(i)), Memory: 1, Output: true,
			Inputs: []task.ID{prepare.ID, stats[(i+int(decision))%len(stats)].ID},
		}}
		nodes = append(nodes, n)
	}
	if further {
		d := &simNode{Node: Node{ID: simID(4, decision), Memory: 1, Decide: true, Inputs: []task.ID{prepare.ID}}}
		d.grows = func(value uint64) []*simNode { return grown(2+value%2, 1, false, stats) }
		nodes = append(nodes, d)
	}
	return nodes
}

func (p *simPlan) anything(n int) {
	for range n {
		p.add(Node{
			Output: p.IntN(3) == 0, Chain: p.IntN(3) == 0, Expires: p.IntN(2) == 0,
		}, p.some(p.IntN(4), p.nodes)...)
	}
}

// quiet is what one process does in which nothing ever goes wrong: the oracle.
type quiet struct {
	nodes  map[task.ID]*simNode
	order  []*simNode // all, grown ones after those that they grow from
	values map[task.ID]uint64
	lost   map[task.ID]bool // faulty, or in need of one that is
	causes map[task.ID][]task.ID
}

func runQuietly(nodes []*simNode) *quiet {
	q := &quiet{nodes: map[task.ID]*simNode{}, values: map[task.ID]uint64{}, lost: map[task.ID]bool{}, causes: map[task.ID][]task.ID{}}
	q.run(nodes)
	return q
}

func (q *quiet) run(nodes []*simNode) {
	var deciders []*simNode
	for _, n := range nodes {
		if q.nodes[n.ID] != nil {
			continue
		}
		q.nodes[n.ID] = n
		q.order = append(q.order, n)
		var inputs []uint64
		q.lost[n.ID] = n.fault != sound
		for _, in := range n.Inputs {
			inputs = append(inputs, q.values[in])
			q.lost[n.ID] = q.lost[n.ID] || q.lost[in]
			q.causes[n.ID] = append(q.causes[n.ID], q.causes[in]...)
		}
		if n.fault != sound && len(q.causes[n.ID]) == 0 {
			q.causes[n.ID] = []task.ID{n.ID}
		}
		q.values[n.ID] = n.value(inputs)
		if n.Decide && !q.lost[n.ID] {
			deciders = append(deciders, n)
		}
	}
	for _, d := range deciders {
		q.run(d.grows(q.values[d.ID]))
	}
}

// reported are the nodes that a run has to report which keeps going: faulty ones
// that the run needs, and that do not need another faulty one.
func (q *quiet) reported() []*simNode {
	wanted := map[task.ID]bool{}
	for i := len(q.order) - 1; i >= 0; i-- {
		n := q.order[i]
		if n.Output || n.Decide {
			wanted[n.ID] = true
		}
		if wanted[n.ID] {
			for _, in := range n.Inputs {
				wanted[in] = true
			}
		}
	}
	var all []*simNode
	for _, n := range q.order {
		alone := n.fault != sound && wanted[n.ID]
		for _, in := range n.Inputs {
			alone = alone && !q.lost[in]
		}
		if alone {
			all = append(all, n)
		}
	}
	return all
}
