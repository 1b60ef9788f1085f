package quantize_test

import (
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
)

// FP8 weights that come without a scale are BF16 ones to HQQ, BCQ and OliVe.
func TestMethodsTakeFP8(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]compress.Method{
		"hqq": newHQQ(t, hqqParams(4, 4)), "bcq": newBCQ(t, bcqParams(2, 4, 15, true)), "olive": newOliVe(t, 4, 4),
	} {
		for _, test := range []struct {
			dtype string
			data  []byte
			same  []float64
		}{
			{"F8_E4M3", []byte{0x38, 0xb8, 0x01, 0x7e}, []float64{1, -1, 0x1p-9, 448}},
			{"F8_E5M2", []byte{0x3c, 0xbc, 0x01, 0x7b}, []float64{1, -1, 0x1p-16, 57344}},
		} {
			l := compress.Linear{Name: "l", Rows: 1, Cols: 4, DType: test.dtype}
			got := encodeOne(t, m, methodtest.Input{Linear: l, Data: test.data})
			want := encodeOne(t, m, methodtest.NewInput("l", "BF16", 4, test.same))
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s of %s: components %v, as BF16 %v", name, test.dtype, got, want)
				}
			}
		}
	}
}
