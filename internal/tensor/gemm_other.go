package tensor

func tile32(*Kernels) *tiles[float32] { return plainTiles32() }

func tile64(*Kernels) *tiles[float64] { return plainTiles64() }
