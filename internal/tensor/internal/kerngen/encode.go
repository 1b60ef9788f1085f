package main

import "fmt"

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

// load prints the conversion of one register of elements to float32.
func load(t *text, s source, off int, reg string) {
	switch s.name {
	case "BF16":
		t.op("VPMOVZXWD %d(SI), %s; VPSLLD $16, %s, %s", off, reg, reg, reg)
	case "F16":
		t.op("VCVTPH2PS %d(SI), %s", off, reg)
	case "F32":
		t.op("VMOVUPS %d(SI), %s", off, reg)
	}
}

// registers names what quantize works on.
type registers struct {
	x, q, r                       []string // elements, quotients, scratch; codes are left in r
	e, p                          []string // lane sums of each element register
	scale, inv, magic, qmin, qmax string
}

// quantize prints q = round(clamp(x/scale)), leaves q + magic in r, and adds to
// the lane sums. Steps are printed across the registers, not one register at a
// time, so that independent work stands together.
func quantize(t *text, v variant, g registers) {
	each := func(format string, args ...func(i int) string) {
		for i := range g.x {
			a := make([]any, len(args))
			for j, f := range args {
				a[j] = f(i)
			}
			t.op(format, a...)
		}
	}
	of := func(s []string) func(int) string { return func(i int) string { return s[i] } }
	one := func(s string) func(int) string { return func(int) string { return s } }
	x, q, r, e, p := of(g.x), of(g.q), of(g.r), of(g.e), of(g.p)
	scale, inv, magic := one(g.scale), one(g.inv), one(g.magic)
	if v.divide {
		each("VDIVPS %s, %s, %s", scale, x, q)
	} else {
		t.note("x times the inverse, and one step of correction by the remainder")
		each("VMULPS %s, %s, %s", inv, x, q)
		each("VMOVAPS %s, %s", x, r)
		each("VFNMADD231PS %s, %s, %s", q, scale, r)
		each("VFMADD231PS %s, %s, %s", r, inv, q)
	}
	each("VFMADD231PS %s, %s, %s", x, x, p)
	each("VMAXPS %s, %s, %s", one(g.qmin), q, q)
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

// next prints the step to the next 32 elements.
func next(t *text, s source, v variant) {
	out := 32
	if v.nibbles {
		out = 16
	}
	t.op("ADDQ $%d, SI; ADDQ $%d, DX; DECQ R9; JNZ block", 32*s.size, out)
}

func prefetch(t *text, s source) {
	for off := 0; off < 32*s.size; off += 64 {
		t.op("PREFETCHT0 %d(SI)(R10*1)", off)
	}
}

func encode512(t *text, s source, v variant) {
	encodeBegin(t, s, v, avx512)
	t.op("VBROADCASTSS batch_qmin(DI), Z29; VBROADCASTSS batch_qmax(DI), Z28; VBROADCASTSS batch_magic(DI), Z27")
	if v.nibbles {
		t.broadcast(0x10011001, "Y15")
	}
	t.label("group")
	t.op("VBROADCASTSS batch_scale(DI)(R8*4), Z31; VBROADCASTSS batch_inv(DI)(R8*4), Z30; VPXORD Z16, Z16, Z16; VPXORD Z17, Z17, Z17; MOVQ BX, R9")
	t.label("block")
	prefetch(t, s)
	load(t, s, 0, "Z0")
	load(t, s, 16*s.size, "Z1")
	quantize(t, v, registers{
		x: []string{"Z0", "Z1"}, q: []string{"Z2", "Z3"}, r: []string{"Z4", "Z5"},
		e: []string{"Z16", "Z16"}, p: []string{"Z17", "Z17"},
		scale: "Z31", inv: "Z30", magic: "Z27", qmin: "Z29", qmax: "Z28",
	})
	if v.nibbles {
		t.op("VPMOVDB Z4, X4; VPMOVDB Z5, X5; VINSERTI128 $1, X5, Y4, Y4")
		t.op("VPMADDUBSW Y15, Y4, Y4; VPMOVWB Y4, X4; VMOVDQU X4, (DX)")
	} else {
		t.op("VPMOVDB Z4, X4; VPMOVDB Z5, X5; VMOVDQU X4, (DX); VMOVDQU X5, 16(DX)")
	}
	next(t, s, v)
	t.note("errors to the lower 8 lanes, powers to the upper; then distance 4, 2, 1")
	t.op("VSHUFF64X2 $0x44, Z17, Z16, Z0; VSHUFF64X2 $0xee, Z17, Z16, Z1; VADDPS Z1, Z0, Z0")
	t.op("VSHUFF64X2 $0xb1, Z0, Z0, Z1; VADDPS Z1, Z0, Z0")
	t.op("VPERMILPS $0x4e, Z0, Z1; VADDPS Z1, Z0, Z0; VPERMILPS $0xb1, Z0, Z1; VADDPS Z1, Z0, Z0")
	t.op("VMOVSS X0, batch_err(DI)(R8*4); VEXTRACTF32X4 $2, Z0, X0; VMOVSS X0, batch_power(DI)(R8*4)")
	t.op("INCQ R8; DECQ CX; JNZ group")
	t.end()
}

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
	prefetch(t, s)
	for h := range 2 {
		load(t, s, 16*h*s.size, "Y0")
		load(t, s, (16*h+8)*s.size, "Y1")
		quantize(t, v, registers{
			x: []string{"Y0", "Y1"}, q: []string{"Y2", "Y3"}, r: []string{"Y4", "Y5"},
			e: []string{"Y8", "Y9"}, p: []string{"Y10", "Y11"},
			scale: "Y12", inv: "Y13", magic: "Y14", qmin: "batch_qmin(DI)", qmax: "batch_qmax(DI)",
		})
		t.op("VPAND Y15, Y4, Y4; VPAND Y15, Y5, Y5; VPACKUSDW Y5, Y4, Y%d", 6+h)
	}
	t.note("packing works in halves: put the runs of four bytes in order")
	t.op("VPACKUSWB Y7, Y6, Y6; VMOVDQU batch_order(DI), Y7; VPERMD Y6, Y7, Y6")
	if v.nibbles {
		t.op("VPMADDUBSW batch_pair(DI), Y6, Y6; VPACKUSWB Y6, Y6, Y6; VPERMQ $0x08, Y6, Y6; VMOVDQU X6, (DX)")
	} else {
		t.op("VMOVDQU Y6, (DX)")
	}
	next(t, s, v)
	t.note("distance 8; errors to the lower 4 lanes, powers to the upper; then 4, 2, 1")
	t.op("VADDPS Y9, Y8, Y0; VADDPS Y11, Y10, Y1")
	t.op("VPERM2F128 $0x20, Y1, Y0, Y2; VPERM2F128 $0x31, Y1, Y0, Y3; VADDPS Y3, Y2, Y0")
	t.op("VPERMILPS $0x4e, Y0, Y1; VADDPS Y1, Y0, Y0; VPERMILPS $0xb1, Y0, Y1; VADDPS Y1, Y0, Y0")
	t.op("VMOVSS X0, batch_err(DI)(R8*4); VEXTRACTF128 $1, Y0, X0; VMOVSS X0, batch_power(DI)(R8*4)")
	t.op("INCQ R8; DECQ CX; JNZ group")
	t.end()
}
