package main

// scaleFile prints the middle step: 32 largest magnitudes to 32 scales. It is
// AVX2 code for both instruction sets, since it runs once for 32 groups.
func scaleFile() file {
	var t text
	t.header()
	for _, s := range sources() {
		t.begin("scales"+s.name, "Makes scale, inv, stored, bad and slow from absmax, for "+s.name+" scales.")
		t.op("VBROADCASTSS batch_half(DI), Y15; VPBROADCASTD batch_tiny(DI), Y14; VPBROADCASTD batch_zero(DI), Y13")
		t.op("VPBROADCASTD batch_low(DI), Y12; VPBROADCASTD batch_high(DI), Y11")
		t.broadcast(0x3f800000, "Y10")
		t.broadcast(0x7f7fffff, "Y9")
		switch s.name {
		case "BF16":
			t.broadcast(1, "Y8")
			t.broadcast(0x7fff, "Y7")
			t.broadcast(0x7f7f0000, "Y6")
		case "F16":
			t.broadcast(0x7bff7bff, "Y6")
		case "F32":
			t.op("VMOVDQA Y9, Y6")
		}
		t.op("XORL R8, R8; XORL R9, R9; VPXOR Y5, Y5, Y5")
		for h := range 4 {
			off := 32 * h
			t.op("VMOVDQU batch_absmax+%d(DI), Y0", off)
			t.note("not finite: the bits are above those of the largest number")
			t.op("VPCMPGTD Y9, Y0, Y1; VMOVMSKPS Y1, AX; SHLL $%d, AX; ORL AX, R8", 8*h)
			t.op("VDIVPS Y15, Y0, Y2")
			switch s.name {
			case "BF16":
				t.op("VPSRLD $16, Y2, Y3; VPAND Y8, Y3, Y3; VPADDD Y3, Y2, Y2; VPADDD Y7, Y2, Y2")
				t.op("VPSRLD $16, Y2, Y2; VPSLLD $16, Y2, Y2; VPMINUD Y6, Y2, Y2")
			case "F16":
				t.op("VCVTPS2PH $0, Y2, X2; VPMINUW X6, X2, X2; VCVTPH2PS X2, Y2")
			case "F32":
				t.op("VPMINUD Y6, Y2, Y2")
			}
			t.note("a scale of zero becomes tiny, or with no magnitude at all tiny^zero = epsilon")
			t.op("VPCMPEQD Y5, Y0, Y3; VPAND Y13, Y3, Y3; VPXOR Y14, Y3, Y3; VPCMPEQD Y5, Y2, Y4; VPAND Y4, Y3, Y3; VPOR Y3, Y2, Y2")
			t.op("VPCMPGTD Y2, Y12, Y3; VPCMPGTD Y11, Y2, Y4; VPOR Y4, Y3, Y3; VMOVMSKPS Y3, AX; SHLL $%d, AX; ORL AX, R9", 8*h)
			t.op("VMOVUPS Y2, batch_scale+%d(DI)", off)
			t.op("VDIVPS Y2, Y10, Y3; VMOVUPS Y3, batch_inv+%d(DI)", off)
			switch s.name {
			case "BF16":
				t.op("VPSRLD $16, Y2, Y2; VPACKUSDW Y2, Y2, Y2; VPERMQ $0x08, Y2, Y2; VMOVDQU X2, batch_stored+%d(DI)", off/2)
			case "F16":
				t.op("VCVTPS2PH $0, Y2, X2; VMOVDQU X2, batch_stored+%d(DI)", off/2)
			case "F32":
				t.op("VMOVUPS Y2, batch_stored+%d(DI)", off)
			}
		}
		t.op("MOVL R8, batch_bad(DI); MOVL R9, batch_slow(DI)")
		t.end()
	}
	return file{"scale_amd64.s", t.String()}
}

// widenFile prints the conversion of BF16 to float32.
func widenFile() file {
	var t text
	t.header()
	t.WriteString("\n// func widenBF16AVX2(dst *float32, src *byte, blocks int)\n//\n// Converts blocks runs of 32 elements.\nTEXT ·widenBF16AVX2(SB), NOSPLIT, $0-24\n")
	t.op("MOVQ dst+0(FP), DI; MOVQ src+8(FP), SI; MOVQ blocks+16(FP), CX")
	t.label("next")
	t.op("PREFETCHT0 4096(SI)")
	for i := range 4 {
		t.op("VPMOVZXWD %d(SI), Y%d", 16*i, i)
	}
	for i := range 4 {
		t.op("VPSLLD $16, Y%d, Y%d; VMOVDQU Y%d, %d(DI)", i, i, i, 32*i)
	}
	t.op("ADDQ $64, SI; ADDQ $128, DI; DECQ CX; JNZ next")
	t.end()
	return file{"widen_amd64.s", t.String()}
}
