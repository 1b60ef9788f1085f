package quantize

import (
	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// eachRow passes over the rows of a panel as float32; x has room for one.
func eachRow(l compress.Linear, p compress.Panel, x []float32, each func(row int, x []float32)) error {
	if err := p.Validate(l); err != nil {
		return err
	}
	n := 0
	if p.Rows > 0 {
		n = len(p.Data) / p.Rows
	}
	for row := range p.Rows {
		one := compress.Panel{Row: p.Row + int64(row), Rows: 1, Cols: p.Cols, DType: p.DType, Data: p.Data[row*n:][:n]}
		if err := one.Floats(l, x); err != nil {
			return err
		}
		each(row, x[:p.Cols])
	}
	return nil
}

// strategyParameters are those of methods whose scales belong to rows or to groups of their columns.
func strategyParameters(group int64) []compress.Parameter {
	return []compress.Parameter{
		{
			Name: "strategy", Kind: compress.ParameterString, Default: compress.StrategyGroup,
			Choices: []string{compress.StrategyChannel, compress.StrategyGroup},
			Doc:     "what shares a scale: an output channel (a row), or a group of columns of a row",
		},
		{
			Name: "group", Kind: compress.ParameterInt, Default: group, Min: 1, Max: 1 << 20,
			When: "strategy", Is: compress.StrategyGroup, Doc: "columns that share a scale; has to divide the columns of every target",
		},
	}
}

// checkStrategy refuses a group without a strategy for it.
func checkStrategy(strategy string, group int64) error {
	switch strategy {
	case compress.StrategyGroup:
		if group < 1 {
			return compress.Invalidf("group is %d, and takes a whole number from 1", group)
		}
	case compress.StrategyChannel:
		if group != 0 {
			return compress.Invalidf("group is %d, and has a meaning only with strategy=group", group)
		}
	default:
		return compress.Invalidf("strategy is %q, and takes channel, group", strategy)
	}
	return nil
}

// columnsOfScale is how many columns of l share a scale.
func columnsOfScale(l compress.Linear, strategy string, group int64) (int64, error) {
	if strategy == compress.StrategyChannel {
		return l.Cols, nil
	}
	if l.Cols%group != 0 {
		return 0, compress.Invalidf("encode %s: its %d columns do not divide into groups of %d: %s", l.Name, l.Cols, group, groupsThatFit(l.Cols))
	}
	return group, nil
}

// rounded is the float32 that is stored in d for v: finite, as d's largest number stands for what is larger.
func rounded(v float32, d tensor.DType) float32 {
	var b [4]byte
	x := [1]float32{v}
	tensor.FromFloat32(b[:d.Size()], x[:], d)
	tensor.ToFloat32(x[:], b[:d.Size()], d)
	huge := float32(0x1.fffffep127)
	switch d {
	case tensor.F16:
		huge = 65504
	case tensor.BF16:
		huge = 0x1.fep127
	}
	return min(max(x[0], -huge), huge)
}

// storeFloat writes v, which rounded has made exact, as element i of dst.
func storeFloat(dst []byte, i int, v float32, d tensor.DType) {
	x := [1]float32{v}
	tensor.FromFloat32(dst[i*d.Size():][:d.Size()], x[:], d)
}

// squares gives Σ(x − x̂)² and Σx², in the order of x.
func squares(x, decoded []float32) (err2, pow2 float64) {
	for i, v := range x {
		e := float64(v) - float64(decoded[i])
		err2 += float64(e * e)
		pow2 += float64(float64(v) * float64(v))
	}
	return err2, pow2
}
