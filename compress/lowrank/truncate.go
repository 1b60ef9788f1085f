package lowrank

import (
	"context"
	"math"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/linalg"
	"github.com/shardpress/shardpress/internal/tensor"
)

// startSeed decides where the search for a subspace begins. The result hardly depends on it, so no recipe sets it.
const startSeed = 0x5eed

// chunkCols is how many columns of a wide matrix are worked on at a time.
const chunkCols = 128

// truncation is the best product of a rank that there is for a matrix, to a thousandth of its loss: one factor has orthonormal columns or rows, the other
// is what the matrix makes of it.
type truncation struct {
	left  leftFactor
	right []float32 // rank × cols
	rank  int
}

// truncationScratch bounds the memory of truncate, in bytes: the Gram matrix of the shorter side, two bases, two matrices of rank × rank, a wide
// matrix itself.
func truncationScratch(rows, cols, rank, size int64) int64 {
	n := min(rows, cols)
	need := 8 * (n*n + 2*n*rank + 2*rank*rank + chunkCols*max(n, rank))
	if rows <= cols {
		need += rows * cols * size
	}
	return max(need, 4*rank*(rows+2*cols)+rows*cols*size) + 8<<20
}

// chooser finds the subspace to keep of the one that a Gram matrix, n × n, has its energy in.
type chooser func(ctx context.Context, k *tensor.Kernels, n int, gram []float64, o compress.Options) (*linalg.Subspace, error)

// ofRank keeps the dominant subspace of a rank.
func ofRank(rank int) chooser {
	return func(ctx context.Context, k *tensor.Kernels, n int, gram []float64, o compress.Options) (*linalg.Subspace, error) {
		return linalg.Dominant(ctx, k, 1, n, rank, gram, startSeed, o.Beat)
	}
}

// truncate finds the factors of w that a subspace gives. It works on the Gram matrix of the shorter side in float64, whose dominant subspace is that of w's largest
// singular values; the squares that this takes cost digits only of singular values below 1e-8 of the largest, which no truncation keeps for
// their size.
func truncate(ctx context.Context, k *tensor.Kernels, w compress.Weights, choose chooser, o compress.Options) (*truncation, error) {
	l := w.Linear()
	if l.Rows <= l.Cols {
		return truncateWide(ctx, k, w, choose, o)
	}
	return truncateTall(ctx, k, w, choose, o)
}

// truncateTall is truncate for more rows than columns: rows stream, twice.
func truncateTall(ctx context.Context, k *tensor.Kernels, w compress.Weights, choose chooser, o compress.Options) (*truncation, error) {
	n := int(w.Linear().Cols)
	gram := make([]float64, n*n)
	var wide []float64
	err := compress.EachPanel(ctx, w, o, func(p compress.Panel, x []float32) error {
		wide = grow(wide, len(x))
		for i, v := range x {
			wide[i] = float64(v)
		}
		k.SYRK64(1, n, p.Rows, wide, n, gram, n, true)
		return nil
	})
	if err != nil {
		return nil, err
	}
	tensor.Mirror(n, gram, n)
	s, err := choose(ctx, k, n, gram, o)
	if err != nil {
		return nil, err
	}
	rank := len(s.Basis) / n
	// left = W·basis, panel by panel; right = basisᵀ.
	up, down := balance(s.Total, rank == n)
	basis, right := make([]float32, n*rank), make([]float32, rank*n)
	for i := range n {
		for j := range rank {
			v := float32(s.Basis[i*rank+j])
			basis[i*rank+j], right[j*n+i] = v*down, v*up
		}
	}
	return &truncation{projected{k, basis, n, rank}, right, rank}, nil
}

// truncateWide is truncate for at least as many columns as rows: the matrix is held in memory, as it is stored.
func truncateWide(ctx context.Context, k *tensor.Kernels, w compress.Weights, choose chooser, o compress.Options) (*truncation, error) {
	l := w.Linear()
	n, cols := int(l.Rows), int(l.Cols)
	d, err := tensor.ParseDType(l.DType)
	if err != nil {
		return nil, compress.Invalidf("encode %s: %w", l.Name, err)
	}
	size := d.Size()
	raw := make([]byte, n*cols*size)
	err = compress.EachPanel(ctx, w, o, func(p compress.Panel, _ []float32) error {
		copy(raw[int(p.Row)*cols*size:], p.Data)
		return nil
	})
	if err != nil {
		return nil, err
	}
	gram := make([]float64, n*n)
	chunk, x := make([]float64, chunkCols*n), make([]float32, chunkCols)
	for from := 0; from < cols; from += chunkCols {
		m := min(chunkCols, cols-from)
		for i := range n {
			tensor.ToFloat32(x[:m], raw[(i*cols+from)*size:], d)
			for j, v := range x[:m] {
				chunk[j*n+i] = float64(v)
			}
		}
		k.SYRK64(1, n, m, chunk, n, gram, n, true)
		o.Beat()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	tensor.Mirror(n, gram, n)
	s, err := choose(ctx, k, n, gram, o)
	if err != nil {
		return nil, err
	}
	rank := len(s.Basis) / n
	up, down := balance(s.Total, rank == n)
	basis := make([]float32, n*rank)
	for i, v := range s.Basis {
		basis[i] = float32(v) * down
	}
	// right = basisᵀ·W, in panels of W's rows: the chains go on from one to the next.
	right := make([]float32, rank*cols)
	const panel = 64
	rows := make([]float32, panel*cols)
	for from := 0; from < n; from += panel {
		m := min(panel, n-from)
		o.Beat()
		tensor.ToFloat32(rows[:m*cols], raw[from*cols*size:], d)
		k.GEMM(1, true, false, rank, cols, m, basis[from*rank:], rank, rows, cols, right, cols, true)
	}
	for i := range basis {
		basis[i] = basis[i] / down * up
	}
	return &truncation{stored{basis, rank}, right, rank}, nil
}

// balance gives two powers of two, inverse to each other, that bring an orthonormal factor up and what it makes of a matrix of squared norm total down to the
// same size. float16 would else have no room for the second. A full basis is the identity, and what it makes of the matrix is the matrix: it needs
// none.
func balance(total float64, full bool) (up, down float32) {
	if total == 0 || full {
		return 1, 1
	}
	_, e := math.Frexp(total) // total is near 2^e, and a quarter of that is half of the norm's
	e = min(max(e/4, -60), 60)
	return float32(math.Ldexp(1, e)), float32(math.Ldexp(1, -e))
}

// projected is W·basis.
type projected struct {
	k     *tensor.Kernels
	basis []float32 // cols × rank
	cols  int
	rank  int
}

func (f projected) rows(dst []float32, _ int64, rows int, x []float32) {
	if rows > 0 {
		f.k.GEMM(1, false, false, rows, f.rank, f.cols, x, f.cols, f.basis, f.rank, dst, f.rank, false)
	}
}

// stored is a matrix in memory.
type stored struct {
	data []float32 // rows × rank
	rank int
}

func (f stored) rows(dst []float32, row int64, rows int, _ []float32) {
	copy(dst[:rows*f.rank], f.data[int(row)*f.rank:])
}
