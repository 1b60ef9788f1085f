package tensor

import (
	"encoding/binary"
	"fmt"
)

// PackedRowBytes returns the bytes of a packed row: cols codes of bits bits,
// rounded up to whole 32-bit words.
func PackedRowBytes(cols, bits int) int { return 4 * ((cols*bits + 31) / 32) }

// PackRow writes codes as one bit stream, lowest bit first: code i takes bits
// i*bits and up, bit p of the stream is bit p%32 of little-endian word p/32.
// The last word is padded with zero bits. Bits of a code above its width are
// dropped. It panics unless 1 <= bits <= 8 and dst holds
// PackedRowBytes(len(codes), bits).
func PackRow(dst []byte, codes []uint8, bits int) {
	checkBits(bits)
	dst = dst[:PackedRowBytes(len(codes), bits)]
	if bits == 8 {
		n := copy(dst, codes)
		clear(dst[n:])
		return
	}
	mask := uint64(1)<<bits - 1
	// Eight codes fill exactly bits bytes; a 64-bit store writes them and
	// zeroes that the next step covers.
	for len(codes) >= 8 && len(dst) >= 8 {
		c := binary.LittleEndian.Uint64(codes)
		binary.LittleEndian.PutUint64(dst, gather8(c, bits, mask))
		codes, dst = codes[8:], dst[bits:]
	}
	var acc uint64
	n, at := 0, 0
	for _, c := range codes {
		acc |= (uint64(c) & mask) << n
		for n += bits; n >= 8; n -= 8 {
			dst[at] = byte(acc)
			acc >>= 8
			at++
		}
	}
	for ; at < len(dst); at++ {
		dst[at] = byte(acc)
		acc >>= 8
	}
}

// gather8 closes the gaps between eight codes in the bytes of c.
func gather8(c uint64, bits int, mask uint64) uint64 {
	// Pairs, then fours, then all: each step halves the number of pieces.
	m1 := mask * 0x0101010101010101
	c &= m1
	b := uint(bits)
	c = c&0x00ff00ff00ff00ff | c>>8&0x00ff00ff00ff00ff<<b
	c = c&0x0000ffff0000ffff | c>>16&0x0000ffff0000ffff<<(2*b)
	return c&0x00000000ffffffff | c>>32<<(4*b)
}

// spread8 undoes gather8.
func spread8(c uint64, bits int, mask uint64) uint64 {
	b := uint(bits)
	c = c&(1<<(4*b)-1) | c>>(4*b)<<32
	m := uint64(1)<<(2*b) - 1
	c = c&(m|m<<32) | c>>(2*b)&(m|m<<32)<<16
	m = mask | mask<<16
	m |= m << 32
	return c&m | c>>b&m<<8
}

// UnpackRow reads len(codes) codes that PackRow wrote. It panics unless
// 1 <= bits <= 8 and src holds PackedRowBytes(len(codes), bits).
func UnpackRow(codes []uint8, src []byte, bits int) {
	checkBits(bits)
	src = src[:PackedRowBytes(len(codes), bits)]
	if bits == 8 {
		copy(codes, src)
		return
	}
	mask := uint64(1)<<bits - 1
	full := uint64(1)<<(8*bits) - 1
	for len(codes) >= 8 && len(src) >= 8 {
		c := binary.LittleEndian.Uint64(src) & full
		binary.LittleEndian.PutUint64(codes, spread8(c, bits, mask))
		codes, src = codes[8:], src[bits:]
	}
	var acc uint64
	n := 0
	for i := range codes {
		if n < bits {
			acc |= uint64(src[0]) << n
			src = src[1:]
			n += 8
		}
		codes[i] = uint8(acc & mask)
		acc >>= bits
		n -= bits
	}
}

func checkBits(bits int) {
	if bits < 1 || bits > 8 {
		panic(fmt.Sprintf("tensor: %d bits to a code: want 1 to 8", bits))
	}
}
