package operation

import (
	"fmt"
	"testing"
	"time"

	"github.com/shardpress/shardpress/shard"
)

// TestManyTensors lays out a file of many small tensors, every one of which is
// looked up: comparing each name with each would take many times the limit.
func TestManyTensors(t *testing.T) {
	t.Parallel()
	const n = 60_000
	p := &EncodeParams{}
	for i := range n {
		name := fmt.Sprintf("model.layers.0.a_rather_long_name_that_all_of_them_begin_with.%05d", i)
		p.Tensors = append(p.Tensors, shard.Tensor{Name: name, DType: shard.BF16, Shape: []int64{4}, Offset: int64(8 * i), Length: 8})
		p.Items = append(p.Items, Item{Copy: name})
	}
	begin := time.Now()
	l, err := p.Layout()
	if err != nil || len(l.Items) != n {
		t.Fatalf("%d items, %v", len(l.Items), err)
	}
	if took := time.Since(begin); took > 5*time.Second { // a fraction of a second, on a machine that has something else to do
		t.Errorf("laid out in %v", took)
	}
}
