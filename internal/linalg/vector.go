package linalg

// lanes are the partial sums of a dot product: enough to hide the latency of an addition. They are part of what a dot product is.
const lanes = 8

// dot is Σ x·y in eight interleaved chains that are added in pairs.
func dot(x, y []float64) float64 {
	var s [lanes]float64
	y = y[:len(x)]
	n := len(x) &^ (lanes - 1)
	for i := 0; i < n; i += lanes {
		a, b := x[i:i+lanes:i+lanes], y[i:i+lanes:i+lanes]
		s[0] += float64(a[0] * b[0])
		s[1] += float64(a[1] * b[1])
		s[2] += float64(a[2] * b[2])
		s[3] += float64(a[3] * b[3])
		s[4] += float64(a[4] * b[4])
		s[5] += float64(a[5] * b[5])
		s[6] += float64(a[6] * b[6])
		s[7] += float64(a[7] * b[7])
	}
	for i := n; i < len(x); i++ {
		s[i-n] += float64(x[i] * y[i])
	}
	return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
}

// axpy adds a·x to y.
func axpy(a float64, x, y []float64) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += float64(a * v)
	}
}
