package tensor

import (
	"math"
	"sync"
	"unsafe"
)

// float is what matrices hold.
type float interface{ float32 | float64 }

// product is one call, or the share of one thread in it: C = or += ±A·B. The
// strides of A and B stand for whether they are transposed.
type product[T float] struct {
	m, n, k    int
	a          []T
	aRow, aCol int // element i, p of A is a[i*aRow+p*aCol]
	b          []T
	bRow, bCol int // element p, j of B is b[p*bRow+j*bCol]
	c          []T
	ldc        int
	load       bool // the chains start from C
	negate     bool // -A in place of A
	// upper leaves out, and untouched, the elements j < i+shift: those below
	// the diagonal, when the first of these rows is so far below the first column.
	upper bool
	shift int
}

type tileKernel[T float] func(k int, a *T, aRow, aCol int, b, c *T, ldc int, load bool)

// tiles is a way to compute: a kernel for one tile of C, and the sizes of the
// blocks around it. The sizes show in speed only.
type tiles[T float] struct {
	rows, cols int // of a tile
	// kc × nc elements of B are packed at a time, into panels of cols columns;
	// mc × kc of A, into panels of rows rows.
	mc, kc, nc int
	// kernel computes a whole tile. Element i, p of A is aRow*i + aCol*p elements
	// from a; B is a panel: k rows of cols elements. Rows of C are ldc apart.
	kernel tileKernel[T]
	// subtract is a kernel too, of C - A·B.
	subtract tileKernel[T]
	// solve replaces the tile x, rows one after the other, by the solution y of
	// l·y = x, where l is lower triangular and its rows lRow apart.
	solve func(l *T, lRow int, x *T)
	fma   func(x, y, z T) T
	// packA, if there is one, writes a whole panel of A, k columns of rows
	// elements, from columns that are contiguous (aRow is 1), aCol elements apart.
	packA func(dst, src []T, k, aCol int)
	// packB, if there is one, writes rows of a whole panel of B from columns that
	// are contiguous (bRow is 1), bCol elements apart: as many of k as it can, and
	// returns how many those are.
	packB func(dst, src []T, k, cols, bCol int) int
}

// workspace is what one thread packs into.
type workspace[T float] struct{ all []T }

// take returns n elements, aligned to a cache line, whose contents are those of
// some earlier use.
func (w *workspace[T]) take(n int) []T {
	const line = 64
	size := int(unsafe.Sizeof(*new(T)))
	if len(w.all) < n+line/size {
		w.all = make([]T, n+line/size)
	}
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(w.all)))%line) / size
	return w.all[skip:][:n:n]
}

// lender keeps workspaces from call to call, as many as there were threads at a
// time, until the garbage collector wants them. A nil one keeps none.
type lender[T float] struct{ pool sync.Pool }

func (l *lender[T]) get() *workspace[T] {
	if l != nil {
		if w, ok := l.pool.Get().(*workspace[T]); ok {
			return w
		}
	}
	return new(workspace[T])
}

func (l *lender[T]) put(w *workspace[T]) {
	if l != nil {
		l.pool.Put(w)
	}
}

// threadWork is the least number of multiply-adds that is worth a goroutine.
const threadWork = 1 << 18

// run computes p on at most so many threads. Each has a rectangle of C, cut at
// whole tiles, and shares nothing with the others but what all of them read.
func run[T float](t *tiles[T], l *lender[T], threads int, p product[T]) {
	if p.m == 0 || p.n == 0 {
		return
	}
	if work := float64(p.m) * float64(p.n) * float64(p.k); work < threadWork*float64(threads) {
		threads = int(work / threadWork)
	}
	parts := split(p, max(threads, 1), t.rows, t.cols)
	one := func(q product[T]) {
		w := l.get()
		q.compute(t, w)
		l.put(w)
	}
	var wg sync.WaitGroup
	for _, q := range parts[1:] {
		wg.Go(func() { one(q) })
	}
	one(parts[0])
	wg.Wait()
}

// split cuts p into at most threads parts of like work: bands of rows if only a
// triangle is wanted, else rectangles as near to squares as the number allows,
// because what a thread packs is its rows of A and its columns of B.
func split[T float](p product[T], threads, rows, cols int) []product[T] {
	if threads == 1 {
		return []product[T]{p}
	}
	high, wide := threads, 1
	if !p.upper {
		least := math.Inf(1)
		for h := 1; h <= threads; h++ {
			if threads%h != 0 {
				continue
			}
			if edge := float64(p.m)/float64(h) + float64(p.n)/float64(threads/h); edge < least {
				least, high, wide = edge, h, threads/h
			}
		}
	}
	var parts []product[T]
	for h := range high {
		i0, i1 := cut(p.m, h, high, rows, p.upper), cut(p.m, h+1, high, rows, p.upper)
		for w := range wide {
			j0, j1 := cut(p.n, w, wide, cols, false), cut(p.n, w+1, wide, cols, false)
			if i0 < i1 && j0 < j1 {
				parts = append(parts, p.part(i0, i1, j0, j1))
			}
		}
	}
	return parts
}

// cut returns where part i of n begins when there are parts of them, at a
// multiple of unit: in equal parts, or in equal areas of an upper triangle.
func cut(n, i, parts, unit int, triangle bool) int {
	if i == parts {
		return n
	}
	x := float64(i) / float64(parts)
	if triangle {
		x = 1 - math.Sqrt(1-x)
	}
	return min(int(x*float64(n)+float64(unit)/2)/unit*unit, n)
}

// part returns the share of p in rows i0 to i1 and columns j0 to j1 of C.
func (p product[T]) part(i0, i1, j0, j1 int) product[T] {
	if p.upper {
		j0 = max(j0, i0+p.shift) // the rest is below the diagonal
	}
	p.m, p.n = i1-i0, j1-j0
	if p.k > 0 {
		p.a, p.b = p.a[i0*p.aRow:], p.b[j0*p.bCol:]
	}
	p.c = p.c[i0*p.ldc+j0:]
	p.shift += i0 - j0
	return p
}

// even returns the size, a multiple of unit, of the blocks of at most most that
// cut n into as few as can be, all alike.
func even(n, most, unit int) int {
	blocks := max((n+most-1)/most, 1)
	return ((n+blocks-1)/blocks + unit - 1) / unit * unit
}

// compute is the usual nest of blocks (Goto and van de Geijn, "Anatomy of
// high-performance matrix multiplication", 2008): a panel of B of kc × cols stays
// in the second-level cache while the tiles of a block of A, which does so too, go by.
func (p *product[T]) compute(t *tiles[T], w *workspace[T]) {
	if p.k == 0 {
		p.clear()
		return
	}
	mc, kc, nc := even(p.m, t.mc, t.rows), even(p.k, t.kc, 8), even(p.n, t.nc, t.cols)
	kernel := t.kernel
	if p.negate {
		kernel = t.subtract
	}
	all := w.take(kc*(nc+mc) + t.rows*t.cols)
	packedB, rest := all[:kc*nc], all[kc*nc:]
	packedA, edge := rest[:kc*mc], rest[kc*mc:]
	for jc := 0; jc < p.n; jc += nc {
		nb := min(nc, p.n-jc)
		for pc := 0; pc < p.k; pc += kc {
			kb := min(kc, p.k-pc)
			p.packB(t, packedB, pc, kb, jc, nb)
			for ic := 0; ic < p.m; ic += mc {
				mb := min(mc, p.m-ic)
				if p.skip(ic, jc) >= nb {
					break
				}
				aRow, aCol := p.packA(t, packedA, ic, mb, pc, kb)
				for jr := 0; jr < nb; jr += t.cols {
					for ir := 0; ir < mb; ir += t.rows {
						p.tile(t, kernel, edge, packedA[ir*kb:], aRow, aCol, packedB[jr*kb:], kb, ic+ir, jc+jr, p.load || pc > 0)
					}
				}
			}
		}
	}
}

// clear is the product over no k.
func (p *product[T]) clear() {
	if p.load {
		return
	}
	for i := range p.m {
		if skip := p.skip(i, 0); skip < p.n {
			clear(p.c[i*p.ldc:][skip:p.n])
		}
	}
}

// skip returns how many elements of row i from column j are left out.
func (p *product[T]) skip(i, j int) int {
	if p.upper {
		return max(i+p.shift-j, 0)
	}
	return 0
}

// tile computes the tile at row i and column j of C. One that is not whole, or
// crosses the diagonal, is computed as a whole one beside C.
func (p *product[T]) tile(t *tiles[T], kernel tileKernel[T], edge, a []T, aRow, aCol int, b []T, k, i, j int, load bool) {
	rows, cols := min(t.rows, p.m-i), min(t.cols, p.n-j)
	if p.skip(i, j) >= cols {
		return
	}
	if rows == t.rows && cols == t.cols && p.skip(i+rows-1, j) == 0 {
		kernel(k, &a[0], aRow, aCol, &b[0], &p.c[i*p.ldc+j], p.ldc, load)
		return
	}
	if load {
		for r := range rows {
			if skip := p.skip(i+r, j); skip < cols {
				copy(edge[r*t.cols+skip:], p.c[(i+r)*p.ldc+j:][skip:cols])
			}
		}
	}
	kernel(k, &a[0], aRow, aCol, &b[0], &edge[0], t.cols, load)
	for r := range rows {
		if skip := p.skip(i+r, j); skip < cols {
			copy(p.c[(i+r)*p.ldc+j:][skip:cols], edge[r*t.cols+skip:])
		}
	}
}

// packA copies mb rows from ic of A, kb columns from pc, in panels of t.rows rows,
// zeros below the last. A panel is as A is: rows one after the other, or
// columns if they are what lies together. It returns the strides inside a panel.
func (p *product[T]) packA(t *tiles[T], dst []T, ic, mb, pc, kb int) (aRow, aCol int) {
	whole := (mb + t.rows - 1) / t.rows * t.rows
	if p.aCol == 1 {
		for i := range mb {
			copy(dst[i*kb:][:kb], p.a[(ic+i)*p.aRow+pc:])
		}
		clear(dst[mb*kb : whole*kb])
		aRow, aCol = kb, 1
	} else {
		for i := 0; i < mb; i += t.rows {
			to, n := dst[i*kb:], min(t.rows, mb-i)
			if n == t.rows && t.packA != nil {
				t.packA(to, p.a[pc*p.aCol+ic+i:], kb, p.aCol)
				continue
			}
			for q := range kb {
				copy(to[q*t.rows:][:n], p.a[(pc+q)*p.aCol+ic+i:])
				clear(to[q*t.rows+n : (q+1)*t.rows])
			}
		}
		aRow, aCol = 1, t.rows
	}
	return aRow, aCol
}

// packB copies kb rows from pc of B, nb columns from jc, in panels of t.cols
// columns, zeros right of the last.
func (p *product[T]) packB(t *tiles[T], dst []T, pc, kb, jc, nb int) {
	for j := 0; j < nb; j += t.cols {
		to, n := dst[j*kb:], min(t.cols, nb-j)
		if p.bCol == 1 {
			for q := range kb {
				copy(to[q*t.cols:][:n], p.b[(pc+q)*p.bRow+jc+j:])
				clear(to[q*t.cols+n : (q+1)*t.cols])
			}
			continue
		}
		from, done := p.b[(jc+j)*p.bCol+pc:], 0
		if n == t.cols && t.packB != nil {
			done = t.packB(to, from, kb, t.cols, p.bCol)
		}
		for q := done; q < kb; q++ {
			row := to[q*t.cols:][:t.cols]
			for i := range n {
				row[i] = from[i*p.bCol+q]
			}
			clear(row[n:])
		}
	}
}
