package main

import "fmt"

// keepFile prints the loops that keep n of every 4 or 8 BF16 columns, for one instruction set. They work on a row of whole
// blocks of 32 columns.
func keepFile(i isa, name string) file {
	var t text
	t.header()
	t.table("compress", "For each mask of 8 words the bytes that bring those it keeps to the front.", compressTable())
	bytes := 4 * i.step
	for _, m := range []int{4, 8} {
		for r := 1; r < m; r++ {
			t.table(fmt.Sprintf("turn%dby%d", m, r), fmt.Sprintf("Turns %d words by %d, as bytes.", m, r), turnTable(bytes, m, r))
			if r > m/2 {
				continue
			}
			t.table(fmt.Sprintf("later%dby%d", m, r), "Words of 1 where what is turned there comes from behind.", laterTable(bytes, m, r))
		}
	}
	if i == avx512 {
		t.table("widenLow", "Words 0-15 into both halves of doublewords.", pairTable(func(i int) uint32 { return uint32(i / 2) }))
		t.table("widenHigh", "Words 16-31 into both halves of doublewords.", pairTable(func(i int) uint32 { return uint32(16 + i/2) }))
	}
	for _, m := range []int{4, 8} {
		if i == avx512 {
			keep512(&t, m, avx512.name)
			keep512(&t, m, "VBMI2")
		} else {
			keep256(&t, m)
		}
	}
	return file{name, t.String()}
}

// pairTable has 32 words.
func pairTable(f func(i int) uint32) []uint32 {
	w := make([]uint32, 16)
	for i := range w {
		w[i] = f(2*i) | f(2*i+1)<<16
	}
	return w
}

func compressTable() []uint32 {
	var out []uint32
	for mask := range 256 {
		var b []uint32
		for c := range 8 {
			if mask>>c&1 == 1 {
				b = append(b, uint32(2*c), uint32(2*c+1))
			}
		}
		for len(b) < 16 {
			b = append(b, 0x80) // gives 0
		}
		for i := 0; i < 16; i += 4 {
			out = append(out, b[i]|b[i+1]<<8|b[i+2]<<16|b[i+3]<<24)
		}
	}
	return out
}

func turnTable(bytes, m, r int) []uint32 {
	word := func(i int) uint32 { // of 8 in 16 bytes
		from := uint32(i/m*m + (i%m+r)%m)
		return 2*from | (2*from+1)<<8
	}
	out := make([]uint32, bytes/4)
	for i := range out {
		out[i] = word(2*i%8) | word((2*i+1)%8)<<16
	}
	return out
}

func laterTable(bytes, m, r int) []uint32 {
	word := func(i int) uint32 {
		if i%m+r < m {
			return 1
		}
		return 0
	}
	out := make([]uint32, bytes/4)
	for i := range out {
		out[i] = word(2*i) | word(2*i+1)<<16
	}
	return out
}

// keepBegin prints what both instruction sets start with. Runs of 256 columns have sums of their own.
func keepBegin(t *text, m int, isa string) {
	name := fmt.Sprintf("keep%d%s", m, isa)
	fmt.Fprintf(t, "\n// func %s(b *keepBatch)\n//\n// Keeps n of every %d columns of blocks blocks of 32.\nTEXT ·%s(SB), NOSPLIT, $0-8\n", name, m, name)
	t.op("MOVQ b+0(FP), DI; MOVQ keepBatch_src(DI), SI; MOVQ keepBatch_kept(DI), DX; MOVQ keepBatch_mask(DI), R8")
	t.op("MOVQ keepBatch_blocks(DI), CX; MOVQ keepBatch_step(DI), R9; LEAQ compress<>(SB), R10")
}

// keepRun prints the loop over runs around that over blocks, and keepEnd closes it.
func keepRun(t *text) {
	t.label("run")
	t.op("MOVQ $8, R11; CMPQ CX, R11; CMOVQLT CX, R11; SUBQ R11, CX")
}

// keepStore prints the mask of 32 columns, in AX, and the words it keeps.
func keepStore(t *text) {
	t.op("MOVL AX, (R8)")
	for q := range 4 {
		t.op("MOVBLZX AX, BX; SHLL $4, BX")
		if q < 3 {
			t.op("SHRL $8, AX")
		}
		t.op("VMOVDQU %d(SI), X0; VPSHUFB (R10)(BX*1), X0, X0; VMOVDQU X0, (DX); ADDQ R9, DX", 16*q)
	}
	t.op("ADDQ $64, SI; ADDQ $4, R8; DECQ R11; JNZ block")
}

// keepSum prints the last steps of a sum of 4 lanes in X0, X1 being those 4 behind.
func keepSum(t *text, field string) {
	t.op("VADDPS X1, X0, X0; VPERMILPS $0x4e, X0, X1; VADDPS X1, X0, X0; VPERMILPS $0xb1, X0, X1; VADDPS X1, X0, X0")
	t.op("VCVTSS2SD X0, X0, X0; VADDSD keepBatch_%s(DI), X0, X0; VMOVSD X0, keepBatch_%s(DI)", field, field)
}

func keep256(t *text, m int) {
	keepBegin(t, m, avx2.name)
	t.broadcast(0x7fff7fff, "Y15")
	t.op("VPBROADCASTD keepBatch_below(DI), Y14; VPXOR Y13, Y13, Y13; VPXOR Y12, Y12, Y12")
	keepRun(t)
	for r := 8; r < 12; r++ {
		t.op("VPXOR Y%d, Y%d, Y%d", r, r, r)
	}
	t.label("block")
	t.op("PREFETCHT0 4096(SI)")
	for h := range 2 {
		keep := fmt.Sprintf("Y%d", 4+h)
		t.op("VMOVDQU %d(SI), Y0; VPAND Y15, Y0, Y1; VPMAXUW Y1, Y13, Y13", 32*h)
		t.note("minus one for each that goes before: larger, or equal and behind; of each pair one does, so that turned back the")
		t.note("same comparison counts for the other, with the opposite sign and one too many")
		for r := 1; r <= m/2; r++ {
			to := "Y2"
			if r == 1 {
				to = "Y3"
			}
			t.op("VPSHUFB turn%dby%d<>(SB), Y1, %s; VPADDW later%dby%d<>(SB), %s, %s; VPCMPGTW Y1, %s, %s", m, r, to, m, r, to, to, to, to)
			if r < m/2 {
				t.op("VPSHUFB turn%dby%d<>(SB), %s, Y6", m, m-r, to)
			}
			if r > 1 {
				t.op("VPADDW Y2, Y3, Y3")
			}
			if r < m/2 {
				t.op("VPSUBW Y6, Y3, Y3")
			}
		}
		t.op("VPCMPGTW Y14, Y3, %s", keep)
		t.note("squares; of what is not kept again")
		t.op("VPUNPCKLWD Y0, Y12, Y2; VPUNPCKHWD Y0, Y12, Y3; VMULPS Y2, Y2, Y2; VMULPS Y3, Y3, Y3; VADDPS Y2, Y8, Y8; VADDPS Y3, Y9, Y9")
		t.op("VPUNPCKLWD %s, %s, Y6; VPUNPCKHWD %s, %s, Y7; VANDNPS Y2, Y6, Y2; VANDNPS Y3, Y7, Y3; VADDPS Y2, Y10, Y10; VADDPS Y3, Y11, Y11", keep, keep, keep, keep)
	}
	t.op("VPACKSSWB Y5, Y4, Y0; VPERMQ $0xd8, Y0, Y0; VPMOVMSKB Y0, AX")
	keepStore(t)
	t.note("lanes 0-3 and 8-11 are in one register, 4-7 and 12-15 in the other")
	for s, field := range []string{"power", "error"} {
		a, b := 8+2*s, 9+2*s
		t.op("VEXTRACTF128 $1, Y%d, X0; VADDPS X0, X%d, X0; VEXTRACTF128 $1, Y%d, X1; VADDPS X1, X%d, X1", a, a, b, b)
		keepSum(t, field)
	}
	t.op("TESTQ CX, CX; JNZ run")
	t.broadcast(0x7f7f7f7f, "Y1")
	t.op("VPCMPGTW Y1, Y13, Y0; VPMOVMSKB Y0, AX; MOVL AX, keepBatch_bad(DI)")
	t.end()
}

// keep512 prints a loop that brings the kept words of 16 bytes to the front by the table, or with VBMI2 those of 64 at once.
func keep512(t *text, m int, isa string) {
	keepBegin(t, m, isa)
	t.broadcast(0x7fff7fff, "Z15")
	t.op("VPBROADCASTD keepBatch_below(DI), Z14; VPXORD Z13, Z13, Z13; MOVL $0xaaaaaaaa, AX; KMOVD AX, K1")
	t.op("VMOVDQU32 widenLow<>(SB), Z24; VMOVDQU32 widenHigh<>(SB), Z25")
	for r := 1; r < m; r++ {
		t.op("VMOVDQU32 turn%dby%d<>(SB), Z%d", m, r, 16+r)
	}
	for r := 1; r <= m/2; r++ {
		t.op("VMOVDQU32 later%dby%d<>(SB), Z%d", m, r, 25+r)
	}
	keepRun(t)
	t.op("VPXORD Z8, Z8, Z8; VPXORD Z10, Z10, Z10")
	t.label("block")
	t.op("PREFETCHT0 4096(SI)")
	t.op("VMOVDQU32 (SI), Z0; VPANDD Z15, Z0, Z1; VPMAXUW Z1, Z13, Z13")
	t.note("as in AVX2, but by the sign of a difference: comparisons that set masks hold each other up")
	for r := 1; r <= m/2; r++ {
		to := "Z2"
		if r == 1 {
			to = "Z3"
		}
		t.op("VPSUBW Z%d, Z1, Z7; VPSHUFB Z%d, Z1, %s; VPSUBW %s, Z7, %s; VPSRAW $15, %s, %s", 25+r, 16+r, to, to, to, to, to)
		if r < m/2 {
			t.op("VPSHUFB Z%d, %s, Z6", 16+m-r, to)
		}
		if r > 1 {
			t.op("VPADDW Z2, Z3, Z3")
		}
		if r < m/2 {
			t.op("VPSUBW Z6, Z3, Z3")
		}
	}
	t.op("VPCMPW $6, Z14, Z3, K4; KNOTD K4, K3; KMOVD K4, AX; KSHIFTRD $16, K3, K5")
	t.note("squares; of what is not kept again")
	t.op("VPERMW.Z Z0, Z24, K1, Z4; VPERMW.Z Z0, Z25, K1, Z5; VMULPS Z4, Z4, Z4; VMULPS Z5, Z5, Z5")
	t.op("VADDPS Z4, Z8, Z8; VADDPS Z4, Z10, K3, Z10; VADDPS Z5, Z8, Z8; VADDPS Z5, Z10, K5, Z10")
	if isa == "VBMI2" {
		t.op("VPCOMPRESSW.Z Z0, K4, Z1; VMOVDQU32 Z1, (DX); LEAQ (DX)(R9*4), DX")
		t.op("MOVL AX, (R8); ADDQ $64, SI; ADDQ $4, R8; DECQ R11; JNZ block")
	} else {
		keepStore(t)
	}
	for s, field := range []string{"power", "error"} {
		a := 8 + 2*s
		t.op("VEXTRACTF64X4 $1, Z%d, Y0; VADDPS Y0, Y%d, Y0; VEXTRACTF128 $1, Y0, X1", a, a)
		keepSum(t, field)
	}
	t.op("TESTQ CX, CX; JNZ run")
	t.broadcast(0x7f7f7f7f, "Z1")
	t.op("VPCMPW $6, Z1, Z13, K2; KMOVD K2, AX; MOVL AX, keepBatch_bad(DI)")
	t.end()
}
