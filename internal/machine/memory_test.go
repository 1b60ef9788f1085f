package machine

import (
	"testing"
	"testing/fstest"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	const meminfo = "MemFree:  1 kB\nMemTotal:       16777216 kB\nSwapTotal: 0 kB\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing is known", nil, fallbackMemory},
		{"no group", map[string]string{"proc/meminfo": meminfo}, 16 << 30},
		{"meminfo that is none", map[string]string{"proc/meminfo": "MemTotal: much kB\n"}, fallbackMemory},
		{"container: limit at the root", map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 1 << 30},
		{"no limit", map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/user.slice\n", "sys/fs/cgroup/user.slice/memory.max": "max\n"}, 16 << 30},
		{"own group", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/user.slice/run-1.scope\n", "sys/fs/cgroup/user.slice/run-1.scope/memory.max": "2147483648\n",
		}, 2 << 30},
		{"a group above", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a.slice/b.slice/c.scope\n",
			"sys/fs/cgroup/a.slice/memory.max": "1073741824\n", "sys/fs/cgroup/a.slice/b.slice/memory.max": "max\n", "sys/fs/cgroup/a.slice/b.slice/c.scope/memory.max": "4294967296\n",
		}, 1 << 30},
		{"another's group", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/b/memory.max": "1024\n", "sys/fs/cgroup/a/deeper/memory.max": "1024\n",
		}, 16 << 30},
		{"path of the host", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/memory.max": "3221225472\n",
		}, 3 << 30},
		{"version 1", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "9:name=systemd:/x\n5:cpu,memory:/jobs/1\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/jobs/1/memory.limit_in_bytes": "536870912\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1024\n",
		}, 512 << 20},
		{"strange lines", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "\n0:\n0::\n0::../../etc\n0::/a:b\nx", "sys/fs/cgroup/a:b/memory.max": "1073741824", "etc/memory.max": "1024",
		}, 1 << 30},
		{"a limit of nothing is none", map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "0\n"}, 16 << 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for name, text := range tt.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := memory(root); got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
		})
	}
}
