package coordinator

// agenda is what may be published, the most urgent first: a heap of positions in
// the plan's order, bulk tasks behind those on a chain. A task may be on it twice
// or without need; whoever takes it looks whether it still wants to be published.
type agenda []uint32

// bulk is the bit that puts a task behind all chain tasks. It bounds the tasks of a
// run at 2^31.
const bulk = 1 << 31

func urgency(u *unit) uint32 {
	if u.Chain {
		return u.pos
	}
	return bulk | u.pos
}

func (a *agenda) push(u *unit) {
	h := append(*a, urgency(u))
	i := len(h) - 1
	for i > 0 && h[i] < h[(i-1)/2] {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
		i = (i - 1) / 2
	}
	*a = h
}

// pop takes the most urgent position off.
func (a *agenda) pop() uint32 {
	h := *a
	top, n := h[0], len(h)-1
	h[0] = h[n]
	h = h[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c+1 < n && h[c+1] < h[c] {
			c++
		}
		if c >= n || h[i] <= h[c] {
			break
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
	*a = h
	return top &^ bulk
}
