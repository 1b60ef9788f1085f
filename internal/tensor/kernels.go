package tensor

import (
	"errors"
	"fmt"
)

// Kernels is a choice of vector code. It may be copied and used by any number of
// goroutines: all it keeps from call to call is memory for packed matrices, a few
// MiB for each thread that multiplied at a time. The zero value, like a nil
// pointer, is the plain Go code and keeps nothing.
type Kernels struct {
	isa  isa
	lend *lenders
}

type lenders struct {
	f32 lender[float32]
	f64 lender[float64]
}

type isa uint8

const (
	scalar isa = iota
	avx2
	avx512
)

// ErrKernel is returned for a kernel that does not exist or that this CPU
// cannot run.
var ErrKernel = errors.New("kernel not available")

// Name returns "scalar", "avx2" or "avx512".
func (k *Kernels) Name() string {
	switch k.set() {
	case avx2:
		return "avx2"
	case avx512:
		return "avx512"
	}
	return "scalar"
}

func (k *Kernels) set() isa {
	if k == nil {
		return scalar
	}
	return k.isa
}

func (k *Kernels) lend32() *lender[float32] {
	if k == nil || k.lend == nil {
		return nil
	}
	return &k.lend.f32
}

func (k *Kernels) lend64() *lender[float64] {
	if k == nil || k.lend == nil {
		return nil
	}
	return &k.lend.f64
}

// Detect returns the fastest kernels this CPU runs.
func Detect() *Kernels { return &Kernels{isa: best(), lend: new(lenders)} }

// ForName returns the kernels of a name, "" meaning the fastest. The error wraps
// [ErrKernel].
func ForName(name string) (*Kernels, error) {
	if name == "" {
		return Detect(), nil
	}
	for i := scalar; i <= avx512; i++ {
		k := &Kernels{isa: i, lend: new(lenders)}
		if k.Name() != name {
			continue
		}
		if i > best() {
			return nil, fmt.Errorf("choose kernel %q: %w: this build and CPU run %q at most", name, ErrKernel, Detect().Name())
		}
		return k, nil
	}
	return nil, fmt.Errorf("choose kernel %q: %w: want scalar, avx2 or avx512", name, ErrKernel)
}

// Names lists the kernels this CPU runs, slowest first.
func Names() []string {
	var names []string
	for i := scalar; i <= best(); i++ {
		names = append(names, (&Kernels{isa: i}).Name())
	}
	return names
}
