package prune

import "math"

// cut divides weights by magnitude: those with smaller keys are pruned, and so many of those with an equal one, in order.
type cut struct {
	key  uint32
	ties int64
}

// key orders weights by magnitude: the bits of a float32 without its sign. It is below 2^31.
func key(v float32) uint32 { return math.Float32bits(v) &^ (1 << 31) }

// Keys are counted by their upper half, and where that leaves several by the lower one. A BF16 has no lower half.
const (
	lowBits  = 16
	highBits = 31 - lowBits
)

// counter finds the k-th smallest magnitude of any number of weights in two passes.
type counter struct {
	highs, lows []int64
}

func (c *counter) countHigh(x []float32) {
	if c.highs == nil {
		c.highs = make([]int64, 1<<highBits)
	}
	for _, v := range x {
		c.highs[key(v)>>lowBits]++
	}
}

// high is the upper half of the k-th smallest key, k from 1, and how many keys have a smaller one.
func (c *counter) high(k int64) (high uint32, below int64) {
	for i, n := range c.highs {
		if below+n >= k {
			return uint32(i), below
		}
		below += n
	}
	return 1<<highBits - 1, below // k is no more than the keys there are
}

// countLow counts the lower halves of keys with a given upper half.
func (c *counter) countLow(x []float32, high uint32) {
	if c.lows == nil {
		c.lows = make([]int64, 1<<lowBits)
	}
	for _, v := range x {
		if k := key(v); k>>lowBits == high {
			c.lows[k&(1<<lowBits-1)]++
		}
	}
}

// low is the cut at the k-th smallest key among those with an upper half, and how many are equal to it.
func (c *counter) low(high uint32, k int64) (at cut, equal int64) {
	below := int64(0)
	for i, n := range c.lows {
		if below+n >= k {
			return cut{key: high<<lowBits | uint32(i), ties: k - below}, n
		}
		below += n
	}
	return cut{key: (high + 1) << lowBits}, 0
}

// cutRow is the cut of a row of which drop weights go. keys has room for the row.
func cutRow(keys []uint32, x []float32, drop int64) cut {
	if drop == 0 {
		return cut{}
	}
	for i, v := range x {
		keys[i] = key(v)
	}
	// Digit by digit from the top: the exponent, the mantissa of a BF16, and its rest. Only keys that share the digits so far remain.
	var at uint32
	for _, digit := range [...]struct{ shift, bits int }{{23, 8}, {16, 7}, {8, 8}, {0, 8}} {
		var counts [256]int64
		mask := uint32(1)<<digit.bits - 1
		for _, k := range keys {
			counts[k>>digit.shift&mask]++
		}
		for i, n := range counts[:mask+1] {
			if n >= drop {
				at |= uint32(i) << digit.shift
				break
			}
			drop -= n
		}
		n := 0
		for _, k := range keys {
			keys[n] = k
			n += int((k>>digit.shift ^ at>>digit.shift - 1) >> 31) // 1 where they are equal
		}
		keys = keys[:n]
	}
	return cut{key: at, ties: drop}
}
