package operation

import (
	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/shard"
)

// Quantized describes an encoded linear to the formats.
func Quantized(x EncodedLayout) (shard.QuantizedLinear, error) {
	q := shard.QuantizedLinear{
		Name: x.Linear.Name, Rows: x.Linear.Rows, Cols: x.Linear.Cols,
		Scheme: formatScheme(x.Layout.Scheme), Format: shard.Format(x.Format),
	}
	for _, c := range x.Layout.Components {
		q.Components = append(q.Components, shard.Component{Name: c.Name, DType: shard.DType(c.DType), Shape: c.Shape})
	}
	var err error
	if q.Format == shard.FormatShardpress {
		q.Description, err = compress.MarshalScheme(x.Layout.Scheme)
	}
	return q, err
}

// formatScheme says what formats of engines need to know of a scheme. Those that no engine has are in
// the result as they are.
func formatScheme(s compress.Scheme) shard.Scheme {
	switch s := s.(type) {
	case compress.Int:
		return shard.Scheme{
			Kind: shard.KindInt, Bits: s.Bits, Symmetric: s.Symmetric, Strategy: s.Strategy, Group: s.Group, ScaleDType: shard.DType(s.ScaleDType),
		}
	case compress.Float:
		return shard.Scheme{
			Kind: shard.KindFloat, Bits: 8, Symmetric: true, Strategy: s.Strategy, Block: [2]int64{s.BlockRows, s.BlockCols},
			ScaleDType: shard.DType(s.ScaleDType), Element: shard.DType(s.Element),
		}
	case compress.MXFP8:
		return shard.Scheme{Kind: shard.KindMXFP8, Bits: 8, Symmetric: true, Element: shard.F8E4M3}
	case compress.Codebook:
		return shard.Scheme{
			Kind: shard.KindCodebook, Bits: s.CodeBits(), Table: s.Table, Group: s.Block, Nested: s.Nested, Element: shard.DType(s.DType),
		}
	}
	return shard.Scheme{Kind: s.Kind(), Bits: s.CodeBits()}
}
