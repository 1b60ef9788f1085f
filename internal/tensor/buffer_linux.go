package tensor

import (
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the usual size of a huge page; a wrong guess costs only speed.
const hugePage = 2 << 20

func (b *Buffer) alloc(n int) error {
	if n > math.MaxInt-hugePage {
		return unix.ENOMEM
	}
	all, err := unix.Mmap(-1, 0, n+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	// Refused where huge pages are compiled out or forbidden: the memory serves
	// all the same.
	_ = unix.Madvise(all, unix.MADV_HUGEPAGE)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(all))) % hugePage)
	b.all, b.data = all, all[skip:skip+n:skip+n]
	return nil
}

func release(all []byte) error { return unix.Munmap(all) }
