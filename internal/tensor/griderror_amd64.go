//go:build amd64 && !noasm

package tensor

// gridSums is what the assembly of GridError works on.
type gridSums struct {
	zero, qmin, qmax, magic float32
	abs, sum, top           [lanes]float32
}

func (k *Kernels) gridErrorVector(t []float32, zero, qmin, qmax float32) (abs, sum, top float32) {
	g := gridSums{zero: zero, qmin: qmin, qmax: qmax, magic: roundMagic}
	if k.isa == avx512 {
		gridErrorAVX512(&t[0], len(t)/lanes, &g)
	} else {
		gridErrorAVX2(&t[0], len(t)/lanes, &g)
	}
	for _, v := range g.top {
		top = max(top, v)
	}
	return addLanes(&g.abs), addLanes(&g.sum), top
}
