package main

// tableFile prints the encoders of 4-bit tables of one instruction set, for BF16 weights.
func tableFile(i isa, name string) file {
	var t text
	t.header()
	if i == avx512 {
		search512(&t)
		buckets512(&t, false)
		buckets512(&t, true)
	} else {
		t.table("order", "Undoes the order that packing within halves leaves.", []uint32{0, 4, 1, 5, 0, 4, 1, 5})
		t.table("nibble", "The lowest four bits of bytes.", fill(8, 0x0f0f0f0f))
		t.table("low", "The lowest byte of doublewords.", fill(8, 0xff))
		inverse256(&t)
		search256(&t)
	}
	return file{name, t.String()}
}

func fill(n int, word uint32) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		out[i] = word
	}
	return out
}

func tableFunctions() []string {
	return []string{"tableInverseAVX2", "tableBF16AVX2", "tableBF16AVX512", "bucketsBF16AVX512", "bucketsZeroBF16AVX512"}
}

// inverse256 prints the inverses of magnitudes, eight at a time: a division takes as long for eight as for one.
func inverse256(t *text) {
	t.WriteString("\n// func tableInverseAVX2(b *tableBatch)\n//\n// Replaces the magnitudes in inverse by what weights are multiplied with.\nTEXT ·tableInverseAVX2(SB), NOSPLIT, $0-8\n")
	t.op("MOVQ b+0(FP), DI; MOVQ tableBatch_runs(DI), CX; ADDQ $7, CX; SHRQ $3, CX; LEAQ tableBatch_inverse(DI), SI")
	t.broadcast(0x006ce3ee, "Y3")
	t.broadcast(0x3f800000, "Y1")
	t.label("eight")
	t.op("VMAXPS (SI), Y3, Y2; VDIVPS Y2, Y1, Y2; VMOVUPS Y2, (SI); ADDQ $32, SI; DECQ CX; JNZ eight")
	t.end()
}

// tableBegin prints what all start with: a loop over runs, each with its inverse and scale, around one over 32 weights.
func tableBegin(t *text, name string) {
	t.WriteString("\n// func " + name + "(b *tableBatch)\n//\n// Writes the codes of a row of BF16 weights, and adds to the sums of its lanes.\nTEXT ·" + name + "(SB), NOSPLIT, $0-8\n")
	t.op("MOVQ b+0(FP), DI; MOVQ tableBatch_lookups(DI), R12")
	t.op("MOVQ tableBatch_src(DI), SI; MOVQ tableBatch_codes(DI), DX; MOVQ tableBatch_inv(DI), R8; MOVQ tableBatch_scale(DI), R9")
	t.op("MOVQ tableBatch_runs(DI), CX; MOVQ tableBatch_blocks(DI), BX; MOVQ tableBatch_ahead(DI), R10")
}

func tableEnd(t *text) {
	t.op("ADDQ $64, SI; ADDQ $16, DX; DECQ R11; JNZ block")
	t.op("ADDQ $4, R8; ADDQ $4, R9; DECQ CX; JNZ run")
}

// greater is the comparison x > y of ordered numbers.
const greater = "$0x1e"

// begin512 prints the beginning with AVX-512, up to numbers in the even columns in Z2 and the odd ones in Z3, whose weights are in Z0 and Z1.
func begin512(t *text, name string, constants func()) {
	tableBegin(t, name)
	t.op("VMOVUPS tableBatch_errors(DI), Z16; VMOVUPS tableBatch_powers(DI), Z17; VMOVUPS tableLookups_values(R12), Z22; VMOVDQU32 tableLookups_places(R12), Z23")
	t.broadcast(0xffff0000, "Z24")
	t.broadcast(1, "Z31")
	constants()
	t.label("run")
	t.op("VBROADCASTSS (R8), Z14; VBROADCASTSS (R9), Z15; MOVQ BX, R11")
	t.label("block")
	t.op("PREFETCHT0 (SI)(R10*1)")
	t.op("VMOVDQU32 (SI), Z1; VPSLLD $16, Z1, Z0; VPANDD Z24, Z1, Z1; VMULPS Z14, Z0, Z2; VMULPS Z14, Z1, Z3")
}

// end512 prints what is done with the places in Z4 and Z5: sums, and codes two to a byte. With lookup, codes are not places.
func end512(t *text, lookup bool) {
	t.op("VPERMPS Z22, Z4, Z6; VPERMPS Z22, Z5, Z7; VFMADD231PS Z0, Z0, Z17")
	if lookup {
		t.op("VPERMD Z23, Z4, Z4; VPERMD Z23, Z5, Z5")
	}
	t.op("VPSLLD $4, Z4, Z4; VPORD Z5, Z4, Z4; VFMADD231PS Z1, Z1, Z17")
	t.op("VFNMADD231PS Z6, Z15, Z0; VFNMADD231PS Z7, Z15, Z1; VPMOVDB Z4, X4; VMOVDQU X4, (DX)")
	t.op("VFMADD231PS Z0, Z0, Z16; VFMADD231PS Z1, Z1, Z16")
	tableEnd(t)
	t.op("VMOVUPS Z16, tableBatch_errors(DI); VMOVUPS Z17, tableBatch_powers(DI)")
	t.end()
}

// search512 searches the bounds in four steps: each looks up the bound in the middle of what is left.
func search512(t *text) {
	begin512(t, "tableBF16AVX512", func() {
		t.op("VBROADCASTSS tableLookups_middle(R12), Z18; VMOVUPS tableLookups_level2(R12), Z19; VMOVUPS tableLookups_level3(R12), Z20; VMOVUPS tableLookups_level4(R12), Z21")
		t.broadcast(8, "Z28")
		t.broadcast(4, "Z29")
		t.broadcast(2, "Z30")
	})
	t.op("VCMPPS %[1]s, Z18, Z2, K1; VCMPPS %[1]s, Z18, Z3, K2; VMOVDQA32.Z Z28, K1, Z4; VMOVDQA32.Z Z28, K2, Z5", greater)
	for level := range 3 {
		t.op("VPERMPS Z%[1]d, Z4, Z6; VPERMPS Z%[1]d, Z5, Z7; VCMPPS %[2]s, Z6, Z2, K1; VCMPPS %[2]s, Z7, Z3, K2", 19+level, greater)
		t.op("VPORD Z%[1]d, Z4, K1, Z4; VPORD Z%[1]d, Z5, K2, Z5", 29+level)
	}
	end512(t, true)
}

// buckets512 finds places in one step: a number is rounded to one of 31 buckets of which each has at most one bound, see tableLookups. With
// zero, two more bounds lie in one bucket with another, and codes are not places.
func buckets512(t *text, zero bool) {
	name := "bucketsBF16AVX512"
	if zero {
		name = "bucketsZeroBF16AVX512"
	}
	begin512(t, name, func() {
		t.op("VBROADCASTSS tableLookups_magic(R12), Z18; VBROADCASTSS tableLookups_steps(R12), Z12")
		t.op("VMOVUPS tableLookups_bound(R12), Z19; VMOVUPS tableLookups_bound+64(R12), Z20; VMOVDQU32 tableLookups_below(R12), Z21")
		t.op("VBROADCASTSS tableLookups_extra(R12), Z29; VBROADCASTSS tableLookups_extra+4(R12), Z30")
		t.op("MOVL $0xaaaaaaaa, AX; KMOVD AX, K7")
	})
	t.op("VMOVAPS Z18, Z4; VMOVAPS Z18, Z5; VFMADD231PS Z12, Z2, Z4; VFMADD231PS Z12, Z3, Z5")
	t.op("VMOVAPS Z19, Z6; VMOVAPS Z19, Z7; VPERMT2PS Z20, Z4, Z6; VPERMT2PS Z20, Z5, Z7")
	t.note("the bounds in lower buckets, of both at once: odd columns in the upper words")
	t.op("VPSLLD $16, Z5, Z8; VMOVDQU16 Z8, K7, Z4; VPERMW Z21, Z4, Z4; VPSRLD $16, Z4, Z5")
	t.op("VCMPPS %[1]s, Z6, Z2, K1; VCMPPS %[1]s, Z7, Z3, K2", greater)
	if zero {
		t.op("VCMPPS %[1]s, Z29, Z2, K3; VCMPPS %[1]s, Z29, Z3, K4; VCMPPS %[1]s, Z30, Z2, K5; VCMPPS %[1]s, Z30, Z3, K6", greater)
	}
	t.op("VPADDD Z31, Z4, K1, Z4; VPADDD Z31, Z5, K2, Z5")
	if zero {
		t.op("VPADDD Z31, Z4, K3, Z4; VPADDD Z31, Z5, K4, Z5; VPADDD Z31, Z4, K5, Z4; VPADDD Z31, Z5, K6, Z5")
	}
	end512(t, zero)
}

// search256 searches as search512 does, with comparisons that leave 0 or -1: what it counts is the place below zero, of which the lookups read
// the lowest three bits.
func search256(t *text) {
	tableBegin(t, "tableBF16AVX2")
	t.op("VMOVUPS tableBatch_errors(DI), Y8; VMOVUPS tableBatch_errors+32(DI), Y9; VMOVUPS tableBatch_powers(DI), Y10; VMOVUPS tableBatch_powers+32(DI), Y11")
	t.op("VBROADCASTSS tableLookups_middle(R12), Y14")
	t.broadcast(0xffff0000, "Y15")
	t.label("run")
	t.op("VBROADCASTSS (R8), Y12; VBROADCASTSS (R9), Y13; MOVQ BX, R11")
	t.label("block")
	t.op("PREFETCHT0 (SI)(R10*1)")
	for h := range 2 {
		t.op("VMOVDQU %d(SI), Y1; VPSLLD $16, Y1, Y0; VPAND Y15, Y1, Y1; VMULPS Y12, Y0, Y2; VMULPS Y12, Y1, Y3", 32*h)
		t.op("VFMADD231PS Y0, Y0, Y%d; VCMPPS $0x1e, Y14, Y2, Y4; VCMPPS $0x1e, Y14, Y3, Y5; VFMADD231PS Y1, Y1, Y%d", 10+h, 10+h)
		for _, level := range []string{"lower2", "lower3", "lower4"} {
			t.op("VPERMPS tableLookups_%[1]s(R12), Y4, Y6; VPERMPS tableLookups_%[1]s(R12), Y5, Y7; VPADDD Y4, Y4, Y4; VPADDD Y5, Y5, Y5", level)
			t.op("VCMPPS $0x1e, Y6, Y2, Y6; VCMPPS $0x1e, Y7, Y3, Y7; VPADDD Y6, Y4, Y4; VPADDD Y7, Y5, Y5")
		}
		t.note("the upper half of the table where the number is above the middle")
		t.op("VCMPPS $0x1e, Y14, Y2, Y6; VPERMPS tableLookups_lowValues(R12), Y4, Y2; VPERMPS tableLookups_highValues(R12), Y4, Y7; VBLENDVPS Y6, Y7, Y2, Y2")
		t.op("VCMPPS $0x1e, Y14, Y3, Y6; VPERMPS tableLookups_lowValues(R12), Y5, Y3; VPERMPS tableLookups_highValues(R12), Y5, Y7; VBLENDVPS Y6, Y7, Y3, Y3")
		t.op("VFNMADD231PS Y2, Y13, Y0; VFNMADD231PS Y3, Y13, Y1; VMOVDQU tableLookups_lookup(R12), Y7; VPAND nibble<>(SB), Y4, Y4; VPAND nibble<>(SB), Y5, Y5")
		t.op("VFMADD231PS Y0, Y0, Y%d; VPSHUFB Y4, Y7, Y4; VPSHUFB Y5, Y7, Y5; VPSLLD $4, Y4, Y4; VPOR Y5, Y4, Y4; VFMADD231PS Y1, Y1, Y%d", 8+h, 8+h)
		t.op("VPAND low<>(SB), Y4, Y4")
		t.note("packing works in halves: the second four bytes are in the upper one")
		t.op("VPACKUSDW Y4, Y4, Y4; VPACKUSWB Y4, Y4, Y4; VMOVDQU order<>(SB), Y7; VPERMD Y4, Y7, Y4; VMOVQ X4, %d(DX)", 8*h)
	}
	tableEnd(t)
	t.op("VMOVUPS Y8, tableBatch_errors(DI); VMOVUPS Y9, tableBatch_errors+32(DI); VMOVUPS Y10, tableBatch_powers(DI); VMOVUPS Y11, tableBatch_powers+32(DI)")
	t.end()
}
