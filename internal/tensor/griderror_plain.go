//go:build !amd64 || noasm

package tensor

func (k *Kernels) gridErrorVector(t []float32, zero, qmin, qmax float32) (abs, sum, top float32) {
	return gridError(t, zero, qmin, qmax)
}
