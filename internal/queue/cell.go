package queue

import (
	"fmt"
	"math/bits"

	"github.com/shardpress/shardpress/internal/task"
)

// Cell is a numeric class × memory class: the tasks in a cell suit the same
// workers. Cells partition the subject space, which a work queue requires.
type Cell struct {
	Class  string // numeric class with version, "f32@1"
	Memory int64  // bytes a task of the cell may need, a power of two
}

// The memory ladder, in bytes: 64 MiB, 128 MiB, ... 1 TiB.
const (
	smallestClass = 64 << 20
	largestClass  = 1 << 40
)

// CellOf returns the cell of a task that needs that many bytes.
func CellOf(class string, memory int64) (Cell, error) {
	if memory > largestClass {
		return Cell{}, fmt.Errorf("memory class of %d bytes: %w: the largest class is %d", memory, task.ErrInvalid, int64(largestClass))
	}
	c := int64(smallestClass)
	for c < memory {
		c *= 2
	}
	return Cell{Class: class, Memory: c}, nil
}

// Ladder returns the cells of a numeric class that fit into memory bytes, the
// largest first: a worker takes the largest task that fits, so that small workers
// find the small ones.
func Ladder(class string, memory int64) []Cell {
	var cells []Cell
	for c := int64(largestClass); c >= smallestClass; c /= 2 {
		if c <= memory {
			cells = append(cells, Cell{Class: class, Memory: c})
		}
	}
	return cells
}

// Name is the memory class as one token: "m64" counts MiB.
func (c Cell) name() string { return fmt.Sprintf("m%d", c.Memory>>20) }

func (c Cell) durable() string { return c.Class + "-" + c.name() }

func (c Cell) filter() string { return "task." + c.Class + "." + c.name() + ".*" }

func (c Cell) subject(id task.ID) string {
	return "task." + c.Class + "." + c.name() + "." + id.String()
}

// SmallestMemory is the least memory in bytes with which a worker can be offered
// any task at all.
const SmallestMemory int64 = smallestClass

// RoundDown returns the largest memory class that is at most memory, or 0.
func RoundDown(memory int64) int64 {
	if memory < smallestClass {
		return 0
	}
	return min(int64(1)<<(bits.Len64(uint64(memory))-1), largestClass)
}
