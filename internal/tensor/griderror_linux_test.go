package tensor

import (
	"testing"
	"unsafe"
)

// The vector code reads nothing outside of its argument.
func TestGridErrorGuardPages(t *testing.T) {
	t.Parallel()
	for i := range 24 {
		n := 16 * (1 + i/2)
		b := guarded(t, 4*n, i%2 == 0)
		x := unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), n)
		for _, k := range vectorKernels(t) {
			if abs, _, _ := k.GridError(x, 0.25, -8, 7); abs != float32(n)/4 {
				t.Errorf("%s: %d zeros: %v", k.Name(), n, abs)
			}
		}
	}
}
