package objstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

const (
	// diskEnv names the directory in which a process of its own is to mount.
	diskEnv = "OBJSTORE_TEST_DISK"
	// exitCannotMount is how it says that it may not.
	exitCannotMount = 77
)

// TestDirSmallDisk runs itself in a process that may mount, in a name space of
// its own, a file system of two megabytes.
func TestDirSmallDisk(t *testing.T) {
	t.Parallel()
	if base := os.Getenv(diskEnv); base != "" {
		smallDisk(base)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestDirSmallDisk$")
	cmd.Env = append(os.Environ(), diskEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case !errors.As(err, &exit), exit.ExitCode() == exitCannotMount:
		t.Skipf("no user name spaces here: %v %s", err, out)
	default:
		t.Errorf("%v\n%s", err, out)
	}
}

func smallDisk(base string) {
	small, large := filepath.Join(base, "small"), filepath.Join(base, "large")
	if err := errors.Join(os.Mkdir(small, 0o777), syscall.Mount("tmpfs", small, "tmpfs", 0, "size=2m")); err != nil {
		fmt.Println(err)
		os.Exit(exitCannotMount)
	}
	if err := checkSmallDisk(small, large); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func checkSmallDisk(small, large string) error {
	ctx := context.Background()
	d, err := objstore.OpenDir(small)
	if err != nil {
		return err
	}
	l, err := objstore.CreateDir(large)
	if err != nil {
		return err
	}
	if _, err := d.Put(ctx, "a", strings.NewReader("bytes"), 5, objstore.PutOptions{}); err != nil {
		return err
	}
	// Full: says so, with the path and the remedy, and leaves nothing.
	for _, r := range []io.Reader{bytes.NewReader(make([]byte, 4<<20)), struct{ io.Reader }{bytes.NewReader(make([]byte, 4<<20))}} {
		_, err = d.Put(ctx, "a", r, 4<<20, objstore.PutOptions{})
		if !errors.Is(err, objstore.ErrFull) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), small) || !strings.Contains(err.Error(), "free space") {
			return fmt.Errorf("put to a full disk: %v, want ErrFull", err)
		}
		if left, err := os.ReadDir(filepath.Join(small, ".tmp")); err != nil || len(left) > 0 {
			return fmt.Errorf("left over: %v, %v", left, err)
		}
	}
	if info, err := d.Stat(ctx, "a"); err != nil || info.Size != 5 {
		return fmt.Errorf("after failed puts: %+v, %v", info, err)
	}
	// No link to another file system, but a copy all the same.
	if _, err := l.Copy(ctx, "b", d, "a"); !errors.Is(err, objstore.ErrCannotCopy) {
		return fmt.Errorf("copy to another file system: %v, want ErrCannotCopy", err)
	}
	if info, err := objstore.Copy(ctx, l, "b", d, "a"); err != nil || info.Size != 5 {
		return fmt.Errorf("streamed to another file system: %+v, %v", info, err)
	}
	// Mounted read-only.
	if err := syscall.Mount("", small, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	_, perr := d.Put(ctx, "b", strings.NewReader("bytes"), 5, objstore.PutOptions{})
	_, oerr := objstore.OpenDir(small)
	_, cerr := d.Copy(ctx, "b", d, "a")
	derr := d.Delete(ctx, "a")
	_, serr := d.Sweep(ctx, 0)
	for op, err := range map[string]error{"Put": perr, "OpenDir": oerr, "Copy": cerr, "Delete": derr, "Sweep": serr} {
		if !errors.Is(err, objstore.ErrReadOnly) || !strings.Contains(err.Error(), small) {
			return fmt.Errorf("%s on a read-only disk: %v, want ErrReadOnly", op, err)
		}
	}
	ro, err := objstore.OpenDirReadOnly(small)
	if err != nil {
		return err
	}
	_, err = ro.Stat(ctx, "a")
	return err
}
