package tensor

import "fmt"

// DecodeGroups writes rows × cols weights float32((q - zp) * scale) from what
// the group encoders wrote: codes in rows of PackedRowBytes(cols, bits), scales
// of type scale and, unless zeros is nil, a zero point for each group. It panics
// when a slice is too short or the group does not divide cols.
func DecodeGroups(dst []float32, codes, scales, zeros []byte, rows, cols, group, bits int, scale DType) {
	checkBits(bits)
	checkStored("read scales as", scale)
	checkShape(rows, cols, group)
	if rows == 0 || cols == 0 {
		return
	}
	rowBytes := PackedRowBytes(cols, bits)
	groups := cols / group
	if len(dst) < rows*cols || len(codes) < rows*rowBytes || len(scales) < rows*groups*scale.Size() ||
		zeros != nil && len(zeros) < rows*groups {
		panic(fmt.Sprintf("tensor: decode %d × %d in groups of %d: %d weights, %d codes, %d scale bytes, %d zeros do not hold it",
			rows, cols, group, len(dst), len(codes), len(scales), len(zeros)))
	}
	var (
		u     [256]uint8
		s     [1]float32
		table [256]float32 // the group's values, made when it has more elements than values
		n     = 1 << bits
	)
	for row := range rows {
		// Chunks of 256 codes start at whole words whatever the width.
		in := codes[row*rowBytes:][:rowBytes]
		out := dst[row*cols:][:cols]
		g, left := row*groups-1, 0
		tabled := group >= n
		var scaleOf, zp float32
		for i := 0; i < cols; i += len(u) {
			m := min(len(u), cols-i)
			UnpackRow(u[:m], in[i*bits/8:], bits)
			for j := 0; j < m; {
				if left == 0 {
					g, left = g+1, group
					ToFloat32(s[:], scales[g*scale.Size():], scale)
					scaleOf, zp = s[0], float32(n/2)
					if zeros != nil {
						zp = float32(zeros[g])
					}
					if tabled {
						for c := range n {
							table[c] = (float32(c) - zp) * scaleOf
						}
					}
				}
				run := min(left, m-j)
				if tabled {
					for t, c := range u[j : j+run] {
						out[i+j+t] = table[c]
					}
				} else {
					for t, c := range u[j : j+run] {
						out[i+j+t] = (float32(c) - zp) * scaleOf
					}
				}
				j, left = j+run, left-run
			}
		}
	}
}
