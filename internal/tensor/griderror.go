package tensor

// GridError measures how far t lies from the points q - zero of a grid, q an
// integer of [qmin, qmax]. With
//
//	q = round(clamp(t + zero, qmin, qmax)), ties to even
//	r = (q - zero) - t
//
// every step rounded to float32, it returns the sum of |r|, the sum of r and the
// largest |r|. Each sum has 16 float32 lanes: lane l takes elements l, l+16, ...;
// lanes are added as a tree of distance 8, 4, 2, 1. All kernels and builds give
// the same bits. t has to be finite.
func (k *Kernels) GridError(t []float32, zero, qmin, qmax float32) (abs, sum, top float32) {
	if k.set() != scalar && len(t) > 0 && len(t)%lanes == 0 {
		return k.gridErrorVector(t, zero, qmin, qmax)
	}
	return gridError(t, zero, qmin, qmax)
}

// gridError is the plain kernel.
func gridError(t []float32, zero, qmin, qmax float32) (abs, sum, top float32) {
	var a, s [lanes]float32
	for len(t) > 0 {
		n := min(len(t), lanes)
		for l, v := range t[:n] {
			r := (roundEven(min(max(v+zero, qmin), qmax)) - zero) - v
			m := max(r, -r)
			a[l] += m
			s[l] += r
			top = max(top, m)
		}
		t = t[n:]
	}
	return addLanes(&a), addLanes(&s), top
}
