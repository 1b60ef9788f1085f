package tensor

func (k *Kernels) fp4Run(codes, scales, src []byte, d DType, s fp4Scheme) (errSum, powSum float32, ok bool) {
	return fp4RunPlain(codes, scales, src, d, s)
}
