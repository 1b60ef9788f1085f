//go:build !amd64 || noasm

package tensor

// tableBatch is empty: there is no vector code.
type tableBatch struct{}

func (k *Kernels) servesTable(DType, int) bool { return false }

func (k *Kernels) runsAbsmaxVector([]float32, []byte, DType, int) int { return -1 }

func (*tableBatch) fill(*Table4) {}

func (*tableBatch) row(*Kernels, *TableResult, []byte, int, int, int, []float32, []float32) {}
