//go:build !amd64 || noasm

package tensor

func best() isa { return scalar }

func (k *Kernels) serves(group, bits int) bool { return false }

func (k *Kernels) encodeVector(r *GroupResult, src []byte, d DType, rows, cols, group, bits int, scale DType) int {
	return encodeGroups(r, src, d, rows, cols, group, bits, scale)
}

// widenBF16 converts a prefix of dst and returns its length.
func widenBF16(dst []float32, src []byte) int { return 0 }

func tile32(*Kernels) *tiles[float32] { return plainTiles32() }

func tile64(*Kernels) *tiles[float64] { return plainTiles64() }

func fmaLoop32(_ *Kernels, turns int) int { return plainLoop(turns) }

func fmaLoop64(_ *Kernels, turns int) int { return plainLoop(turns) }
