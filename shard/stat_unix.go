//go:build unix

package shard

import (
	"os"
	"syscall"
)

// fstat returns what identifies the file behind f. removed is true when no directory names it any more: it was replaced or deleted.
func fstat(f *os.File) (s stat, removed bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return stat{}, false, err
	}
	s = stat{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = uint64(sys.Dev), uint64(sys.Ino) //nolint:unconvert // widths differ between systems
		removed = sys.Nlink == 0
	}
	return s, removed, nil
}
