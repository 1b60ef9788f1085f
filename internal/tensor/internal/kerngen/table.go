package main

// tableFile prints the encoders of 4-bit tables of one instruction set, for BF16 weights.
func tableFile(i isa, name string) file {
	var t text
	t.header()
	words := func(n int, f func(i int) uint32) []uint32 {
		out := make([]uint32, n)
		for i := range out {
			out[i] = f(i)
		}
		return out
	}
	if i == avx512 {
		pairs := func(f func(i int) uint32) []uint32 {
			return words(16, func(i int) uint32 { return f(2*i) | f(2*i+1)<<16 })
		}
		t.table("widenLow", "Words 0-15 into both halves of doublewords.", pairs(func(i int) uint32 { return uint32(i / 2) }))
		t.table("widenHigh", "Words 16-31 into both halves of doublewords.", pairs(func(i int) uint32 { return uint32(16 + i/2) }))
		t.table("narrow", "The low words of 32 doublewords in two registers.", pairs(func(i int) uint32 { return uint32(2 * i) }))
		table512(&t)
	} else {
		t.table("order", "Undoes the order that packing within halves leaves.", words(8, func(i int) uint32 { return uint32(i/2 + i%2*4) }))
		t.table("pair", "Bytes 16 and 1 in turn: two codes to a byte, the first in the high half.", words(8, func(int) uint32 { return 0x01100110 }))
		table256(&t)
	}
	return file{name, t.String()}
}

func tableFunctions() []string { return []string{"tableBF16AVX2", "tableBF16AVX512"} }

// tableBegin prints what both start with: a loop over runs, each with its inverse and scale, around one over 32 weights.
func tableBegin(t *text, name string) {
	t.WriteString("\n// func " + name + "(b *tableBatch)\n//\n// Writes the codes of a row of BF16 weights, and adds to the sums of its lanes.\nTEXT ·" + name + "(SB), NOSPLIT, $0-8\n")
	t.op("MOVQ b+0(FP), DI")
	t.op("MOVQ tableBatch_src(DI), SI; MOVQ tableBatch_codes(DI), DX; MOVQ tableBatch_inv(DI), R8; MOVQ tableBatch_scale(DI), R9")
	t.op("MOVQ tableBatch_runs(DI), CX; MOVQ tableBatch_blocks(DI), BX; MOVQ tableBatch_ahead(DI), R10")
}

func tableEnd(t *text) {
	t.op("ADDQ $64, SI; ADDQ $16, DX; DECQ R11; JNZ block")
	t.op("ADDQ $4, R8; ADDQ $4, R9; DECQ CX; JNZ run")
}

// table512 searches the bounds in four steps: each looks up the bound in the middle of what is left.
func table512(t *text) {
	tableBegin(t, "tableBF16AVX512")
	t.op("VMOVUPS tableBatch_errors(DI), Z16; VMOVUPS tableBatch_powers(DI), Z17; VBROADCASTSS tableBatch_middle(DI), Z18")
	t.op("VMOVUPS tableBatch_level2(DI), Z19; VMOVUPS tableBatch_level3(DI), Z20; VMOVUPS tableBatch_level4(DI), Z21")
	t.op("VMOVUPS tableBatch_values(DI), Z22; VMOVDQU32 tableBatch_places(DI), Z23")
	t.op("VMOVDQU32 widenLow<>(SB), Z24; VMOVDQU32 widenHigh<>(SB), Z25; VMOVDQU32 narrow<>(SB), Z26")
	t.broadcast(0x00010010, "Z27")
	t.broadcast(8, "Z28")
	t.broadcast(4, "Z29")
	t.broadcast(2, "Z30")
	t.broadcast(1, "Z31")
	t.op("MOVL $0xaaaaaaaa, AX; KMOVD AX, K7")
	t.label("run")
	t.op("VBROADCASTSS (R8), Z14; VBROADCASTSS (R9), Z15; MOVQ BX, R11")
	t.label("block")
	t.op("PREFETCHT0 (SI)(R10*1)")
	t.op("VMOVDQU32 (SI), Z1; VPERMW.Z Z1, Z24, K7, Z0; VPERMW.Z Z1, Z25, K7, Z1")
	t.op("VMULPS Z14, Z0, Z2; VMULPS Z14, Z1, Z3; VFMADD231PS Z0, Z0, Z17")
	const greater = "$0x1e" // ordered, quiet
	t.op("VCMPPS %[1]s, Z18, Z2, K1; VCMPPS %[1]s, Z18, Z3, K2; VMOVDQA32.Z Z28, K1, Z4; VMOVDQA32.Z Z28, K2, Z5", greater)
	t.op("VFMADD231PS Z1, Z1, Z17")
	for level := range 3 {
		t.op("VPERMPS Z%[1]d, Z4, Z6; VPERMPS Z%[1]d, Z5, Z7; VCMPPS %[2]s, Z6, Z2, K1; VCMPPS %[2]s, Z7, Z3, K2", 19+level, greater)
		t.op("VPORD Z%[1]d, Z4, K1, Z4; VPORD Z%[1]d, Z5, K2, Z5", 29+level)
	}
	t.op("VPERMPS Z22, Z4, Z6; VPERMPS Z22, Z5, Z7; VPERMD Z23, Z4, Z4; VPERMD Z23, Z5, Z5")
	t.op("VFNMADD231PS Z6, Z15, Z0; VFNMADD231PS Z7, Z15, Z1; VFMADD231PS Z0, Z0, Z16; VFMADD231PS Z1, Z1, Z16")
	t.op("VPERMT2W Z5, Z26, Z4; VPMADDWD Z27, Z4, Z4; VPMOVDB Z4, X4; VMOVDQU X4, (DX)")
	tableEnd(t)
	t.op("VMOVUPS Z16, tableBatch_errors(DI); VMOVUPS Z17, tableBatch_powers(DI)")
	t.end()
}

// table256 does the same, with comparisons that leave 0 or -1: what it counts is the place below zero, of which the lookups read the lowest
// three bits.
func table256(t *text) {
	tableBegin(t, "tableBF16AVX2")
	t.op("VMOVUPS tableBatch_errors(DI), Y8; VMOVUPS tableBatch_errors+32(DI), Y9; VMOVUPS tableBatch_powers(DI), Y10; VMOVUPS tableBatch_powers+32(DI), Y11")
	t.op("VBROADCASTSS tableBatch_middle(DI), Y14")
	t.broadcast(0x0f0f0f0f, "Y15")
	t.label("run")
	t.op("VBROADCASTSS (R8), Y12; VBROADCASTSS (R9), Y13; MOVQ BX, R11")
	t.label("block")
	t.op("PREFETCHT0 (SI)(R10*1)")
	for h := range 2 {
		t.op("VPMOVZXWD %d(SI), Y0; VPMOVZXWD %d(SI), Y1; VPSLLD $16, Y0, Y0; VPSLLD $16, Y1, Y1", 32*h, 32*h+16)
		lower := [2]string{"Y2", "Y3"} // x times the inverse
		place := [2]string{"Y4", "Y5"}
		x := [2]string{"Y0", "Y1"}
		for k := range 2 {
			y, p := lower[k], place[k]
			t.op("VMULPS Y12, %[1]s, %[2]s; VFMADD231PS %[1]s, %[1]s, Y%[3]d; VCMPPS $0x1e, Y14, %[2]s, %[4]s", x[k], y, 10+k, p)
			t.op("VPERMPS tableBatch_lower2(DI), %[2]s, Y7; VCMPPS $0x1e, Y7, %[1]s, Y7; VPADDD %[2]s, %[2]s, %[2]s; VPADDD Y7, %[2]s, %[2]s", y, p)
			for _, level := range []string{"lower3", "lower4"} {
				t.op("VPERMPS tableBatch_%[3]s(DI), %[2]s, Y7; VCMPPS $0x1e, Y7, %[1]s, Y7; VPADDD %[2]s, %[2]s, %[2]s; VPADDD Y7, %[2]s, %[2]s", y, p, level)
			}
			t.note("the upper half of the table where the number is above the middle")
			t.op("VCMPPS $0x1e, Y14, %[1]s, Y7; VPERMPS tableBatch_lowValues(DI), %[2]s, %[1]s", y, p)
			if k == 0 {
				t.op("VPERMPS tableBatch_highValues(DI), Y4, Y3; VBLENDVPS Y7, Y3, Y2, Y2")
				t.op("VFNMADD231PS Y2, Y13, Y0; VFMADD231PS Y0, Y0, Y8")
			} else {
				t.op("VPERMPS tableBatch_highValues(DI), Y5, Y2; VBLENDVPS Y7, Y2, Y3, Y3")
				t.op("VFNMADD231PS Y3, Y13, Y1; VFMADD231PS Y1, Y1, Y9")
			}
		}
		if h == 0 {
			t.op("VPACKSSDW Y5, Y4, Y6")
		} else {
			t.op("VPACKSSDW Y5, Y4, Y7")
		}
	}
	t.note("packing works in halves: put the runs of four bytes in order")
	t.op("VPACKSSWB Y7, Y6, Y6; VMOVDQU order<>(SB), Y7; VPERMD Y6, Y7, Y6; VPAND Y15, Y6, Y6; VMOVDQU tableBatch_lookup(DI), Y7; VPSHUFB Y6, Y7, Y6")
	t.op("VPMADDUBSW pair<>(SB), Y6, Y6; VPACKUSWB Y6, Y6, Y6; VPERMQ $0x08, Y6, Y6; VMOVDQU X6, (DX)")
	tableEnd(t)
	t.op("VMOVUPS Y8, tableBatch_errors(DI); VMOVUPS Y9, tableBatch_errors+32(DI); VMOVUPS Y10, tableBatch_powers(DI); VMOVUPS Y11, tableBatch_powers+32(DI)")
	t.end()
}
