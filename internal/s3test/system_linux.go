package s3test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// orphan has the kernel kill the child when we die.
func orphan(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// attributes says whether files below dir can hold the metadata of objects.
func attributes(dir string) bool {
	name := filepath.Join(dir, ".probe")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		return false
	}
	defer os.Remove(name)
	return syscall.Setxattr(name, "user.probe", []byte("x"), 0) == nil
}
