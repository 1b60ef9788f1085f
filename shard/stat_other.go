//go:build !unix

package shard

import "os"

// fstat returns what identifies the file behind f. Systems without inodes go by size and modification time.
func fstat(f *os.File) (s stat, removed bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return stat{}, false, err
	}
	return stat{size: info.Size(), mtime: info.ModTime().UnixNano()}, false, nil
}
