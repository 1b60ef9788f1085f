package main

import "fmt"

// fp4Variant is a last step: under powers of two, which need no division, up to 1 or beyond, where small quotients vanish; and under any
// scales.
type fp4Variant struct {
	name          string
	divide, flush bool
}

func fp4Variants() []fp4Variant {
	return []fp4Variant{{"mxfp4Codes", false, false}, {"mxfp4CodesFlush", false, true}, {"nvfp4Codes", true, false}}
}

func fp4Functions() []string {
	out := []string{"mxfp4Scales", "mxfp4PairAVX512", "nvfp4PairAVX512"}
	for _, i := range []isa{avx2, avx512} {
		out = append(out, "fp4Tops"+i.name, "nvfp4Scales"+i.name)
		for _, v := range fp4Variants() {
			if i == avx512 || !v.flush {
				out = append(out, v.name+i.name)
			}
		}
	}
	return out
}

// fp4File prints the steps of one instruction set, for BF16 weights: largest magnitudes, then codes.
func fp4File(i isa, name string) file {
	var t text
	t.header()
	words := func(n int, f func(i int) uint32) []uint32 {
		out := make([]uint32, n)
		for i := range out {
			out[i] = f(i)
		}
		return out
	}
	same := func(v uint32) []uint32 { return words(8, func(int) uint32 { return v }) }
	if i == avx512 {
		pairs := func(f func(i int) uint32) []uint32 {
			return words(16, func(i int) uint32 { return f(2*i) | f(2*i+1)<<16 })
		}
		t.table("widenLow", "Words 0-15 into both halves of doublewords.", pairs(func(i int) uint32 { return uint32(i / 2) }))
		t.table("widenHigh", "Words 16-31 into both halves of doublewords.", pairs(func(i int) uint32 { return uint32(16 + i/2) }))
		t.table("narrow", "The low words of 32 doublewords in two registers.", pairs(func(i int) uint32 { return uint32(2 * i) }))
		t.table("collect", "Words 0-3 of each quarter, those of one place in all quarters together, into both halves of doublewords.",
			pairs(func(i int) uint32 { g := i / 2; return uint32(g%4*8 + g/4) }))
		t.table("adders", "What rounds magnitudes, by the low bits of the exponent: below 2, 2 and 3, 4 to 7.",
			words(16, func(i int) uint32 { return map[int]uint32{15: 0x4ac00000, 0: 0x4b400002, 1: 0x4bc00004}[i] }))
		t.table("eighths", "8 to 15 eighths, twice.", words(16, func(i int) uint32 { return 0x3f800000 | uint32(i%8)<<20 }))
		nvfp4Scales512(&t)
		fp4Tops512(&t)
		for _, v := range fp4Variants() {
			fp4Codes512(&t, v)
		}
		fp4Pairs512(&t)
		return file{name, t.String()}
	}
	t.table("order", "Undoes the order that packing within halves leaves.", words(8, func(i int) uint32 { return uint32(i/2 + i%2*4) }))
	t.table("pair", "Bytes 1 and 16 in turn: two codes to a byte.", same(0x10011001))
	t.table("six", "6, the largest magnitude.", same(0x40c00000))
	t.table("one", "1.", same(0x3f800000))
	t.table("ones", "A significand of ones.", same(0x7fffff))
	t.table("sign", "The bit of the sign.", same(0x80000000))
	t.table("magnitude", "All others.", same(0x7fffffff))
	t.table("eight", "The sign of a code.", same(8))
	t.table("seven", "The magnitude of a code.", same(7))
	t.table("adders", "What rounds magnitudes, by the low bits of the exponent: below 2, 2 and 3, 4 to 7.",
		words(8, func(i int) uint32 { return map[int]uint32{7: 0x4ac00000, 0: 0x4b400002, 1: 0x4bc00004}[i] }))
	mxfp4Scales(&t)
	nvfp4Scales(&t)
	fp4Tops256(&t)
	for _, v := range fp4Variants() {
		if !v.flush { // its comparison serves all
			fp4Codes256(&t, v)
		}
	}
	return file{name, t.String()}
}

func fp4Begin(t *text, name, comment string) {
	fmt.Fprintf(t, "\n// func %s(b *fp4Batch)\n//\n// %s\nTEXT ·%s(SB), NOSPLIT, $0-8\n", name, comment, name)
	t.op("MOVQ b+0(FP), DI")
}

// mxfp4Scales prints the middle step of MXFP4: largest magnitudes to scales, eight at a time. It is AVX2 code for both instruction sets.
func mxfp4Scales(t *text) {
	fp4Begin(t, "mxfp4Scales", "Makes scale, inv, stored, bad and slow, which is for scales above 1, from the first 16 × eights tops, two for a scale.")
	t.op("MOVQ fp4Batch_eights(DI), CX; XORL R8, R8; XORL R9, R9; XORL R10, R10; VPXOR Y9, Y9, Y9")
	t.broadcast(0x7f7fffff, "Y15")
	t.broadcast(129, "Y8") // the exponent of a magnitude whose scale is 1
	t.broadcast(1<<21, "Y14")
	t.broadcast(254, "Y13")
	t.broadcast(2, "Y12")
	t.broadcast(256, "Y11")
	t.broadcast(0x00400000, "Y10") // 2^-127
	t.broadcast(3, "Y7")
	t.broadcast(5, "Y6") // the exponent of a magnitude whose scale is 2^-124
	t.op("VPXOR Y5, Y5, Y5")
	t.label("next")
	t.op("VMOVDQU fp4Batch_tops(DI)(R8*8), Y0; VMOVDQU fp4Batch_tops+32(DI)(R8*8), Y1")
	t.op("VSHUFPS $0x88, Y1, Y0, Y2; VSHUFPS $0xdd, Y1, Y0, Y3; VPMAXUD Y3, Y2, Y0; VPERMQ $0xd8, Y0, Y0")
	t.note("not finite: the bits are above those of the largest number")
	t.op("VPCMPGTD Y15, Y0, Y1; VMOVMSKPS Y1, AX; ORL AX, R9; VPCMPGTD Y9, Y0, Y4")
	t.note("the exponent, to which a significand of 1.75 carries")
	t.op("VPADDD Y14, Y0, Y0; VPSRLD $23, Y0, Y0; VPMINUD Y13, Y0, Y0; VPMAXUD Y12, Y0, Y0; VPCMPGTD Y8, Y0, Y1; VMOVMSKPS Y1, AX; ORL AX, R10")
	t.op("VPCMPGTD Y0, Y6, Y1; VPAND Y4, Y1, Y1; VPOR Y1, Y5, Y5")
	t.op("VPSUBD Y0, Y11, Y1; VPSLLD $23, Y1, Y1; VMOVDQU Y1, fp4Batch_inv(DI)(R8*4)")
	t.op("VPSUBD Y12, Y0, Y0; VPCMPEQD Y9, Y0, Y1; VPAND Y10, Y1, Y1; VPSLLD $23, Y0, Y2; VPOR Y1, Y2, Y2; VMOVDQU Y2, fp4Batch_scale(DI)(R8*4)")
	t.op("VPSUBUSW Y7, Y0, Y2; VPSLLD $7, Y2, Y1; VPSLLD $23, Y2, Y2; VPOR Y1, Y2, Y2; VMOVDQU Y2, fp4Batch_zero(DI)(R8*4)")
	t.op("VPACKUSDW Y0, Y0, Y0; VPERMQ $0x08, Y0, Y0; VPACKUSWB X0, X0, X0; VMOVQ X0, fp4Batch_stored(DI)(R8*1)")
	t.op("ADDQ $8, R8; DECQ CX; JNZ next; MOVL R9, fp4Batch_bad(DI); MOVL R10, fp4Batch_slow(DI); VMOVMSKPS Y5, AX; MOVL AX, fp4Batch_near(DI)")
	t.end()
}

// fp4Sixth is 1/6. The sixth of a BF16 number lies as far from the points where rounding to BF16 turns as to make no difference between
// this and a division, or on one, among numbers so small that the product is exact there.
const fp4Sixth = 0x3e2aaaab

// nvfp4Scales512 prints that of NVFP4, sixteen at a time.
func nvfp4Scales512(t *text) {
	fp4Begin(t, "nvfp4ScalesAVX512", "Makes scale, inv, stored, bad and slow from the first 8 × eights tops, and from eight more if these are odd.")
	t.op("VBROADCASTSS fp4Batch_global(DI), Z15; MOVQ fp4Batch_eights(DI), CX; INCQ CX; SHRQ $1, CX; XORL R8, R8")
	t.broadcast(fp4Sixth, "Z14")
	t.broadcast(0x7f7fffff, "Z13")
	t.broadcast(1, "Z12")
	t.broadcast(0x7fff, "Z11")
	t.broadcast(0x43e00000, "Z10") // 448
	t.broadcast(0x7f800000, "Z9")
	t.broadcast(0x3c800000, "Z8") // 2^-6, the smallest normal number
	t.broadcast(20<<23, "Z7")
	t.broadcast(0x20, "Z6")        // 0.125 as stored
	t.broadcast(0x3e000000, "Z16") // 0.125
	t.broadcast(0xffff0000, "Z17")
	t.broadcast(0x7fffff, "Z18")
	t.broadcast(0x3f800000, "Z19")
	for i, f := range []uint32{0x3fa00000, 0x3fc00000, 0x3fe00000} {
		t.broadcast(f, fmt.Sprintf("Z%d", 23+i))
	}
	t.broadcast(fp4Near, "Z26")
	t.broadcast(2*fp4Near, "Z27")
	t.broadcast(0xffff, "Z28")
	t.broadcast(254<<23, "Z31")
	t.note("a local scale is an eighth of 8 to 15, times a power of two: those eighths over the global scale, and the inverse")
	t.op("VMOVUPS eighths<>(SB), Z29; VDIVPS Z15, Z29, Z29; VDIVPS Z29, Z19, Z30")
	t.note("times the significands of the points of decision: near a BF16 number?")
	t.op("VPADDD Z26, Z29, Z0; VPANDD Z28, Z0, Z0; VPCMPUD $2, Z27, Z0, K5")
	for i := range 3 {
		t.op("VMULPS Z%d, Z29, Z0; VPADDD Z26, Z0, Z0; VPANDD Z28, Z0, Z0; VPCMPUD $2, Z27, Z0, K1; KORW K1, K5, K5", 23+i)
	}
	t.op("VPBROADCASTD fp4Batch_beyond(DI), Z20; VPBROADCASTD fp4Batch_low(DI), Z21; VPBROADCASTD fp4Batch_high(DI), Z22")
	t.note("the ones that the inverse does not serve; and extremes: of magnitudes, of local scales, of scales")
	t.op("VPANDD Z18, Z29, Z3; VPCMPEQD Z18, Z3, K7; VPXORD Z23, Z23, Z23; VPXORD Z24, Z24, Z24; VPXORD Z25, Z25, Z25; VMOVDQA32 Z21, Z26")
	t.label("next")
	t.op("VMOVDQU32 fp4Batch_tops(DI)(R8*4), Z0")
	t.op("VPMAXSD Z0, Z23, Z23")
	t.note("a sixth, rounded to BF16, times the global scale, at most 448; far beyond that, quotients would overflow on the way")
	t.op("VMULPS Z14, Z0, Z1; VPSRLD $16, Z1, Z2; VPANDD Z12, Z2, Z2; VPADDD Z2, Z1, Z1; VPADDD Z11, Z1, Z1; VPANDD Z17, Z1, Z1")
	t.op("VMULPS Z15, Z1, Z1; VPMAXSD Z1, Z24, Z24; VMINPS Z10, Z1, Z1")
	t.note("to E4M3: adding 2^20 times the power of two rounds to eighths of it, and counts them")
	t.op("VPANDD Z9, Z1, Z2; VPMAXSD Z8, Z2, Z2; VPADDD Z7, Z2, Z3; VADDPS Z3, Z1, Z4; VPSUBD Z3, Z4, Z5; VSUBPS Z3, Z4, Z4")
	t.op("VPSUBD Z8, Z2, Z2; VPSRLD $20, Z2, Z2; VPADDD Z2, Z5, Z5")
	t.note("0.125 for what has become 0")
	t.op("VPTESTNMD Z5, Z5, K1; VMOVDQA32 Z6, K1, Z5; VMOVDQA32 Z16, K1, Z4")
	t.note("what the powers of two can make inexact is not from low to high")
	t.op("VPSRLD $20, Z4, Z0; VPERMD Z29, Z0, Z2; VPERMD Z30, Z0, Z0; VPANDD Z9, Z4, Z1; VMULPS Z1, Z2, Z4; VMOVUPS Z4, fp4Batch_scale(DI)(R8*4)")
	t.op("VPSUBD Z1, Z31, Z1; VMULPS Z1, Z0, Z2; VMOVUPS Z2, fp4Batch_inv(DI)(R8*4)")
	t.op("VPMAXSD Z4, Z25, Z25; VPMINSD Z4, Z26, Z26")
	t.op("VPMOVDB Z5, X5; VMOVDQU X5, fp4Batch_stored(DI)(R8*1)")
	t.op("ADDQ $16, R8; DECQ CX; JNZ next")
	t.note("not finite: the bits are above those of the largest number")
	t.op("VPCMPGTD Z13, Z23, K6; VPCMPGTD Z20, Z24, K1; KORW K1, K7, K7; VPCMPGTD Z22, Z25, K1; KORW K1, K7, K7; VPCMPGTD Z26, Z21, K1; KORW K1, K7, K7")
	t.op("KMOVW K6, AX; MOVL AX, fp4Batch_bad(DI); KMOVW K7, AX; MOVL AX, fp4Batch_slow(DI); KMOVW K5, AX; MOVL AX, fp4Batch_near(DI)")
	t.end()
}

// nvfp4Scales prints it for AVX2, eight at a time.
func nvfp4Scales(t *text) {
	fp4Begin(t, "nvfp4ScalesAVX2", "Makes scale, inv, stored, bad and slow from the first 8 × eights tops.")
	t.op("VBROADCASTSS fp4Batch_global(DI), Y15; MOVQ fp4Batch_eights(DI), CX; XORL R8, R8; XORL R9, R9; XORL R10, R10")
	t.broadcast(fp4Sixth, "Y14")
	t.broadcast(0x7f7fffff, "Y13")
	t.broadcast(1, "Y12")
	t.broadcast(0x7fff, "Y11")
	t.broadcast(0x43e00000, "Y10") // 448
	t.broadcast(0x7f800000, "Y9")
	t.broadcast(0x3c800000, "Y8") // 2^-6, the smallest normal number
	t.broadcast(20<<23, "Y7")
	t.broadcast(0x20, "Y6") // 0.125 as stored
	t.label("next")
	t.op("VMOVDQU fp4Batch_tops(DI)(R8*4), Y0")
	t.note("not finite: the bits are above those of the largest number")
	t.op("VPCMPGTD Y13, Y0, Y1; VMOVMSKPS Y1, AX; ORL AX, R9")
	t.note("a sixth, rounded to BF16, times the global scale, at most 448")
	t.op("VMULPS Y14, Y0, Y1; VPSRLD $16, Y1, Y2; VPAND Y12, Y2, Y2; VPADDD Y2, Y1, Y1; VPADDD Y11, Y1, Y1")
	t.op("VPSRLD $16, Y1, Y1; VPSLLD $16, Y1, Y1; VMULPS Y15, Y1, Y1")
	t.note("far beyond 448, quotients would overflow on the way")
	t.op("VPBROADCASTD fp4Batch_beyond(DI), Y2; VPCMPGTD Y2, Y1, Y2; VMOVMSKPS Y2, AX; ORL AX, R10; VMINPS Y10, Y1, Y1")
	t.note("to E4M3: adding 2^20 times the power of two rounds to eighths of it, and counts them")
	t.op("VPAND Y9, Y1, Y2; VPMAXSD Y8, Y2, Y2; VPADDD Y7, Y2, Y3; VADDPS Y3, Y1, Y4; VPSUBD Y3, Y4, Y5; VSUBPS Y3, Y4, Y4")
	t.op("VPSUBD Y8, Y2, Y2; VPSRLD $20, Y2, Y2; VPADDD Y2, Y5, Y5")
	t.note("0.125 for what has become 0")
	t.op("VPXOR Y2, Y2, Y2; VPCMPEQD Y2, Y5, Y2; VPAND Y6, Y2, Y3; VPOR Y3, Y5, Y5; VPSRLD $27, Y2, Y2; VPSLLD $25, Y2, Y2; VPOR Y2, Y4, Y4")
	t.op("VDIVPS Y15, Y4, Y4; VMOVUPS Y4, fp4Batch_scale(DI)(R8*4)")
	t.op("VPBROADCASTD fp4Batch_low(DI), Y2; VPCMPGTD Y4, Y2, Y2; VPBROADCASTD fp4Batch_high(DI), Y3; VPCMPGTD Y3, Y4, Y3; VPOR Y3, Y2, Y2")
	t.op("VPSLLD $9, Y4, Y3; VPSRLD $9, Y3, Y3; VPCMPEQD ones<>(SB), Y3, Y3; VPOR Y3, Y2, Y2; VMOVMSKPS Y2, AX; ORL AX, R10")
	t.op("VMOVUPS one<>(SB), Y2; VDIVPS Y4, Y2, Y2; VMOVUPS Y2, fp4Batch_inv(DI)(R8*4)")
	t.op("VPACKUSDW Y5, Y5, Y5; VPERMQ $0x08, Y5, Y5; VPACKUSWB X5, X5, X5; VMOVQ X5, fp4Batch_stored(DI)(R8*1)")
	t.op("ADDQ $8, R8; DECQ CX; JNZ next")
	t.op("MOVL R9, fp4Batch_bad(DI); MOVL R10, fp4Batch_slow(DI)")
	t.end()
}

// fp4Tops512 prints the largest magnitude of each 16 weights: of 16 such runs at a time, whose registers are folded together.
func fp4Tops512(t *text) {
	fp4Begin(t, "fp4TopsAVX512", "Writes tops, one for each 16 weights of blocks × 32.")
	t.broadcast(0x7fff7fff, "Z15")
	t.op("VMOVDQU32 collect<>(SB), Z14; MOVL $0xaaaaaaaa, AX; KMOVD AX, K1; VPCMPEQD Y13, Y13, Y13")
	t.op("MOVQ fp4Batch_src(DI), SI; MOVQ fp4Batch_blocks(DI), CX; XORL R8, R8; SUBQ $8, CX; JLT rest")
	t.label("eight")
	for i := range 8 {
		t.op("VPANDD %d(SI), Z15, Z%d", 64*i, i)
	}
	t.note("halves of 16 weights together")
	for i := range 4 {
		a, b := 2*i, 2*i+1
		t.op("VSHUFI64X2 $0x88, Z%d, Z%d, Z%d; VSHUFI64X2 $0xdd, Z%d, Z%d, Z%d; VPMAXUW Z%d, Z%d, Z%d", b, a, 8+i, b, a, b, b, 8+i, 8+i)
	}
	t.note("four quarters each of a run; fold words 0-7 of all four registers into 0-3")
	t.op("VPUNPCKLWD Z9, Z8, Z0; VPUNPCKHWD Z9, Z8, Z1; VPMAXUW Z1, Z0, Z0")
	t.op("VPUNPCKLWD Z11, Z10, Z2; VPUNPCKHWD Z11, Z10, Z3; VPMAXUW Z3, Z2, Z2")
	t.op("VPUNPCKLDQ Z2, Z0, Z1; VPUNPCKHDQ Z2, Z0, Z3; VPMAXUW Z3, Z1, Z0")
	t.op("VPSHUFD $0x4e, Z0, Z1; VPMAXUW Z1, Z0, Z0")
	t.op("VPERMW.Z Z0, Z14, K1, Z0; VMOVDQU32 Z0, fp4Batch_tops(DI)(R8*4)")
	t.op("ADDQ $512, SI; ADDQ $16, R8; SUBQ $8, CX; JGE eight")
	t.label("rest")
	fp4TopsRest(t, 8)
}

// fp4TopsRest prints the end of that: run by run. CX holds the blocks that are left, less step.
func fp4TopsRest(t *text, step int) {
	t.op("ADDQ $%d, CX; JEQ done", step)
	t.label("one")
	for i := range 2 {
		t.note("the largest word is the complement of the smallest complement")
		t.op("VPAND %d(SI), Y15, Y0; VEXTRACTI128 $1, Y0, X1; VPMAXUW X1, X0, X0; VPXOR X13, X0, X0; VPHMINPOSUW X0, X0", 32*i)
		t.op("VMOVD X0, AX; NOTL AX; SHLL $16, AX; MOVL AX, fp4Batch_tops+%d(DI)(R8*4)", 4*i)
	}
	t.op("ADDQ $64, SI; ADDQ $2, R8; DECQ CX; JNZ one")
	t.label("done")
	t.end()
}

// fp4Tops256 works on eight runs at a time.
func fp4Tops256(t *text) {
	fp4Begin(t, "fp4TopsAVX2", "Writes tops, one for each 16 weights of blocks × 32.")
	t.broadcast(0x7fff7fff, "Y15")
	t.op("VPCMPEQD Y13, Y13, Y13; MOVQ fp4Batch_src(DI), SI; MOVQ fp4Batch_blocks(DI), CX; XORL R8, R8; SUBQ $4, CX; JLT rest")
	t.label("four")
	for i := range 8 {
		t.op("VPAND %d(SI), Y15, Y%d; VEXTRACTI128 $1, Y%d, X8; VPMAXUW X8, X%d, X%d", 32*i, i, i, i, i)
	}
	for i := range 4 {
		a, b := 2*i, 2*i+1
		t.op("VPUNPCKLWD X%d, X%d, X8; VPUNPCKHWD X%d, X%d, X9; VPMAXUW X9, X8, X%d", b, a, b, a, a)
	}
	for i := range 2 {
		a, b := 4*i, 4*i+2
		t.op("VPUNPCKLDQ X%d, X%d, X8; VPUNPCKHDQ X%d, X%d, X9; VPMAXUW X9, X8, X%d", b, a, b, a, a)
	}
	t.op("VPUNPCKLQDQ X4, X0, X8; VPUNPCKHQDQ X4, X0, X9; VPMAXUW X9, X8, X0")
	t.op("VPMOVZXWD X0, Y0; VPSLLD $16, Y0, Y0; VMOVDQU Y0, fp4Batch_tops(DI)(R8*4)")
	t.op("ADDQ $256, SI; ADDQ $8, R8; SUBQ $4, CX; JGE four")
	t.label("rest")
	fp4TopsRest(t, 4)
}

// fp4Loop prints what the last steps of both instruction sets begin with.
func fp4Loop(t *text, name string) {
	fp4Begin(t, name, "Writes the codes of blocks × 32 weights, two to a byte, and the sums of the lanes.")
	t.op("MOVQ fp4Batch_src(DI), SI; MOVQ fp4Batch_codes(DI), DX; MOVQ fp4Batch_blocks(DI), CX; XORL R8, R8")
}

// quotients prints q = x/scale for registers of weights: times the inverse where scales are powers of two. Otherwise a step of
// correction by the remainder follows: see fp4Low.
func quotients(t *text, divide bool, x, q, r, scale, inv []string) {
	each := func(format string, args ...[]string) {
		for i := range x {
			a := make([]any, len(args))
			for j, s := range args {
				a[j] = s[i]
			}
			t.op(format, a...)
		}
	}
	broadcast := "" // of an operand in memory
	if x[0][0] == 'Z' {
		broadcast = ".BCST"
	}
	each("VMULPS"+broadcast+" %s, %s, %s", inv, x, q)
	if !divide {
		return
	}
	each("VMOVAPS %s, %s", x, r)
	each("VFNMADD231PS"+broadcast+" %s, %s, %s", scale, q, r)
	each("VFMADD231PS"+broadcast+" %s, %s, %s", inv, r, q)
}

// fp4Codes512 works on two blocks at a time: one alone is too long a chain of dependent steps to keep the units busy.
func fp4Codes512(t *text, v fp4Variant) {
	fp4Loop(t, v.name+"AVX512")
	t.op("VMOVDQU32 widenLow<>(SB), Z24; VMOVDQU32 widenHigh<>(SB), Z25; VMOVDQU32 narrow<>(SB), Z26; VMOVDQU32 adders<>(SB), Z27")
	t.broadcast(0x00100001, "Z23")
	t.broadcast(0x40c00000, "Z22")
	t.broadcast(0x3f800000, "Z21")
	t.broadcast(0x00080008, "Z20")
	t.broadcast(0x7fff7fff, "Z19")
	t.broadcast(0x80008000, "Z28")
	t.op("VBROADCASTSS fp4Batch_flush(DI), Z18; VPXORD Z16, Z16, Z16; VPXORD Z17, Z17, Z17; MOVL $0xaaaaaaaa, AX; KMOVD AX, K1")
	t.op("SUBQ $2, CX; JLT last")
	t.label("two")
	fp4Blocks512(t, v, 2)
	t.op("ADDQ $128, SI; ADDQ $32, DX; ADDQ $2, R8; SUBQ $2, CX; JGE two")
	t.label("last")
	t.op("ADDQ $2, CX; JEQ done")
	fp4Blocks512(t, v, 1)
	t.label("done")
	fp4Sum(t, "VEXTRACTF64X4 $1, Z16, Y0; VADDPS Y0, Y16, Y0", "fp4Batch_error")
	fp4Sum(t, "VEXTRACTF64X4 $1, Z17, Y0; VADDPS Y0, Y17, Y0", "fp4Batch_power")
	t.end()
}

// fp4Blocks512 prints the work of some blocks, steps across the registers so that independent work stands together. It goes by magnitudes; signs
// are those of the words that are above that of minus zero.
func fp4Blocks512(t *text, v fp4Variant, blocks int) {
	var x, q, c, sums, scale, inv []string
	for i := range 2 * blocks {
		x, q, c, sums = append(x, fmt.Sprintf("Z%d", i)), append(q, fmt.Sprintf("Z%d", 4+i)), append(c, fmt.Sprintf("Z%d", 8+i)), append(sums, fmt.Sprintf("Z%d", 12+i))
		at := fmt.Sprintf("+%d(DI)(R8*8)", 4*i)
		if !v.divide {
			at = fmt.Sprintf("+%d(DI)(R8*4)", 4*(i/2))
		}
		scale, inv = append(scale, "fp4Batch_scale"+at), append(inv, "fp4Batch_inv"+at)
	}
	each := func(step func(i int)) {
		for i := range x {
			step(i)
		}
	}
	for b := range blocks {
		lo, hi := x[2*b], x[2*b+1]
		t.op("PREFETCHT0 %d(SI); VMOVDQU32 %d(SI), %s; VPCMPUW $6, Z28, %s, K%d; VPANDD Z19, %s, %s", 4096+64*b, 64*b, hi, hi, 2+b, hi, hi)
		t.op("VPERMW.Z %s, Z24, K1, %s; VPERMW.Z %s, Z25, K1, %s", hi, lo, hi, hi)
	}
	quotients(t, v.divide, x, q, c, scale, inv)
	if v.flush {
		t.note("quotients that become zero lose their sign")
		for b := range blocks {
			t.op("VCMPPS $6, Z18, %s, K4; VCMPPS $6, Z18, %s, K5; KUNPCKWD K4, K5, K4; KANDD K4, K%d, K%d", q[2*b], q[2*b+1], 2+b, 2+b)
		}
	}
	t.note("at most 6, the exponent, and what to add; the sum has the code, and less what was added is its value")
	each(func(i int) { t.op("VMINPS Z22, %s, %s", q[i], q[i]) })
	each(func(i int) { t.op("VMAXPS Z21, %s, %s", q[i], c[i]) })
	each(func(i int) { t.op("VPSRLD $23, %s, %s", c[i], c[i]) })
	each(func(i int) { t.op("VPERMD Z27, %s, %s", c[i], c[i]) })
	each(func(i int) { t.op("VADDPS %s, %s, %s", c[i], q[i], sums[i]) })
	each(func(i int) { t.op("VSUBPS %s, %s, %s", c[i], sums[i], q[i]) })
	each(func(i int) { t.op("VFMADD231PS %s, %s, Z17", x[i], x[i]) })
	each(func(i int) { t.op("VFNMADD231PS.BCST %s, %s, %s", scale[i], q[i], x[i]) })
	each(func(i int) { t.op("VFMADD231PS %s, %s, Z16", x[i], x[i]) })
	for b := range blocks {
		lo, hi := sums[2*b], sums[2*b+1]
		t.op("VPERMT2W %s, Z26, %s; VPADDW Z20, %s, K%d, %s; VPMADDWD Z23, %s, %s; VPMOVDB %s, X%s; VMOVDQU X%s, %d(DX)", hi, lo, lo, 2+b, lo, lo, lo, lo, lo[1:], lo[1:], 16*b)
	}
}

// fp4Sum adds 16 lanes as a tree of distance 8, which fold does into Y0, then 4, 2, 1.
func fp4Sum(t *text, fold, to string) {
	t.op("%s; VEXTRACTF128 $1, Y0, X1; VADDPS X1, X0, X0", fold)
	t.op("VPERMILPS $0x4e, X0, X1; VADDPS X1, X0, X0; VPERMILPS $0xb1, X0, X1; VADDPS X1, X0, X0; VMOVSS X0, %s(DI)", to)
}

func fp4Codes256(t *text, v fp4Variant) {
	fp4Loop(t, v.name+"AVX2")
	t.op("VMOVDQU adders<>(SB), Y14; VBROADCASTSS fp4Batch_flush(DI), Y15")
	for i := 8; i < 12; i++ {
		t.op("VPXOR Y%d, Y%d, Y%d", i, i, i)
	}
	t.label("block")
	t.op("PREFETCHT0 4096(SI)")
	for h := range 2 {
		if v.divide {
			t.op("VBROADCASTSS fp4Batch_scale+%d(DI)(R8*8), Y12; VBROADCASTSS fp4Batch_inv+%d(DI)(R8*8), Y13", 4*h, 4*h)
		} else if h == 0 {
			t.op("VBROADCASTSS fp4Batch_scale(DI)(R8*4), Y12; VBROADCASTSS fp4Batch_inv(DI)(R8*4), Y13")
		}
		t.op("VPERMQ $0xd8, %d(SI), Y1; VPXOR Y2, Y2, Y2; VPUNPCKLWD Y1, Y2, Y0; VPUNPCKHWD Y1, Y2, Y1", 32*h)
		quotients(t, v.divide, []string{"Y0", "Y1"}, []string{"Y2", "Y3"}, []string{"Y4", "Y5"}, []string{"Y12", "Y12"}, []string{"Y13", "Y13"})
		for x := range 2 {
			q, sign := 2+x, 4+x
			t.note("sign of the code; magnitude up to 6, its exponent, and what to add; the code, and its value with the weight's sign")
			t.op("VCMPPS $1, Y15, Y%d, Y%d; VPAND eight<>(SB), Y%d, Y%d", q, sign, sign, sign)
			t.op("VANDPS magnitude<>(SB), Y%d, Y%d; VMINPS six<>(SB), Y%d, Y%d", q, q, q, q)
			t.op("VMAXPS one<>(SB), Y%d, Y7; VPSRLD $23, Y7, Y7; VPERMD Y14, Y7, Y7; VADDPS Y7, Y%d, Y%d; VSUBPS Y7, Y%d, Y7", q, q, q, q)
			t.op("VPAND seven<>(SB), Y%d, Y%d; VPOR Y%d, Y%d, Y%d", q, q, sign, q, q)
			t.op("VANDPS sign<>(SB), Y%d, Y%d; VORPS Y%d, Y7, Y7", x, sign, sign)
			t.op("VFMADD231PS Y%d, Y%d, Y%d; VFNMADD231PS Y7, Y12, Y%d; VFMADD231PS Y%d, Y%d, Y%d", x, x, 10+x, x, x, x, 8+x)
		}
		t.op("VPACKUSDW Y3, Y2, Y%d", 6+h)
	}
	t.note("packing works in halves: put the runs of four bytes in order")
	t.op("VPACKUSWB Y7, Y6, Y6; VMOVDQU order<>(SB), Y7; VPERMD Y6, Y7, Y6")
	t.op("VPMADDUBSW pair<>(SB), Y6, Y6; VPACKUSWB Y6, Y6, Y6; VPERMQ $0x08, Y6, Y6; VMOVDQU X6, (DX)")
	t.op("ADDQ $64, SI; ADDQ $16, DX; INCQ R8; DECQ CX; JNZ block")
	fp4Sum(t, "VADDPS Y9, Y8, Y0", "fp4Batch_error")
	fp4Sum(t, "VADDPS Y11, Y10, Y0", "fp4Batch_power")
	t.end()
}
