package main

import "fmt"

// gridErrorFile prints the sums of Kernels.GridError for one instruction set.
func gridErrorFile(i isa, name string) file {
	var t text
	t.header()
	function := "gridError" + i.name
	fmt.Fprintf(&t, "\n// func %s(t *float32, blocks int, c *gridSums)\n//\n// Sums over blocks runs of 16 elements.\nTEXT ·%s(SB), NOSPLIT, $0-24\n", function, function)
	t.op("MOVQ t+0(FP), SI; MOVQ blocks+8(FP), CX; MOVQ c+16(FP), DI")
	r, and, xor := i.reg, "VPAND", "VPXOR"
	if i == avx512 {
		and, xor = "VPANDD", "VPXORD"
	}
	zero, qmin, qmax, magic, magnitude := r+"15", r+"14", r+"13", r+"12", r+"11"
	t.broadcast(0x7fffffff, magnitude)
	for _, c := range [][2]string{{"zero", zero}, {"qmin", qmin}, {"qmax", qmax}, {"magic", magic}} {
		t.op("VBROADCASTSS gridSums_%s(DI), %s", c[0], c[1])
	}
	parts := 16 / i.step // registers of a block
	sums := []string{"abs", "sum", "top"}
	reg := func(sum, part int) string { return fmt.Sprintf("%s%d", r, sum*parts+part) } // at most 6
	for n := range len(sums) * parts {
		t.op("%s %s%d, %s%d, %s%d", xor, r, n, r, n, r, n)
	}
	t.label("next")
	for p := range parts {
		x, q := r+"7", r+"8"
		if p == 1 {
			x, q = r+"9", r+"10"
		}
		t.op("VMOVUPS %d(SI), %s; VADDPS %s, %s, %s; VMAXPS %s, %s, %s; VMINPS %s, %s, %s", 4*i.step*p, x, zero, x, q, qmin, q, q, qmax, q, q)
		t.op("VADDPS %s, %s, %s; VSUBPS %s, %s, %s; VSUBPS %s, %s, %s; VSUBPS %s, %s, %s", magic, q, q, magic, q, q, zero, q, q, x, q, q)
		t.op("VADDPS %s, %s, %s; %s %s, %s, %s", q, reg(1, p), reg(1, p), and, magnitude, q, q)
		t.op("VADDPS %s, %s, %s; VMAXPS %s, %s, %s", q, reg(0, p), reg(0, p), q, reg(2, p), reg(2, p))
	}
	t.op("ADDQ $64, SI; DECQ CX; JNZ next")
	for n, sum := range sums {
		for p := range parts {
			t.op("VMOVUPS %s, gridSums_%s+%d(DI)", reg(n, p), sum, 4*i.step*p)
		}
	}
	t.end()
	return file{name, t.String()}
}
