package linalg

// Noise is a stream of numbers that a seed decides (splitmix64, Steele et al. 2014).
type Noise struct{ state uint64 }

// NewNoise makes the stream of a seed.
func NewNoise(seed uint64) *Noise { return &Noise{seed} }

// Bits gives the next 64 random bits.
func (n *Noise) Bits() uint64 {
	n.state += 0x9e3779b97f4a7c15
	z := n.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Uniform gives a number from -1 to 1.
func (n *Noise) Uniform() float64 { return float64(int64(n.Bits())>>11) * 0x1p-52 }

// Normal gives a number of mean 0 and variance 1 that is near to normal: a sum of four uniform ones of 16 bits, so that no machine rounds it otherwise.
func (n *Noise) Normal() float64 {
	z := n.Bits()
	sum := int64(z&0xffff) + int64(z>>16&0xffff) + int64(z>>32&0xffff) + int64(z>>48) - 2*0xffff
	const scale = 0x1.bb67ae8584caap0 / 0x1p16 // √3: each of the four has a variance of 2^32/12
	return float64(sum) * scale
}
