package machine

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// fallbackMemory is assumed where the system does not tell.
const fallbackMemory = 4 << 30

// Memory is the memory that this process may use, in bytes: the machine's,
// or the limit of the control groups it runs in.
func Memory() int64 { return memory(os.DirFS("/")) }

// memory asks a system whose files are below root.
func memory(root fs.FS) int64 {
	n := int64(fallbackMemory)
	if total, ok := memTotal(root); ok {
		n = total
	}
	for _, file := range memoryLimits(root) {
		b, err := fs.ReadFile(root, file)
		if err != nil {
			continue
		}
		// "max" is no number and no limit; version 1 has a huge number for it.
		if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && v > 0 {
			n = min(n, v)
		}
	}
	return n
}

// memoryLimits lists the files that may hold a limit of this process: those of its
// control group and of every group above, cgroups(7). In a container the path may
// be the host's and not be there, while the group's own files are at the root.
func memoryLimits(root fs.FS) []string {
	const v1, v2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
	files := []string{path.Join(v2, "memory.max"), path.Join(v1, "memory.limit_in_bytes")}
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return files
	}
	for line := range strings.Lines(string(b)) {
		// hierarchy:controllers:path; version 2 is hierarchy 0, without controllers
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		base, name := v2, "memory.max"
		switch {
		case parts[0] == "0" && parts[1] == "":
		case strings.Contains(","+parts[1]+",", ",memory,"):
			base, name = v1, "memory.limit_in_bytes"
		default:
			continue
		}
		// Clean also keeps a path with .. from leaving the folder of groups.
		for group := path.Clean("/" + parts[2]); group != "/"; group = path.Dir(group) {
			files = append(files, path.Join(base, group, name))
		}
	}
	return files
}

func memTotal(root fs.FS) (int64, bool) {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, false
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err == nil
		}
	}
	return 0, false
}
