package main

import "fmt"

// laneBytes is the size of a block of elements: a sum for each of them.
const laneBytes = 256

// dotFile prints the kernels on pairs of vectors.
func dotFile() file {
	var t text
	t.header()
	for _, i := range []isa{avx2, avx512} {
		for _, e := range []element{f32, f64} {
			dot(&t, e, i)
			axpy(&t, e, i)
		}
	}
	return file{"dot_amd64.s", t.String()}
}

func dotName(e element, i isa) string { return "dot" + e.name + i.name }

func dotArgs(e element) string {
	return fmt.Sprintf("x, y *%s, blocks int, tail *[2][%d]%s", e.goes, laneBytes/e.size, e.goes)
}

// dot prints a sum of products in as many lanes as a block has elements, which
// are then added in halves.
func dot(t *text, e element, i isa) {
	name, width, r := dotName(e, i), 4*i.step, i.reg
	n := laneBytes / width
	fmt.Fprintf(t, "\n// func %s(%s) %s\n//\n// Sums the products of whole blocks, and of the tail unless it is nil.\nTEXT ·%s(SB), NOSPLIT, $0-%d\n",
		name, dotArgs(e), e.goes, name, 32+e.size)
	t.op("MOVQ x+0(FP), SI; MOVQ y+8(FP), DX; MOVQ blocks+16(FP), CX; MOVQ tail+24(FP), R8")
	for j := range n {
		t.op("VXORPS X%[1]d, X%[1]d, X%[1]d", j)
	}
	block := func(y string) {
		for j := range n {
			t.op("VMOVU%s %d(SI), %s%d", e.op, j*width, r, n+j)
		}
		for j := range n {
			t.op("VFMADD231%s %s, %s%d, %s%d", e.op, fmt.Sprintf(y, j*width), r, n+j, r, j)
		}
	}
	t.op("TESTQ CX, CX; JEQ tail")
	t.label("next")
	block("%d(DX)")
	t.op("ADDQ $%d, SI; ADDQ $%d, DX; DECQ CX; JNZ next", laneBytes, laneBytes)
	t.label("tail")
	t.op("TESTQ R8, R8; JEQ sum; MOVQ R8, SI; LEAQ %d(R8), DX", laneBytes)
	block("%d(DX)")
	t.label("sum")
	for half := n / 2; half > 0; half /= 2 {
		for j := range half {
			t.op("VADD%s %s%d, %s%d, %s%d", e.op, r, j+half, r, j, r, j)
		}
	}
	if i == avx512 {
		t.op("VEXTRACTF64X4 $1, Z0, Y1; VADD%s Y1, Y0, Y0", e.op)
	}
	t.op("VEXTRACTF128 $1, Y0, X1; VADD%s X1, X0, X0; VPERMILPD $1, X0, X1", e.op)
	if e.size == 4 {
		t.op("VADDPS X1, X0, X0; VMOVSHDUP X0, X1; VADDSS X1, X0, X0; VMOVSS X0, ret+32(FP)")
	} else {
		t.op("VADDSD X1, X0, X0; VMOVSD X0, ret+32(FP)")
	}
	t.end()
}

func axpyName(e element, i isa) string { return "axpy" + e.name + i.name }

func axpyArgs(e element) string { return fmt.Sprintf("alpha %[1]s, x, y *%[1]s, blocks int", e.goes) }

func axpy(t *text, e element, i isa) {
	name, width, r := axpyName(e, i), 4*i.step, i.reg
	n := laneBytes / width
	fmt.Fprintf(t, "\n// func %s(%s)\n//\n// Adds alpha times x to y, in whole blocks.\nTEXT ·%s(SB), NOSPLIT, $0-32\n", name, axpyArgs(e), name)
	t.op("VBROADCASTS%s alpha+0(FP), %s15; MOVQ x+8(FP), SI; MOVQ y+16(FP), DI; MOVQ blocks+24(FP), CX", e.op[1:], r)
	t.label("next")
	for j := range n {
		t.op("VMOVU%s %d(DI), %s%d", e.op, j*width, r, j)
	}
	for j := range n {
		t.op("VFMADD231%s %d(SI), %s15, %s%d; VMOVU%s %s%d, %d(DI)", e.op, j*width, r, r, j, e.op, r, j, j*width)
	}
	t.op("ADDQ $%d, SI; ADDQ $%d, DI; DECQ CX; JNZ next", laneBytes, laneBytes)
	t.end()
}

// dotFunctions lists the declarations of what is printed here.
func dotFunctions() [][3]string {
	var fs [][3]string
	for _, i := range []isa{avx2, avx512} {
		for _, e := range []element{f32, f64} {
			fs = append(fs, [3]string{dotName(e, i), dotArgs(e), " " + e.goes}, [3]string{axpyName(e, i), axpyArgs(e), ""})
		}
	}
	return fs
}
