package queue

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/shardpress/shardpress/internal/task"
)

// Cell is numeric class × rank × memory class: the tasks in a cell suit the same
// workers equally well. Cells partition the subject space, which a work queue
// requires.
type Cell struct {
	Class  string // numeric class with version, "f32@1"
	Chain  bool   // other tasks wait for these
	Memory int64  // bytes a task of the cell may need, a power of two
}

// The memory ladder, in bytes: 64 MiB, 128 MiB, ... 1 TiB.
const (
	smallestClass = 64 << 20
	largestClass  = 1 << 40
)

// SmallestMemory is the least memory in bytes with which a worker can be offered
// any task at all.
const SmallestMemory int64 = smallestClass

// CellOf returns the cell of the task that a message asks for.
func CellOf(m *task.Message) (Cell, error) {
	if !task.ValidToken(m.Class) {
		return Cell{}, fmt.Errorf("cell of task %s: %w: numeric class %q", m.ID.Short(), task.ErrInvalid, m.Class)
	}
	memory, err := MemoryClass(m.Memory)
	if err != nil {
		return Cell{}, fmt.Errorf("cell of task %s: %w", m.ID.Short(), err)
	}
	return Cell{Class: m.Class, Chain: m.Chain, Memory: memory}, nil
}

// MemoryClass returns the smallest memory class of at least memory bytes.
func MemoryClass(memory int64) (int64, error) {
	if memory > largestClass {
		return 0, fmt.Errorf("memory class of %d bytes: %w: the largest class is %d", memory, task.ErrInvalid, int64(largestClass))
	}
	c := int64(smallestClass)
	for c < memory {
		c *= 2
	}
	return c, nil
}

// RoundDown returns the largest memory class that is at most memory, or 0.
func RoundDown(memory int64) int64 {
	if memory < smallestClass {
		return 0
	}
	return min(int64(1)<<(bits.Len64(uint64(memory))-1), largestClass)
}

// Ladder returns the cells of a numeric class that fit into memory bytes in the
// order in which a worker should try them: tasks that others wait for come first,
// and then the largest that fits, so that small workers find the small ones.
func Ladder(class string, memory int64) []Cell {
	var cells []Cell
	for _, chain := range []bool{true, false} {
		for c := RoundDown(memory); c >= smallestClass; c /= 2 {
			cells = append(cells, Cell{Class: class, Chain: chain, Memory: c})
		}
	}
	return cells
}

// rank is c for chain, b for bulk.
func (c Cell) rank() string {
	if c.Chain {
		return "c"
	}
	return "b"
}

// name is the memory class as one token: "m64" counts MiB.
func (c Cell) name() string { return "m" + strconv.FormatInt(c.Memory>>20, 10) }

// String is the name by which people know the cell, and its consumer's.
func (c Cell) String() string { return c.Class + "-" + c.rank() + "-" + c.name() }

func (c Cell) tokens() string { return c.Class + "." + c.rank() + "." + c.name() }

func (c Cell) filter() string { return "task." + c.tokens() + ".*" }

func (c Cell) subject(m *task.Message) string {
	s := "task." + c.tokens() + "." + m.ID.String()
	if m.Copy != "" {
		s += "-" + m.Copy
	}
	return s
}

// parseCell reads the three tokens of a cell.
func parseCell(class, rank, name string) (Cell, bool) {
	digits, found := strings.CutPrefix(name, "m")
	mib, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case !found || err != nil || strconv.FormatInt(mib, 10) != digits:
		return Cell{}, false
	case mib < smallestClass>>20 || mib > largestClass>>20 || mib&(mib-1) != 0:
		return Cell{}, false
	case rank != "c" && rank != "b", !task.ValidToken(class):
		return Cell{}, false
	}
	return Cell{Class: class, Chain: rank == "c", Memory: mib << 20}, true
}

// parseSubject reads a subject of a task, or of its wake-up, behind the first token.
func parseSubject(subject string) (c Cell, id task.ID, which string, err error) {
	parts := strings.Split(subject, ".")
	if len(parts) == 5 {
		var found bool
		if c, found = parseCell(parts[1], parts[2], parts[3]); found {
			name, suffix, _ := strings.Cut(parts[4], "-")
			id, err = task.ParseID(name)
			return c, id, suffix, err
		}
	}
	return Cell{}, task.ID{}, "", fmt.Errorf("subject %q: %w: want task.CLASS.RANK.MEMORY.ID", subject, task.ErrInvalid)
}

// parseConsumer reads the name of a cell's consumer.
func parseConsumer(name string) (Cell, bool) {
	parts := strings.Split(name, "-")
	if n := len(parts); n >= 3 {
		return parseCell(strings.Join(parts[:n-2], "-"), parts[n-2], parts[n-1])
	}
	return Cell{}, false
}
