//go:build !amd64 || noasm

package tensor

type fp4Batch struct{}

func (k *Kernels) fp4Run(_ *fp4Batch, codes, scales, src []byte, d DType, s fp4Scheme) (errSum, powSum float32, ok bool) {
	return fp4RunPlain(codes, scales, src, d, s)
}

func (k *Kernels) fp4Pair(_ *fp4Batch, _, _, _ []byte, _ DType, _ fp4Scheme) (sums [4]float32, ok bool) {
	return sums, false
}
