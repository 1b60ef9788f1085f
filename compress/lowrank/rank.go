package lowrank

import (
	"github.com/shardpress/shardpress/compress"
)

// Choices of Rank.By.
const (
	ByRatio = "ratio"
	ByRank  = "rank"
	// ByEnergy is for SVD alone: how wide the factors become is known only once the weights have been read.
	ByEnergy = "energy"
)

// Rank says how wide factors are.
type Rank struct {
	By    string  `json:"by"`
	Ratio float64 `json:"ratio,omitempty"` // of the parameters that go, with ByRatio
	Rank  int64   `json:"rank,omitempty"`  // with ByRank
}

// rankParameters describes Rank, with a default ratio.
func rankParameters(ratio float64) []compress.Parameter {
	return []compress.Parameter{
		{Name: "by", Kind: compress.ParameterString, Default: ByRatio, Choices: []string{ByRatio, ByRank}, Doc: "what sets the rank: the parameters that go, or a number"},
		{
			Name: "ratio", Kind: compress.ParameterFloat, Default: ratio, Min: 0.01, Max: 0.99, When: "by", Is: ByRatio,
			Doc: "part of a linear's parameters that goes: the rank is ⌊(1 − ratio)·rows·cols/(rows + cols)⌋",
		},
		{Name: "rank", Kind: compress.ParameterInt, Default: int64(64), Min: 1, Max: 1 << 20, When: "by", Is: ByRank, Doc: "columns of the left factor, rows of the right one"},
	}
}

// Validate refuses what fits no linear.
func (r Rank) Validate() error {
	switch r.By {
	case ByRatio:
		if !(r.Ratio >= 0.01 && r.Ratio <= 0.99) || r.Rank != 0 {
			return compress.Invalidf("ratio is %g, and takes a number from 0.01 to 0.99, without a rank", r.Ratio)
		}
	case ByRank:
		if r.Rank < 1 || r.Ratio != 0 {
			return compress.Invalidf("rank is %d, and takes a whole number from 1, without a ratio", r.Rank)
		}
	default:
		return compress.Invalidf("by is %q, and takes ratio, rank", r.By)
	}
	return nil
}

// of is the rank for l.
func (r Rank) of(l compress.Linear) (int64, error) {
	if err := l.Validate(); err != nil {
		return 0, err
	}
	full := min(l.Rows, l.Cols)
	if r.By == ByRatio {
		// Rows and columns are below 2^52 together: the product is exact enough for a floor that nobody relies on at an edge.
		n := int64((1 - r.Ratio) * (float64(l.Rows) * float64(l.Cols) / float64(l.Rows+l.Cols)))
		return min(max(n, 1), full), nil
	}
	if r.Rank > full {
		return 0, compress.Invalidf("encode %s: rank %d of a matrix of %d × %d: its full rank is %d; use rank=%d or less",
			l.Name, r.Rank, l.Rows, l.Cols, full, full)
	}
	return r.Rank, nil
}
