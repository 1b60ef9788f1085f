//go:build !amd64 || noasm

package tensor

func (k *Kernels) keepVector(*keepRow) (finite, served bool) { return false, false }
