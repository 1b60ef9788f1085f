package operation

import (
	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/shard"
)

// panelBytes is how much of a source is worked on at a time. It stays in a core's
// second-level cache between reading and encoding.
const panelBytes = 512 << 10

// rowsAt is how many rows make a panel: whole units of the method, about panelBytes.
// A row longer than that is a panel by itself.
func rowsAt(row, unit int64) int {
	unit = max(unit, 1)
	n := max(panelBytes/max(row, 1), 1)
	return int(max(n/unit, 1) * unit)
}

// panelNeed is the memory in bytes for a panel of a linear: of the source's rows in
// whole units, the scales that they are read with, and for each row what it becomes.
func panelNeed(m *shard.Manifest, l shard.Linear, unit, becomes int64) (int64, error) {
	row, err := m.RowBytes(l)
	if err != nil {
		return 0, err
	}
	rows := min(int64(rowsAt(row, unit)), l.Rows)
	need := max(rows*row, panelBytes) + rows*becomes
	if b := l.ScaleBlock; l.Scale != "" && b[0] > 0 && b[1] > 0 {
		// A panel touches at most rows/b[0]+2 rows of scales, stored in up to 4 bytes
		// and read as float32.
		need += (rows/b[0] + 2) * (l.Cols/b[1] + 1) * (4 + 4)
	}
	return need, nil
}

// need is the memory in bytes for encoding a linear, without what waits for its
// place in the file. stored is the type that a dense result has.
func (x EncodedLayout) need(m *shard.Manifest, stored shard.DType) (int64, error) {
	becomes := int64(8 + 8) // the sums of its error and power
	var whole int64
	for _, c := range x.Layout.Components {
		switch {
		case c.Whole:
			whole += c.Bytes() // the method's own
		case c.Ragged:
			becomes += raggedRow(c, x.Linear.Cols)
		default:
			becomes += c.RowBytes()
		}
	}
	switch x.Format {
	case FormatDense:
		becomes += x.Linear.Cols * (4 + stored.Size()) // decoded, and as it is stored
	case FormatInt:
		becomes += x.Linear.Cols
	}
	n, err := panelNeed(m, x.Linear, x.Layout.RowUnit, becomes)
	n += whole + x.Layout.Scratch
	if len(x.Share) > 1 {
		n += int64(len(x.Share)-1) * (whole + x.Layout.Scratch)
	}
	if err != nil {
		return 0, err
	}
	for _, peer := range x.Share { // their rows are read, one after another
		read, err := panelNeed(m, peer, 1, 0)
		if err != nil {
			return 0, err
		}
		n = max(n, read+whole+x.Layout.Scratch)
	}
	return n, nil
}

// raggedRow bounds a row's part of a ragged component, in bytes: some rows have more than others, up to an element for each weight.
func raggedRow(c compress.Component, cols int64) int64 {
	c.Shape = []int64{cols}
	return c.Bytes()
}

// aside is the size of what an encoded module has beside what streams, in bytes.
func (it *ItemLayout) aside() int64 {
	var n int64
	for i, t := range it.Tensors {
		if it.module != nil && it.module[i] != it.stream {
			b, _ := t.Bytes() // one that has no size is refused when the file is arranged
			n += b
		}
	}
	return n
}

// waiting is how much of it may wait until all other items are written: arrange puts
// tensors that keep nothing aligned at the end of the file. Where what streams is not among
// them, the rest is written right after it.
func (it *ItemLayout) waiting() int64 {
	var last int64
	for i, t := range it.Tensors {
		b, _ := t.Bytes()
		switch {
		case it.module == nil || b%8 == 0:
		case it.module[i] == it.stream:
			return it.aside()
		default:
			last += b
		}
	}
	return last
}
