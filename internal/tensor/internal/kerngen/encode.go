package main

import (
	"fmt"
	"math/bits"
)

// variant is one form of the last step: how codes are written, and whether the
// quotient comes from a division or from the inverse.
type variant struct {
	nibbles bool // packed 4-bit codes, else a byte each
	divide  bool
}

func variants() []variant {
	return []variant{{true, false}, {true, true}, {false, false}, {false, true}}
}

func (v variant) function(s source, i isa) string {
	name := "bytes"
	if v.nibbles {
		name = "nibbles"
	}
	if v.divide {
		name += "Divide"
	}
	return name + s.name + i.name
}

// encodeFile prints the first and the last step for one instruction set.
func encodeFile(i isa) file {
	var t text
	t.header()
	tables(&t, i)
	for _, s := range sources() {
		absmax(&t, s, i)
		for _, v := range variants() {
			if i == avx512 {
				encode512(&t, s, v)
			} else {
				encode256(&t, s, v)
			}
		}
	}
	return file{i.file, t.String()}
}

// tables prints the constants of an instruction set.
func tables(t *text, i isa) {
	words := func(n int, f func(i int) uint32) []uint32 {
		w := make([]uint32, n)
		for i := range w {
			w[i] = f(i)
		}
		return w
	}
	pairs := func(f func(i int) uint32) []uint32 { // of 16-bit numbers
		return words(16, func(i int) uint32 { return f(2*i) | f(2*i+1)<<16 })
	}
	if i == avx512 {
		t.table("widenLow", "Words 0-15 into both halves of doublewords.", pairs(func(i int) uint32 { return uint32(i / 2) }))
		t.table("widenHigh", "Words 16-31 into both halves of doublewords.", pairs(func(i int) uint32 { return uint32(16 + i/2) }))
		t.table("narrow", "The low words of 32 doublewords in two registers.", pairs(func(i int) uint32 { return uint32(2 * i) }))
		t.table("fourth", "Every fourth doubleword.", words(16, func(i int) uint32 { return uint32(4 * i % 16) }))
		return
	}
	t.table("order", "Undoes the order that packing within halves leaves.", words(8, func(i int) uint32 { return uint32(i/2 + i%2*4) }))
	t.table("pair", "Bytes 1 and 16 in turn: two codes to a byte.", words(8, func(int) uint32 { return 0x10011001 }))
}

// absmax prints the largest magnitude of each group, as float32 bits. Magnitudes
// order like their bits, NaN above infinity above the rest, so this is integer
// work on the stored elements.
func absmax(t *text, s source, i isa) {
	t.begin("absmax"+s.name+i.name, "Writes absmax of groups groups of group "+s.name+" elements.")
	maximum, mask := "VPMAXUW", uint32(0x7fff7fff)
	if s.size == 4 {
		maximum, mask = "VPMAXUD", 0x7fffffff
	}
	and, xor := "VPAND", "VPXOR"
	if i == avx512 {
		and, xor = "VPANDD", "VPXORD"
	}
	r := i.reg
	t.broadcast(mask, r+"15")
	t.op("VPCMPEQD Y14, Y14, Y14")
	t.op("MOVQ batch_src(DI), SI; MOVQ batch_group(DI), BX; SHRQ $5, BX; MOVQ batch_groups(DI), CX; XORL R8, R8")
	t.label("group")
	t.op("%s %s0, %s0, %s0; MOVQ BX, R9", xor, r, r, r)
	t.label("block")
	width := 4 * i.step
	for off := 0; off < 32*s.size; off += width {
		t.op("%s %d(SI), %s15, %s1; %s %s1, %s0, %s0", and, off, r, r, maximum, r, r, r)
	}
	t.op("ADDQ $%d, SI; DECQ R9; JNZ block", 32*s.size)
	if i == avx512 {
		t.op("VEXTRACTI64X4 $1, Z0, Y1; %s Y1, Y0, Y0", maximum)
	}
	t.op("VEXTRACTI128 $1, Y0, X1; %s X1, X0, X0", maximum)
	switch s.name {
	case "F32":
		t.op("VPSHUFD $0x4e, X0, X1; VPMAXUD X1, X0, X0; VPSHUFD $0xb1, X0, X1; VPMAXUD X1, X0, X0")
		t.op("VMOVD X0, batch_absmax(DI)(R8*4)")
	default:
		t.note("the largest word is the complement of the smallest complement")
		t.op("VPXOR X14, X0, X0; VPHMINPOSUW X0, X0; VMOVD X0, AX; NOTL AX")
		if s.name == "F16" {
			t.op("MOVWLZX AX, AX; VMOVD AX, X0; VCVTPH2PS X0, X0; VMOVD X0, batch_absmax(DI)(R8*4)")
		} else {
			t.op("SHLL $16, AX; MOVL AX, batch_absmax(DI)(R8*4)")
		}
	}
	t.op("INCQ R8; DECQ CX; JNZ group")
	t.end()
}

// load prints the conversion of one register of F16 or F32 elements to float32.
// BF16 is cheaper two registers at a time.
func load(t *text, s source, from string, off int, reg string) {
	if s.name == "F16" {
		t.op("VCVTPH2PS %d(%s), %s", off, from, reg)
	} else {
		t.op("VMOVUPS %d(%s), %s", off, from, reg)
	}
}

// registers names what quantize works on.
type registers struct {
	x, q, r    []string // elements, quotients, scratch; codes are left in r
	e, p       []string // lane sums of each element register
	scale, inv []string
	// divided is the number of registers, the last ones, that are divided all the
	// same: one in four keeps the divider busy beside the multipliers, and more
	// would hold up processors that divide slowly.
	divided           int
	magic, qmin, qmax string
}

// quantize prints q = round(clamp(x/scale)), leaves q + magic in r, and adds to
// the lane sums. Steps are printed across the registers, not one register at a
// time, so that independent work stands together.
func quantize(t *text, v variant, g registers) {
	// Register from to register to-1.
	some := func(from, to int, format string, args ...func(i int) string) {
		for i := from; i < to; i++ {
			a := make([]any, len(args))
			for j, f := range args {
				a[j] = f(i)
			}
			t.op(format, a...)
		}
	}
	each := func(format string, args ...func(i int) string) { some(0, len(g.x), format, args...) }
	of := func(s []string) func(int) string { return func(i int) string { return s[i] } }
	one := func(s string) func(int) string { return func(int) string { return s } }
	x, q, r, e, p := of(g.x), of(g.q), of(g.r), of(g.e), of(g.p)
	scale, inv, magic := of(g.scale), of(g.inv), one(g.magic)
	inverse := len(g.x) - g.divided // those before this one do without division
	if v.divide {
		inverse = 0
	}
	some(inverse, len(g.x), "VDIVPS %s, %s, %s", scale, x, q)
	t.note("x times the inverse, and one step of correction by the remainder")
	some(0, inverse, "VMULPS %s, %s, %s", inv, x, q)
	some(0, inverse, "VMOVAPS %s, %s", x, r)
	some(0, inverse, "VFNMADD231PS %s, %s, %s", q, scale, r)
	some(0, inverse, "VFMADD231PS %s, %s, %s", r, inv, q)
	each("VFMADD231PS %s, %s, %s", x, x, p)
	if v.divide {
		each("VMAXPS %s, %s, %s", one(g.qmin), q, q)
	}
	each("VMINPS %s, %s, %s", one(g.qmax), q, q)
	each("VADDPS %s, %s, %s", magic, q, r)
	each("VSUBPS %s, %s, %s", magic, r, q)
	each("VFNMADD231PS %s, %s, %s", q, scale, x)
	each("VFMADD231PS %s, %s, %s", x, x, e)
}

// encodeBegin prints what both instruction sets start with.
func encodeBegin(t *text, s source, v variant, i isa) {
	what := "one byte each"
	if v.nibbles {
		what = "two to a byte"
	}
	t.begin(v.function(s, i), fmt.Sprintf("Writes the codes of groups groups of group %s elements, %s, and their sums.", s.name, what))
	t.op("MOVQ batch_src(DI), SI; MOVQ batch_codes(DI), DX; MOVQ batch_group(DI), BX; SHRQ $5, BX")
	t.op("MOVQ batch_groups(DI), CX; MOVQ batch_ahead(DI), R10; XORL R8, R8")
}

func prefetch(t *text, s source, from string) {
	for off := 0; off < 32*s.size; off += 64 {
		t.op("PREFETCHT0 %d(%s)(R10*1)", off, from)
	}
}

// encode512 prints a kernel that works on two groups at a time: one alone is too
// long a chain of dependent steps to keep the units busy. An odd last group is
// paired with itself, and written twice.
func encode512(t *text, s source, v variant) {
	encodeBegin(t, s, v, avx512)
	t.op("VBROADCASTSS batch_qmin(DI), Z27; VBROADCASTSS batch_qmax(DI), Z22; VBROADCASTSS batch_magic(DI), Z21")
	t.op("VMOVDQU32 narrow<>(SB), Z26; VMOVDQU32 fourth<>(SB), Z20")
	if v.nibbles {
		t.broadcast(0x00100001, "Z23")
	}
	if s.name == "BF16" {
		t.op("VMOVDQU32 widenLow<>(SB), Z24; VMOVDQU32 widenHigh<>(SB), Z25; MOVL $0xaaaaaaaa, AX; KMOVD AX, K1")
	}
	t.label("group")
	t.op("MOVQ SI, R11; MOVQ DX, R12; MOVQ R8, R13; CMPQ CX, $1; JEQ single")
	t.op("MOVQ BX, AX; SHLQ $%d, AX; ADDQ AX, R11; MOVQ BX, AX; SHLQ $%d, AX; ADDQ AX, R12; INCQ R13", log2(32*s.size), log2(v.bytes()))
	t.label("single")
	t.op("VBROADCASTSS batch_scale(DI)(R8*4), Z31; VBROADCASTSS batch_inv(DI)(R8*4), Z30")
	t.op("VBROADCASTSS batch_scale(DI)(R13*4), Z29; VBROADCASTSS batch_inv(DI)(R13*4), Z28")
	for i := 16; i < 20; i++ {
		t.op("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	t.op("MOVQ BX, R9")
	t.label("block")
	for g, from := range []string{"SI", "R11"} {
		lo, hi := 2*g, 2*g+1
		prefetch(t, s, from)
		if s.name == "BF16" {
			t.note("words 0-15 and 16-31 to the upper halves of doublewords")
			t.op("VMOVDQU32 (%s), Z%d; VPERMW.Z Z%d, Z24, K1, Z%d; VPERMW.Z Z%d, Z25, K1, Z%d", from, hi, hi, lo, hi, hi)
		} else {
			load(t, s, from, 0, fmt.Sprintf("Z%d", lo))
			load(t, s, from, 16*s.size, fmt.Sprintf("Z%d", hi))
		}
	}
	quantize(t, v, registers{
		x: []string{"Z0", "Z1", "Z2", "Z3"}, q: []string{"Z4", "Z5", "Z6", "Z7"}, r: []string{"Z8", "Z9", "Z10", "Z11"},
		e: []string{"Z16", "Z16", "Z18", "Z18"}, p: []string{"Z17", "Z17", "Z19", "Z19"},
		scale: []string{"Z31", "Z31", "Z29", "Z29"}, inv: []string{"Z30", "Z30", "Z28", "Z28"},
		divided: 1, magic: "Z21", qmin: "Z27", qmax: "Z22",
	})
	for g, to := range []string{"DX", "R12"} {
		lo, hi := 8+2*g, 9+2*g
		t.op("VPERMT2W Z%d, Z26, Z%d", hi, lo)
		if v.nibbles {
			t.op("VPMADDWD Z23, Z%d, Z%d; VPMOVDB Z%d, X%d; VMOVDQU X%d, (%s)", lo, lo, lo, lo, lo, to)
		} else {
			t.op("VPMOVWB Z%d, Y%d; VMOVDQU Y%d, (%s)", lo, lo, lo, to)
		}
	}
	t.op("ADDQ $%d, SI; ADDQ $%d, R11; ADDQ $%d, DX; ADDQ $%d, R12; DECQ R9; JNZ block", 32*s.size, 32*s.size, v.bytes(), v.bytes())
	t.note("distance 8, of each group errors below powers; then 4 for both groups, 2, 1")
	t.op("VSHUFF64X2 $0x44, Z17, Z16, Z0; VSHUFF64X2 $0xee, Z17, Z16, Z1; VADDPS Z1, Z0, Z0")
	t.op("VSHUFF64X2 $0x44, Z19, Z18, Z2; VSHUFF64X2 $0xee, Z19, Z18, Z3; VADDPS Z3, Z2, Z2")
	t.op("VSHUFF64X2 $0x88, Z2, Z0, Z1; VSHUFF64X2 $0xdd, Z2, Z0, Z3; VADDPS Z3, Z1, Z0")
	t.op("VPERMILPS $0x4e, Z0, Z1; VADDPS Z1, Z0, Z0; VPERMILPS $0xb1, Z0, Z1; VADDPS Z1, Z0, Z0")
	t.op("VPERMPS Z0, Z20, Z0; VMOVUPS X0, batch_sums(DI)(R8*8)")
	t.op("MOVQ R11, SI; MOVQ R12, DX; ADDQ $2, R8; SUBQ $2, CX; JGT group")
	t.end()
}

// bytes returns the bytes of 32 codes.
func (v variant) bytes() int {
	if v.nibbles {
		return 16
	}
	return 32
}

func log2(n int) int { return bits.TrailingZeros(uint(n)) }

func encode256(t *text, s source, v variant) {
	encodeBegin(t, s, v, avx2)
	t.broadcast(0xff, "Y15")
	t.op("VBROADCASTSS batch_magic(DI), Y14")
	t.label("group")
	t.op("VBROADCASTSS batch_scale(DI)(R8*4), Y12; VBROADCASTSS batch_inv(DI)(R8*4), Y13")
	for i := 8; i < 12; i++ {
		t.op("VPXOR Y%d, Y%d, Y%d", i, i, i)
	}
	t.op("MOVQ BX, R9")
	t.label("block")
	prefetch(t, s, "SI")
	for h := range 2 {
		if s.name == "BF16" {
			t.op("VPERMQ $0xd8, %d(SI), Y1; VPXOR Y2, Y2, Y2; VPUNPCKLWD Y1, Y2, Y0; VPUNPCKHWD Y1, Y2, Y1", 32*h)
		} else {
			load(t, s, "SI", 16*h*s.size, "Y0")
			load(t, s, "SI", (16*h+8)*s.size, "Y1")
		}
		quantize(t, v, registers{
			x: []string{"Y0", "Y1"}, q: []string{"Y2", "Y3"}, r: []string{"Y4", "Y5"},
			e: []string{"Y8", "Y9"}, p: []string{"Y10", "Y11"},
			scale: []string{"Y12", "Y12"}, inv: []string{"Y13", "Y13"}, divided: 1 - h, magic: "Y14", qmin: "batch_qmin(DI)", qmax: "batch_qmax(DI)",
		})
		t.op("VPAND Y15, Y4, Y4; VPAND Y15, Y5, Y5; VPACKUSDW Y5, Y4, Y%d", 6+h)
	}
	t.note("packing works in halves: put the runs of four bytes in order")
	t.op("VPACKUSWB Y7, Y6, Y6; VMOVDQU order<>(SB), Y7; VPERMD Y6, Y7, Y6")
	if v.nibbles {
		t.op("VPMADDUBSW pair<>(SB), Y6, Y6; VPACKUSWB Y6, Y6, Y6; VPERMQ $0x08, Y6, Y6; VMOVDQU X6, (DX)")
	} else {
		t.op("VMOVDQU Y6, (DX)")
	}
	t.op("ADDQ $%d, SI; ADDQ $%d, DX; DECQ R9; JNZ block", 32*s.size, v.bytes())
	t.note("distance 8; errors to the lower 4 lanes, powers to the upper; then 4, 2, 1")
	t.op("VADDPS Y9, Y8, Y0; VADDPS Y11, Y10, Y1")
	t.op("VPERM2F128 $0x20, Y1, Y0, Y2; VPERM2F128 $0x31, Y1, Y0, Y3; VADDPS Y3, Y2, Y0")
	t.op("VPERMILPS $0x4e, Y0, Y1; VADDPS Y1, Y0, Y0; VPERMILPS $0xb1, Y0, Y1; VADDPS Y1, Y0, Y0")
	t.op("VEXTRACTF128 $1, Y0, X1; VUNPCKLPS X1, X0, X0; VMOVQ X0, batch_sums(DI)(R8*8)")
	t.op("INCQ R8; DECQ CX; JNZ group")
	t.end()
}
