//go:build !amd64 || noasm

package tensor

// tableBatch is empty: there is no vector code.
type tableBatch struct{}

func (k *Kernels) servesTable(DType, int) bool { return false }

func (k *Kernels) runsAbsmaxVector([]float32, []byte, DType, int) int { return -1 }

func newTableBatch(*Table4) *tableBatch { return nil }

func (*tableBatch) row(*Kernels, *TableResult, []byte, int, int, int, int, []float32, []float32) {}
