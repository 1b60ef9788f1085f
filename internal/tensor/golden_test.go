package tensor

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"testing"
)

// The bytes of every kernel, architecture and build: a change here changes what
// users get, and needs a new version of the methods that encode.
func TestGolden(t *testing.T) {
	t.Parallel()
	const want = "d2990b77865990bc19a8cca5e5be42640ea213c83147df084c230696868910e8"
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, err := ForName(name)
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			x := uint64(42)
			for _, d := range []DType{BF16, F16, F32} {
				for _, scale := range []DType{BF16, F16, F32} {
					for bits := 1; bits <= 8; bits++ {
						for _, group := range []int{24, 32, 128} {
							p := panel{d: d, scale: scale, rows: 3, cols: 384, group: group, bits: bits}
							p.src = make([]byte, p.rows*p.cols*d.Size())
							for i := range p.rows * p.cols {
								// A 64-bit congruential generator and integer work only, so
								// that the weights are the same everywhere.
								x = x*6364136223846793005 + 1442695040888963407
								v := float32(int32(x>>32)) * 0x1p-34
								if x>>20&63 == 0 {
									v *= 8
								}
								FromFloat32(p.src[i*d.Size():], []float32{v}, d)
							}
							for _, p.asymmetric = range []bool{false, true} {
								r := p.result()
								if bad := p.encode(k, r); bad != -1 {
									t.Fatalf("%v: bad row %d", p, bad)
								}
								h.Write(r.Codes)
								h.Write(r.Scales)
								h.Write(r.Zeros)
								for row := range p.rows {
									h.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(r.Error[row])))
									h.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(r.Power[row])))
								}
							}
						}
					}
				}
			}
			if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
				t.Errorf("digest is %s, want %s", got, want)
			}
		})
	}
}
