package main

import (
	"fmt"
	"slices"
)

// element is a type of the matrices that are multiplied.
type element struct {
	name string
	goes string // the Go type
	size int
	op   string // suffix of instructions
}

var (
	f32 = element{"F32", "float32", 4, "PS"}
	f64 = element{"F64", "float64", 8, "PD"}
)

// tile is one microkernel: rows × vectors registers of sums, vectors registers
// of B, and the rest for elements of A.
type tile struct {
	isa           isa
	element       element
	rows, vectors int
	subtract      bool // C -= A·B
}

func tiles() []tile {
	var ms []tile
	for _, m := range []tile{
		{isa: avx2, element: f32, rows: 6, vectors: 2},
		{isa: avx2, element: f64, rows: 6, vectors: 2},
		{isa: avx512, element: f32, rows: 6, vectors: 4},
		{isa: avx512, element: f64, rows: 8, vectors: 3},
	} {
		ms = append(ms, m)
		m.subtract = true
		ms = append(ms, m)
	}
	return ms
}

func (m tile) cols() int { return m.vectors * 4 * m.isa.step / m.element.size }

func (m tile) function() string {
	name := "tile"
	if m.subtract {
		name = "subTile"
	}
	return fmt.Sprintf("%s%dx%d%s%s", name, m.rows, m.cols(), m.element.name, m.isa.name)
}

const tileArgs = "k int, a *%[1]s, aRow, aCol int, b, c *%[1]s, ldc int, load bool"

// gemmFile prints the microkernels of one instruction set, and with AVX2 the
// transposition that both use.
func gemmFile(i isa, name string) file {
	var t text
	t.header()
	for _, m := range tiles() {
		if m.isa == i {
			m.print(&t)
			if !m.subtract {
				m.printSolve(&t)
			}
		}
	}
	loop(&t, f32, i)
	loop(&t, f64, i)
	if i == avx2 {
		for _, n := range rowBytes() {
			copyRows(&t, n)
		}
		transpose32(&t)
		transpose64(&t)
	}
	return file{name, t.String()}
}

// rowAddress returns the address of row i of A: SI is at row 0, R8, R9, R10 and
// R11 are 1, 3, 5 and 7 times the stride.
func rowAddress(i int) string {
	return []string{"(SI)", "(SI)(R8*1)", "(SI)(R8*2)", "(SI)(R9*1)", "(SI)(R8*4)", "(SI)(R10*1)", "(SI)(R9*2)", "(SI)(R11*1)"}[i]
}

// tileUnroll is the number of steps of k in one turn of the loop.
const tileUnroll = 4

// print prints a microkernel. A is broadcast by an instruction of its own: as an
// operand of the multiplication it would be loaded once for each register of B.
func (m tile) print(t *text) {
	r, width := m.isa.reg, 4*m.isa.step
	sum := func(i, j int) string { return fmt.Sprintf("%s%d", r, i*m.vectors+j) }
	bReg := func(j int) string { return fmt.Sprintf("%s%d", r, m.rows*m.vectors+j) }
	firstA := m.rows*m.vectors + m.vectors
	spare := 2*m.isa.step - firstA // there are 16 registers of 8, 32 of 16
	aReg := func(i int) string { return fmt.Sprintf("%s%d", r, firstA+i%spare) }
	name, args := m.function(), fmt.Sprintf(tileArgs, m.element.goes)
	fmt.Fprintf(t, "\n// func %s(%s)\n//\n// Computes a tile of C.\nTEXT ·%s(SB), NOSPLIT, $0-57\n", name, args, name)
	multiply := "MADD"
	if m.subtract {
		multiply = "NMADD"
	}
	t.op("MOVQ k+0(FP), CX; MOVQ a+8(FP), SI; MOVQ aRow+16(FP), R8; MOVQ aCol+24(FP), R12; MOVQ b+32(FP), DX; MOVQ c+40(FP), DI; MOVQ ldc+48(FP), BX; MOVBLZX load+56(FP), AX")
	t.op("SHLQ $%d, R8; SHLQ $%d, R12; SHLQ $%d, BX", log2(m.element.size), log2(m.element.size), log2(m.element.size))
	t.op("LEAQ (R8)(R8*2), R9; LEAQ (R8)(R8*4), R10")
	if m.rows > 7 {
		t.op("LEAQ (R9)(R8*4), R11")
	}
	t.op("MOVQ DI, R13; TESTL AX, AX; JNE load")
	for i := range m.rows {
		for j := range m.vectors {
			if m.isa == avx512 {
				t.op("VPXORD %[1]s, %[1]s, %[1]s", sum(i, j))
			} else {
				t.op("VXORPS %[1]s, %[1]s, %[1]s", sum(i, j))
			}
		}
		if i > 0 {
			t.op("ADDQ BX, R13")
		}
	}
	t.op("JMP begin")
	t.label("load")
	for i := range m.rows {
		if i > 0 {
			t.op("ADDQ BX, R13")
		}
		for j := range m.vectors {
			t.op("VMOVU%s %d(R13), %s", m.element.op, j*width, sum(i, j))
		}
	}
	step := func(u int) {
		for j := range m.vectors {
			t.op("VMOVU%s %d(DX), %s", m.element.op, (u*m.vectors+j)*width, bReg(j))
		}
		for i := range m.rows {
			t.op("VBROADCASTS%s %s, %s", m.element.op[1:], rowAddress(i), aReg(i))
			for j := range m.vectors {
				t.op("VF%s231%s %s, %s, %s", multiply, m.element.op, bReg(j), aReg(i), sum(i, j))
			}
		}
		t.op("ADDQ R12, SI")
	}
	t.label("begin")
	t.note("the tile that comes next is the one below")
	for range m.rows {
		t.op("ADDQ BX, R13")
		for j := 0; j < m.vectors*width; j += 64 {
			t.op("PREFETCHT0 %d(R13)", j)
		}
	}
	t.op("MOVQ CX, AX; SHRQ $%d, AX; JEQ rest", log2(tileUnroll))
	t.label("next")
	for u := range tileUnroll {
		step(u)
	}
	t.op("ADDQ $%d, DX; DECQ AX; JNZ next", tileUnroll*m.vectors*width)
	t.label("rest")
	t.op("ANDQ $%d, CX; JEQ store", tileUnroll-1)
	t.label("single")
	step(0)
	t.op("ADDQ $%d, DX; DECQ CX; JNZ single", m.vectors*width)
	t.label("store")
	for i := range m.rows {
		for j := range m.vectors {
			t.op("VMOVU%s %s, %d(DI)", m.element.op, sum(i, j), j*width)
		}
		if i < m.rows-1 {
			t.op("ADDQ BX, DI")
		}
	}
	t.end()
}

func (m tile) solveName() string {
	return fmt.Sprintf("solve%dx%d%s%s", m.rows, m.cols(), m.element.name, m.isa.name)
}

const solveArgs = "l *%[1]s, lRow int, x *%[1]s"

// printSolve prints forward substitution in a tile: a row loses its multiples of
// those above it, and is divided by what is on the diagonal.
func (m tile) printSolve(t *text) {
	r, width := m.isa.reg, 4*m.isa.step
	reg := func(i, j int) string { return fmt.Sprintf("%s%d", r, i*m.vectors+j) }
	first := m.rows * m.vectors
	spare := 2*m.isa.step - first
	fmt.Fprintf(t, "\n// func %s(%s)\n//\n// Replaces the tile x by the solution of l·y = x, l being lower triangular.\nTEXT ·%s(SB), NOSPLIT, $0-24\n",
		m.solveName(), fmt.Sprintf(solveArgs, m.element.goes), m.solveName())
	t.op("MOVQ l+0(FP), SI; MOVQ lRow+8(FP), R8; MOVQ x+16(FP), DI; SHLQ $%d, R8", log2(m.element.size))
	for i := range m.rows {
		for j := range m.vectors {
			t.op("VMOVU%s %d(DI), %s", m.element.op, (i*m.vectors+j)*width, reg(i, j))
		}
	}
	for i := range m.rows {
		for q := range i + 1 {
			a := fmt.Sprintf("%s%d", r, first+q%spare)
			t.op("VBROADCASTS%s %d(SI), %s", m.element.op[1:], q*m.element.size, a)
			for j := range m.vectors {
				if q < i {
					t.op("VFNMADD231%s %s, %s, %s", m.element.op, reg(q, j), a, reg(i, j))
				} else {
					t.op("VDIV%s %s, %s, %s", m.element.op, a, reg(i, j), reg(i, j))
				}
			}
		}
		if i < m.rows-1 {
			t.op("ADDQ R8, SI")
		}
	}
	for i := range m.rows {
		for j := range m.vectors {
			t.op("VMOVU%s %s, %d(DI)", m.element.op, reg(i, j), (i*m.vectors+j)*width)
		}
	}
	t.end()
}

const transposeArgs = "dst, src *%s, blocks, from, to int"

// transposeBegin opens a function that transposes blocks squares: the rows of
// the source are from bytes apart, those of the target to.
func transposeBegin(t *text, name string, e element) {
	fmt.Fprintf(t, "\n// func %s(%s)\n//\n// Transposes squares that lie one after the other in src, one below the other in dst.\nTEXT ·%s(SB), NOSPLIT, $0-40\n",
		name, fmt.Sprintf(transposeArgs, e.goes), name)
	t.op("MOVQ dst+0(FP), DI; MOVQ src+8(FP), SI; MOVQ blocks+16(FP), CX; MOVQ from+24(FP), R8; MOVQ to+32(FP), R12")
	t.op("LEAQ (R8)(R8*2), R9; LEAQ (R8)(R8*4), R10; LEAQ (R9)(R8*4), R11")
	t.op("LEAQ (R12)(R12*2), R13; LEAQ (R12)(R12*4), AX; LEAQ (R13)(R12*4), BX")
	t.label("next")
}

func targetAddress(i int) string {
	return []string{"(DI)", "(DI)(R12*1)", "(DI)(R12*2)", "(DI)(R13*1)", "(DI)(R12*4)", "(DI)(AX*1)", "(DI)(R13*2)", "(DI)(BX*1)"}[i]
}

// transpose32 prints squares of 8. Rows i and i+4 meet in one register, so that
// no step after the loads crosses its halves.
func transpose32(t *text) {
	transposeBegin(t, "transpose8F32AVX2", f32)
	high := func(i int) string { // 16 bytes further on
		return "16" + rowAddress(i)
	}
	for i := range 4 {
		t.op("VMOVUPS %s, X%d; VINSERTF128 $1, %s, Y%d, Y%d", rowAddress(i), i, rowAddress(i+4), i, i)
		t.op("VMOVUPS %s, X%d; VINSERTF128 $1, %s, Y%d, Y%d", high(i), i+4, high(i+4), i+4, i+4)
	}
	for _, h := range []int{0, 4} {
		t.op("VUNPCKLPS Y%d, Y%d, Y8; VUNPCKHPS Y%d, Y%d, Y9", h+1, h, h+1, h)
		t.op("VUNPCKLPS Y%d, Y%d, Y10; VUNPCKHPS Y%d, Y%d, Y11", h+3, h+2, h+3, h+2)
		for j, pair := range [][2]string{{"Y10", "Y8"}, {"Y11", "Y9"}} {
			t.op("VUNPCKLPD %s, %s, Y12; VMOVUPS Y12, %s", pair[0], pair[1], targetAddress(h+2*j))
			t.op("VUNPCKHPD %s, %s, Y13; VMOVUPS Y13, %s", pair[0], pair[1], targetAddress(h+2*j+1))
		}
	}
	t.op("ADDQ $32, SI; LEAQ (DI)(R12*8), DI; DECQ CX; JNZ next")
	t.end()
}

// transpose64 prints squares of 4.
func transpose64(t *text) {
	transposeBegin(t, "transpose4F64AVX2", f64)
	for i := range 2 {
		t.op("VMOVUPD %s, X%d; VINSERTF128 $1, %s, Y%d, Y%d", rowAddress(i), i, rowAddress(i+2), i, i)
		t.op("VMOVUPD 16%s, X%d; VINSERTF128 $1, 16%s, Y%d, Y%d", rowAddress(i), i+2, rowAddress(i+2), i+2, i+2)
	}
	for j, pair := range [][2]int{{1, 0}, {3, 2}} {
		t.op("VUNPCKLPD Y%d, Y%d, Y4; VMOVUPD Y4, %s", pair[0], pair[1], targetAddress(2*j))
		t.op("VUNPCKHPD Y%d, Y%d, Y5; VMOVUPD Y5, %s", pair[0], pair[1], targetAddress(2*j+1))
	}
	t.op("ADDQ $32, SI; LEAQ (DI)(R12*4), DI; DECQ CX; JNZ next")
	t.end()
}

// rowBytes lists what the rows of a panel of A measure that is stored by columns.
func rowBytes() []int { return []int{24, 48, 64} }

func copyName(n int) string { return fmt.Sprintf("copyRows%dAVX2", n) }

const copyArgs = "dst, src unsafe.Pointer, rows, from int"

// copyRows prints the copying of rows of n bytes, too few to be worth a call each.
func copyRows(t *text, n int) {
	fmt.Fprintf(t, "\n// func %s(%s)\n//\n// Copies rows of %d bytes, from bytes apart, to one after the other.\nTEXT ·%s(SB), NOSPLIT, $0-32\n", copyName(n), copyArgs, n, copyName(n))
	t.op("MOVQ dst+0(FP), DI; MOVQ src+8(FP), SI; MOVQ rows+16(FP), CX; MOVQ from+24(FP), R8")
	t.label("next")
	for at := 0; at < n; {
		switch n - at {
		case 8:
			t.op("MOVQ %d(SI), AX; MOVQ AX, %d(DI)", at, at)
			at += 8
		case 16, 24:
			t.op("VMOVUPS %d(SI), X0; VMOVUPS X0, %d(DI)", at, at)
			at += 16
		default:
			t.op("VMOVUPS %d(SI), Y0; VMOVUPS Y0, %d(DI)", at, at)
			at += 32
		}
	}
	t.op("ADDQ R8, SI; ADDQ $%d, DI; DECQ CX; JNZ next", n)
	t.end()
}

// loopSums is the number of independent sums of the loop that measures the peak:
// more than the latency of a multiply-add times the number of units.
const loopSums = 12

func loopName(e element, i isa) string { return "loop" + e.name + i.name }

// loop prints turns times loopSums multiply-adds of registers.
func loop(t *text, e element, i isa) {
	name := loopName(e, i)
	fmt.Fprintf(t, "\n// func %s(turns int)\n//\n// Multiplies and adds registers: zeros, for which no unit slows down.\nTEXT ·%s(SB), NOSPLIT, $0-8\n", name, name)
	t.op("MOVQ turns+0(FP), CX")
	for j := range loopSums + 1 {
		t.op("VXORPS X%[1]d, X%[1]d, X%[1]d", j)
	}
	t.label("next")
	for j := range loopSums {
		t.op("VFMADD231%[1]s %[2]s%[3]d, %[2]s%[3]d, %[2]s%[4]d", e.op, i.reg, loopSums, j)
	}
	t.op("DECQ CX; JNZ next")
	t.end()
}

// gemmFunctions lists the declarations of what is printed here.
func gemmFunctions() [][2]string {
	var fs [][2]string
	for _, m := range tiles() {
		fs = append(fs, [2]string{m.function(), fmt.Sprintf(tileArgs, m.element.goes)})
		if !m.subtract {
			fs = append(fs, [2]string{m.solveName(), fmt.Sprintf(solveArgs, m.element.goes)})
		}
	}
	for _, i := range []isa{avx2, avx512} {
		fs = append(fs, [2]string{loopName(f32, i), "turns int"}, [2]string{loopName(f64, i), "turns int"})
	}
	for _, n := range rowBytes() {
		fs = append(fs, [2]string{copyName(n), copyArgs})
	}
	return slices.Concat(fs, [][2]string{
		{"transpose8F32AVX2", fmt.Sprintf(transposeArgs, f32.goes)},
		{"transpose4F64AVX2", fmt.Sprintf(transposeArgs, f64.goes)},
	})
}
