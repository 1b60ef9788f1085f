package main

import "fmt"

// fp4Near is the distance from a BF16 number, in units of the last place of a float32, up to which nvfp4PairAVX512 does not serve a product
// of a scale and a point of decision.
const fp4Near = 8

// fp4Pairs512 prints the last steps for two runs of 1024 weights side by side: the sums of one run are a chain of additions that alone takes
// longer than all other work on it. They find codes in words, of 32 weights at a time.
func fp4Pairs512(t *text) {
	words := func(f func(i int) int) []uint32 {
		out := make([]uint32, 16)
		for i := range out {
			out[i] = uint32(f(2*i)&0xffff) | uint32(f(2*i+1)&0xffff)<<16
		}
		return out
	}
	t.table("pairUp", "Words 0-15 below words 16-31, in doublewords.", words(func(i int) int { return i/2 + i%2*16 }))
	// Boundaries between codes, in steps of a quarter of a power of two from an eighth; whether a magnitude at the boundary is below it.
	type boundary struct {
		at   int
		down bool
	}
	points := []boundary{{4, true}, {10, false}, {13, true}, {15, false}, {17, true}, {19, false}, {21, true}}
	t.table("roundings", "What carries magnitudes, from an eighth up in steps of 1/32 of a power of two, to 64 times the code: by their quarter of a power of two.",
		words(func(i int) int {
			code, less := 0, 0
			for _, p := range points {
				if i >= p.at {
					code++
				}
				if i == p.at && p.down {
					less = 1
				}
			}
			return 64*code - 32*i - less
		}))
	t.table("quarters", "The code of each quarter of a power of two from an eighth up.", words(func(i int) int {
		code := 0
		for _, p := range points {
			if i >= p.at {
				code++
			}
		}
		return code
	}))
	values := []uint32{0, 0x3f000000, 0x3f800000, 0x3fc00000, 0x40000000, 0x40400000, 0x40800000, 0x40c00000}
	for i := range 8 {
		values = append(values, values[i]|1<<31)
	}
	t.table("values", "The values of codes.", values)
	t.table("gather", "Bytes of even places before those of odd places, in runs of eight bytes.", words(func(i int) int {
		i %= 8
		at := func(b int) int { return b/8*8 + b%8/4 + b%4*2 }
		return at(2*i) | at(2*i+1)<<8
	}))
	t.table("deal", "Undoes the order that packing within quarters leaves.", words(func(i int) int {
		block, word := i/8, i%8 // a quarter has a word of each block's lower half and one of its upper
		return word%4*8 + block/2*4 + block%2 + word/4*2
	}))
	fp4Pair512(t, "mxfp4PairAVX512", false)
	fp4Pair512(t, "nvfp4PairAVX512", true)
}

func fp4Pair512(t *text, name string, nv bool) {
	const run, groups = 2048, 32 // bytes and blocks of a run
	fp4Begin(t, name, "Writes the codes of 2 × 1024 weights, two to a byte, and the sums of both runs.")
	t.op("MOVQ fp4Batch_src(DI), SI; MOVQ fp4Batch_codes(DI), DX; MOVQ $16, CX; XORL R8, R8")
	t.op("VMOVDQU32 pairUp<>(SB), Z24; VMOVDQU32 values<>(SB), Z26; VMOVDQU32 gather<>(SB), Z29; VMOVDQU32 deal<>(SB), Z30")
	if nv {
		t.op("VMOVDQU32 quarters<>(SB), Z25")
	} else {
		t.op("VMOVDQU32 roundings<>(SB), Z25")
	}
	t.broadcast(0xffff0000, "Z27")
	t.broadcast(0x80008000, "Z28")
	t.broadcast(0x7fff7fff, "Z23")
	t.broadcast(0x00080008, "Z22")
	t.broadcast(0x00100001, "Z21")
	t.broadcast(0x3e003e00, "Z20") // an eighth
	t.broadcast(0x03ff03ff, "Z31")
	t.op("VPXORD Z16, Z16, Z16; VPXORD Z17, Z17, Z17; VPXORD Z18, Z18, Z18; VPXORD Z19, Z19, Z19")
	t.label("next")
	// Blocks 0 and 1 of the first run, then those of the second.
	source := func(i int) int { return i%2*64 + i/2*run }
	factor := func(field string, i, half int) string {
		at := i%2 + i/2*groups
		if nv {
			return fmt.Sprintf("fp4Batch_%s+%d(DI)(R8*8)", field, 8*at+4*half)
		}
		return fmt.Sprintf("fp4Batch_%s+%d(DI)(R8*4)", field, 4*at)
	}
	each := func(step func(i int)) {
		for i := range 4 {
			step(i)
		}
	}
	each(func(i int) { t.op("PREFETCHT0 %d(SI); VPERMW %d(SI), Z24, Z%d", 2*run+source(i), source(i), i) })
	each(func(i int) { t.op("VPCMPUW $6, Z28, Z%d, K%d", i, 1+i) })
	if nv {
		for h := range 2 { // two registers of quotients for each block
			for i := 2 * h; i < 2*h+2; i++ {
				lo, hi := 8+2*(i%2), 9+2*(i%2)
				t.op("VPSLLD $16, Z%d, Z%d; VPANDD Z27, Z%d, Z%d", i, lo, i, hi)
				t.op("VMULPS.BCST %s, Z%d, Z%d; VMULPS.BCST %s, Z%d, Z%d", factor("inv", i, 0), lo, lo, factor("inv", i, 1), hi, hi)
				t.op("VPSRLD $16, Z%d, Z%d; VPTERNLOGD $0xf8, Z27, Z%d, Z%d; VPANDD Z23, Z%d, Z%d", lo, 4+i, hi, 4+i, 4+i, 4+i)
			}
		}
		each(func(i int) { t.op("VPSUBUSW Z20, Z%d, Z%d; VPMINUW Z31, Z%d, Z%d", 4+i, 4+i, 4+i, 4+i) })
		each(func(i int) { t.op("VPSRLW $5, Z%d, Z%d; VPERMW Z25, Z%d, Z%d", 4+i, 4+i, 4+i, 4+i) })
	} else {
		each(func(i int) { t.op("VPANDD Z23, Z%d, Z%d", i, 4+i) })
		each(func(i int) {
			t.op("VPBROADCASTD %s, Z%d; VPSUBUSW Z%d, Z%d, Z%d", factor("zero", i, 0), 8+i, 8+i, 4+i, 4+i)
		})
		each(func(i int) { t.op("VPSRLW $5, Z%d, Z%d; VPERMW Z25, Z%d, Z%d", 4+i, 8+i, 8+i, 8+i) })
		each(func(i int) { t.op("VPADDW Z%d, Z%d, Z%d; VPSRLW $6, Z%d, Z%d", 8+i, 4+i, 4+i, 4+i, 4+i) })
	}
	each(func(i int) { t.op("VPADDW Z22, Z%d, K%d, Z%d", 4+i, 1+i, 4+i) })
	t.note("pairs of columns to a byte; words 0-3 of a quarter are of the first block of a run")
	t.op("VPACKUSWB Z5, Z4, Z12; VPACKUSWB Z7, Z6, Z13; VPMADDWD Z21, Z12, Z12; VPMADDWD Z21, Z13, Z13; VPACKUSDW Z13, Z12, Z12")
	t.op("VPSHUFB Z29, Z12, Z12; VPERMW Z12, Z30, Z12; VMOVDQU Y12, (DX); VEXTRACTI64X4 $1, Z12, %d(DX)", run/4)
	for _, i := range []int{0, 2, 1, 3} {
		sums := 16 + i/2*2
		t.op("VPSLLD $16, Z%d, Z8; VPANDD Z27, Z%d, Z9; VPERMD Z26, Z%d, Z10; VPSRLD $16, Z%d, Z11; VPERMD Z26, Z11, Z11", i, i, 4+i, 4+i)
		t.op("VFMADD231PS Z8, Z8, Z%d; VFMADD231PS Z9, Z9, Z%d", sums+1, sums+1)
		t.op("VFNMADD231PS.BCST %s, Z10, Z8; VFNMADD231PS.BCST %s, Z11, Z9", factor("scale", i, 0), factor("scale", i, 1))
		t.op("VFMADD231PS Z8, Z8, Z%d; VFMADD231PS Z9, Z9, Z%d", sums, sums)
	}
	t.op("ADDQ $128, SI; ADDQ $32, DX; ADDQ $2, R8; DECQ CX; JNZ next")
	for i, to := range []string{"error", "power", "error2", "power2"} {
		fp4Sum(t, fmt.Sprintf("VEXTRACTF64X4 $1, Z%d, Y0; VADDPS Y0, Y%d, Y0", 16+i, 16+i), "fp4Batch_"+to)
	}
	t.end()
}
