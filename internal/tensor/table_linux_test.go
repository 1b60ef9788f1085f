package tensor

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The vector code of tables neither reads nor writes outside of what it is given.
func TestTableGuardPages(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(35, 36))
	for i := range 60 {
		p := tablePanel{d: BF16, rows: 1 + rng.IntN(3), block: 32 << rng.IntN(3), table: testTables()[rng.IntN(5)]}
		p.cols = p.block * (1 + rng.IntN(40))
		p.src = guarded(t, p.rows*p.cols*2, i%2 == 0)
		p.fill(t, rng, rng.IntN(weightKinds))
		want := p.result()
		p.encode(nil, want)
		for _, k := range vectorKernels(t) {
			got := p.result()
			got.Codes = guarded(t, len(got.Codes), i%2 == 0)
			p.encode(k, got)
			sameTable(t, fmt.Sprintf("%s: %d × %d in runs of %d", k.Name(), p.rows, p.cols, p.block), got, want)
		}
	}
}
