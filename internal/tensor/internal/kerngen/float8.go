package main

import "fmt"

// float8Functions lists the functions of float8File with their arguments.
func float8Functions() [][2]string {
	var out [][2]string
	for _, i := range []isa{avx2, avx512} {
		for _, s := range sources() {
			out = append(out,
				[2]string{"magnitudes" + s.name + i.name, "dst *uint32, src *byte, groups, blocks int"},
				[2]string{"e4m3" + s.name + i.name, "r *float8Row"})
		}
	}
	return out
}

// Numbers of E4M3 in the exponent field of a float32, and the terms that make adding and taking away round (see toFloat8).
const (
	e4m3Low   = 121 << 23           // 2^-6, the smallest normal number
	e4m3Top   = 0x43e00000          // 448
	e4m3Unit  = 20<<23 + e4m3Codes  // from a power of two to the one whose unit is that of E4M3
	e4m3Codes = 56                  // (low bits of the sum) + (exponent field >> 20) is the code modulo 256
	splitBF16 = 0x47800080          // 2^16+1
	splitF16  = 0x46000400          // 2^13+1
	exponents = uint32(0x7f8) << 20 // the exponent field
)

// float8File prints the two steps for 8-bit floats for one instruction set: magnitudes, and codes with their sums.
func float8File(i isa, name string) file {
	var t text
	t.header()
	words := func(n int, f func(i int) uint32) []uint32 {
		w := make([]uint32, n)
		for i := range w {
			w[i] = f(i)
		}
		return w
	}
	for _, c := range []struct {
		name string
		word uint32
	}{
		{"magnitude", 0x7fffffff}, {"oddWord", 0x7fff0000}, {"exponent", exponents},
		{"top", e4m3Top}, {"low", e4m3Low}, {"unit", e4m3Unit}, {"lowByte", 0xff}, {"lowWord", 0xffff},
		{"signLow", 0x80}, {"signHigh", 0x8000}, {"signs", 0x8080},
	} {
		t.table("float8"+c.name, "Eight times the same.", words(8, func(int) uint32 { return c.word }))
	}
	if i == avx512 {
		t.table("float8highBytes", "The upper bytes of both words of a doubleword, four times to go through all.",
			words(16, func(i int) uint32 { return 0x80800301 + uint32(i%4)*0x0404 }))
		t.table("float8Words", "The low words of 32 doublewords in two registers.",
			words(16, func(i int) uint32 { return uint32(4*i) | uint32(4*i+2)<<16 }))
		t.table("float8Even", "Even elements of two registers.", words(16, func(i int) uint32 { return uint32(2 * i) }))
		t.table("float8Odd", "Odd elements of two registers.", words(16, func(i int) uint32 { return uint32(2*i + 1) }))
	}
	for _, s := range sources() {
		magnitudes(&t, s, i)
		if i == avx512 {
			e4m3Wide(&t, s)
		} else {
			e4m3Narrow(&t, s)
		}
	}
	return file{name, t.String()}
}

// magnitudes prints the largest magnitude of runs of blocks × 32 elements, as float32 bits, raised to what dst holds.
func magnitudes(t *text, s source, i isa) {
	fmt.Fprintf(t, "\n// func magnitudes%[1]s%[2]s(dst *uint32, src *byte, groups, blocks int)\n//\n"+
		"// Raises dst to the largest magnitudes of groups runs of blocks × 32 %[1]s elements.\nTEXT ·magnitudes%[1]s%[2]s(SB), NOSPLIT, $0-32\n", s.name, i.name)
	t.op("MOVQ dst+0(FP), DI; MOVQ src+8(FP), SI; MOVQ groups+16(FP), CX; MOVQ blocks+24(FP), BX")
	maximum, mask, and, xor := "VPMAXUW", uint32(0x7fff7fff), "VPAND", "VPXOR"
	if s.size == 4 {
		maximum, mask = "VPMAXUD", 0x7fffffff
	}
	if i == avx512 {
		and, xor = "VPANDD", "VPXORD"
	}
	r := i.reg
	t.broadcast(mask, r+"15")
	t.op("VPCMPEQD Y14, Y14, Y14")
	t.label("group")
	t.op("%s %s0, %s0, %s0; MOVQ BX, R9", xor, r, r, r)
	if i == avx512 {
		t.op("VPXORD Z3, Z3, Z3; SUBQ $4, R9; JLT few")
		t.label("four")
		for off := range 2 * s.size {
			t.op("VPANDD %d(SI), Z15, Z%d; %s Z%d, Z%d, Z%d", 64*off, 1+off%2, maximum, 1+off%2, 3*(off%2), 3*(off%2))
		}
		t.op("ADDQ $%d, SI; SUBQ $4, R9; JGE four", 128*s.size)
		t.label("few")
		t.op("ADDQ $4, R9; JEQ done")
	}
	t.label("block")
	for off := 0; off < 32*s.size; off += 4 * i.step {
		t.op("%s %d(SI), %s15, %s1; %s %s1, %s0, %s0", and, off, r, r, maximum, r, r, r)
	}
	t.op("ADDQ $%d, SI; DECQ R9; JNZ block", 32*s.size)
	if i == avx512 {
		t.label("done")
		t.op("%s Z3, Z0, Z0", maximum)
		t.op("VEXTRACTI64X4 $1, Z0, Y1; %s Y1, Y0, Y0", maximum)
	}
	t.op("VEXTRACTI128 $1, Y0, X1; %s X1, X0, X0", maximum)
	switch s.name {
	case "F32":
		t.op("VPSHUFD $0x4e, X0, X1; VPMAXUD X1, X0, X0; VPSHUFD $0xb1, X0, X1; VPMAXUD X1, X0, X0; VMOVD X0, AX")
	default:
		t.note("the largest word is the complement of the smallest complement")
		t.op("VPXOR X14, X0, X0; VPHMINPOSUW X0, X0; VMOVD X0, AX; NOTL AX")
		if s.name == "F16" {
			t.op("MOVWLZX AX, AX; VMOVD AX, X0; VCVTPH2PS X0, X0; VMOVD X0, AX")
		} else {
			t.op("SHLL $16, AX")
		}
	}
	t.op("MOVL (DI), R8; CMPL AX, R8; CMOVLCS R8, AX; MOVL AX, (DI); ADDQ $4, DI; DECQ CX; JNZ group")
	t.end()
}

// e4m3Begin prints what both instruction sets start with. It returns the number that splits quotients of the type, see float8Low.
func e4m3Begin(t *text, s source, i isa) (split uint32) {
	fmt.Fprintf(t, "\n// func e4m3%[1]s%[2]s(r *float8Row)\n//\n// Writes the codes and the sums of a row of %[1]s elements.\nTEXT ·e4m3%[1]s%[2]s(SB), NOSPLIT, $0-8\n", s.name, i.name)
	t.op("MOVQ r+0(FP), DI; MOVQ float8Row_src(DI), SI; MOVQ float8Row_codes(DI), DX; MOVQ float8Row_scales(DI), R11")
	t.op("MOVQ float8Row_groups(DI), CX; MOVQ float8Row_blocks(DI), BX; MOVQ float8Row_ahead(DI), R10")
	if s.name == "BF16" {
		return splitBF16
	}
	return splitF16
}

// float8Registers are what a register of quotients is worked on in.
type float8Registers struct{ x, y, t, c, e, p string }

// float8Constants are operands: registers, or memory for AVX2.
type float8Constants struct{ scale, inv, split, top, exponent, low, unit, and, maximum string }

// e4m3Steps prints, step by step for all registers: from magnitudes in x the codes without signs in the low bytes of t, and
// the sums to e and p. The error of a magnitude is that of the weight but for its sign.
func e4m3Steps(t *text, s source, k float8Constants, all ...float8Registers) {
	step := func(format string) {
		for _, g := range all {
			t.op(format, g.x, g.y, g.t, g.c, g.e, g.p)
		}
	}
	if s.name == "F32" {
		step("VDIVPS " + k.scale + ", %[1]s, %[2]s")
	} else {
		t.note("the quotient in the type of the weights")
		step("VMULPS " + k.split + ", %[1]s, %[2]s")
		step("VMOVAPS %[2]s, %[4]s")
		step("VFMSUB231PS " + k.inv + ", %[1]s, %[4]s")
		step("VADDPS %[4]s, %[2]s, %[2]s")
	}
	t.note("to E4M3: the low bits of the sum, and the exponent; the smaller one is the second if the first is not a number")
	step("VMINPS " + k.top + ", %[2]s, %[2]s")
	step(k.and + " " + k.exponent + ", %[2]s, %[3]s")
	step(k.maximum + " " + k.low + ", %[3]s, %[3]s")
	step("VPADDD " + k.unit + ", %[3]s, %[4]s")
	step("VADDPS %[4]s, %[2]s, %[2]s")
	step("VPSRLD $20, %[3]s, %[3]s")
	step("VSUBPS %[4]s, %[2]s, %[4]s")
	step("VPADDD %[2]s, %[3]s, %[3]s")
	step("VFMADD231PS %[1]s, %[1]s, %[6]s")
	step("VFNMADD231PS %[4]s, " + k.scale + ", %[1]s")
	step("VFMADD231PS %[1]s, %[1]s, %[5]s")
}

// e4m3Wide prints a row's loop for AVX-512: 32 elements at a time, the even ones in one register and the odd ones in another.
func e4m3Wide(t *text, s source) {
	split := e4m3Begin(t, s, avx512)
	constant := func(name, reg string) { t.op("VPBROADCASTD float8%s<>(SB), %s", name, reg) }
	constant("magnitude", "Z31")
	constant("exponent", "Z29")
	constant("top", "Z27")
	constant("low", "Z26")
	constant("unit", "Z25")
	constant("lowByte", "Z24")
	constant("signs", "Z22")
	if s.name == "BF16" {
		constant("oddWord", "Z30")
		t.op("VMOVDQU32 float8highBytes<>(SB), Z23")
	} else {
		constant("signLow", "Z23")
		t.op("VMOVDQU32 float8Even<>(SB), Z21; VMOVDQU32 float8Odd<>(SB), Z20")
	}
	t.op("VMOVDQU32 float8Words<>(SB), Z28")
	for i := 16; i < 20; i++ {
		t.op("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	t.label("group")
	t.op("VBROADCASTSS (R11), Z15; MOVQ BX, R9")
	if s.name != "F32" { // which divide
		t.op("MOVL $0x3f800000, AX; VMOVD AX, X14; VDIVSS (R11), X14, X14; VBROADCASTSS X14, Z14")
		t.op("MOVL $%#x, AX; VMOVD AX, X13; VMULSS X14, X13, X13; VBROADCASTSS X13, Z13", split)
	}
	t.op("ADDQ $4, R11")
	t.op("CMPQ R9, $2; JLT single")
	t.label("pair")
	e4m3Block(t, s, 0)
	t.op("VMOVDQA32 Z4, Z12")
	e4m3Block(t, s, 32*s.size)
	t.note("of every doubleword the lower half")
	t.op("VPERMT2W Z4, Z28, Z12; VMOVDQU32 Z12, (DX)")
	t.op("ADDQ $%d, SI; ADDQ $64, DX; SUBQ $2, R9; CMPQ R9, $2; JGE pair; TESTQ R9, R9; JEQ next", 64*s.size)
	t.label("single")
	e4m3Block(t, s, 0)
	t.op("VPMOVDW Z4, Y4; VMOVDQU Y4, (DX); ADDQ $%d, SI; ADDQ $32, DX", 32*s.size)
	t.label("next")
	t.op("DECQ CX; JNZ group")
	for i, from := range [][2]string{{"Z16", "Z17"}, {"Z18", "Z19"}} {
		t.note("even and odd lanes, then distance 8, 4, 2, 1")
		t.op("VADDPS %s, %s, Z0; VEXTRACTF64X4 $1, Z0, Y1", from[1], from[0])
		e4m3Tree(t, i)
	}
	t.end()
}

// e4m3Block prints the codes of 32 elements at off(SI): two to a doubleword of Z4, in its lower half, of which the upper half is anything.
func e4m3Block(t *text, s source, off int) {
	for at := 0; at < 32*s.size; at += 64 {
		t.op("PREFETCHT0 %d(SI)(R10*1)", off+at)
	}
	t.note("magnitudes of the even elements to Z0, of the odd ones to Z1; their signs to bits 7 and 15 of Z8")
	if s.name == "BF16" {
		t.op("VMOVDQU32 %d(SI), Z8; VPSLLD $16, Z8, Z0; VPANDD Z30, Z8, Z1; VPANDD Z31, Z0, Z0; VPSHUFB Z23, Z8, Z8", off)
	} else {
		load(t, s, "SI", off, "Z2")
		load(t, s, "SI", off+16*s.size, "Z3")
		t.op("VMOVDQA32 Z21, Z0; VPERMI2PS Z3, Z2, Z0; VMOVDQA32 Z20, Z1; VPERMI2PS Z3, Z2, Z1")
		t.op("VPSRLD $24, Z0, Z8; VPSRLD $16, Z1, Z9; VPANDD Z31, Z0, Z0; VPANDD Z31, Z1, Z1")
		t.op("VPTERNLOGD $0xe2, Z9, Z23, Z8")
	}
	e4m3Steps(t, s, float8Constants{"Z15", "Z14", "Z13", "Z27", "Z29", "Z26", "Z25", "VPANDD", "VPMAXUD"},
		float8Registers{"Z0", "Z10", "Z4", "Z2", "Z16", "Z18"}, float8Registers{"Z1", "Z11", "Z5", "Z3", "Z17", "Z19"})
	t.note("odd codes above the even ones, and the signs")
	t.op("VPSLLD $8, Z5, Z5; VPTERNLOGD $0xe2, Z5, Z24, Z4; VPTERNLOGD $0x78, Z22, Z8, Z4")
}

// e4m3Tree adds the lanes of Y0 and Y1, distance 8, and on, and stores sum i.
func e4m3Tree(t *text, i int) {
	t.op("VADDPS Y1, Y0, Y0; VEXTRACTF128 $1, Y0, X1; VADDPS X1, X0, X0")
	t.op("VPERMILPS $0x4e, X0, X1; VADDPS X1, X0, X0; VPERMILPS $0xb1, X0, X1; VADDPS X1, X0, X0; VMOVSS X0, float8Row_sums+%d(DI)", 4*i)
}

// e4m3Narrow prints it for AVX2: 16 elements at a time, the first and the second half of 32 with lanes of their own.
func e4m3Narrow(t *text, s source) {
	split := e4m3Begin(t, s, avx2)
	for i := 8; i < 16; i++ {
		t.op("VPXOR Y%d, Y%d, Y%d", i, i, i)
	}
	t.label("group")
	t.op("VBROADCASTSS (R11), Y7; MOVQ BX, R9")
	if s.name != "F32" { // which divide
		t.op("MOVL $0x3f800000, AX; VMOVD AX, X6; VDIVSS (R11), X6, X6; VBROADCASTSS X6, Y5; VMOVUPS Y5, float8Row_inverse(DI)")
		t.op("MOVL $%#x, AX; VMOVD AX, X5; VMULSS X6, X5, X5; VBROADCASTSS X5, Y5; VMOVUPS Y5, float8Row_split(DI)", split)
	}
	t.op("ADDQ $4, R11")
	t.label("block")
	prefetch(t, s, "SI")
	memory := func(name string) string { return "float8" + name + "<>(SB)" }
	k := float8Constants{"Y7", "float8Row_inverse(DI)", "float8Row_split(DI)", memory("top"), memory("exponent"), memory("low"), memory("unit"), "VPAND", "VPMAXUD"}
	for h := range 2 {
		t.note("magnitudes of the even elements to Y0, of the odd ones to Y1; their signs to bits 7 and 15 of Y2")
		if s.name == "BF16" {
			t.op("VMOVDQU %d(SI), Y1; VPSRLD $8, Y1, Y2; VPSRLD $16, Y1, Y3; VPSLLD $16, Y1, Y0; VPAND float8oddWord<>(SB), Y1, Y1", 32*h)
			t.op("VPAND float8magnitude<>(SB), Y0, Y0")
		} else {
			load(t, s, "SI", 16*h*s.size, "Y3")
			load(t, s, "SI", (16*h+8)*s.size, "Y4")
			t.op("VSHUFPS $0x88, Y4, Y3, Y0; VSHUFPS $0xdd, Y4, Y3, Y1; VPERMPD $0xd8, Y0, Y0; VPERMPD $0xd8, Y1, Y1")
			t.op("VPSRLD $24, Y0, Y2; VPSRLD $16, Y1, Y3; VPAND float8magnitude<>(SB), Y0, Y0; VPAND float8magnitude<>(SB), Y1, Y1")
		}
		t.op("VPAND float8signLow<>(SB), Y2, Y2; VPAND float8signHigh<>(SB), Y3, Y3; VPOR Y3, Y2, Y2")
		e, p := 8+4*h, 10+4*h
		e4m3Steps(t, s, k, float8Registers{"Y0", "Y3", "Y6", "Y5", fmt.Sprint("Y", e), fmt.Sprint("Y", p)})
		e4m3Steps(t, s, k, float8Registers{"Y1", "Y3", "Y4", "Y5", fmt.Sprint("Y", e+1), fmt.Sprint("Y", p+1)})
		t.op("VPAND float8lowByte<>(SB), Y6, Y6; VPSLLD $8, Y4, Y4; VPAND float8lowWord<>(SB), Y4, Y4; VPOR Y4, Y6, Y6; VPXOR Y2, Y6, Y6")
		t.op("VPACKUSDW Y6, Y6, Y6; VPERMQ $0x08, Y6, Y6; VMOVDQU X6, %d(DX)", 16*h)
	}
	t.op("ADDQ $%d, SI; ADDQ $32, DX; DECQ R9; JNZ block; DECQ CX; JNZ group", 32*s.size)
	for i, from := range []int{8, 10} {
		t.note("even and odd lanes, then distance 8, 4, 2, 1")
		t.op("VADDPS Y%d, Y%d, Y0; VADDPS Y%d, Y%d, Y1", from+1, from, from+5, from+4)
		e4m3Tree(t, i)
	}
	t.end()
}
