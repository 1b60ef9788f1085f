package local

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// fallbackMemory is assumed where the system does not tell.
const fallbackMemory = 4 << 30

// MachineMemory is the memory that this process may use, in bytes: the machine's,
// or the limit of the control group it runs in.
func MachineMemory() int64 {
	n := int64(fallbackMemory)
	if total, ok := memTotal(); ok {
		n = total
	}
	for _, limit := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(limit)
		if err != nil {
			continue
		}
		if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && v > 0 {
			n = min(n, v)
		}
	}
	return n
}

func memTotal() (int64, bool) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err == nil
		}
	}
	return 0, false
}
