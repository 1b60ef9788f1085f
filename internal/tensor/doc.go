// Package tensor holds what everything else computes with: element types of
// safetensors files, exact conversions, bit packing, the kernels that turn
// weights into integer codes, and products and decompositions of matrices.
//
// Output bytes are part of the contract. Every kernel of a numeric class (plain
// Go, AVX2, AVX-512) gives the same bits for the same input, and so does every
// build of this package: a step that must be fused is [FMA32], a step that must
// not be is written float32(x*y) + z, because the compiler is otherwise free to
// choose by architecture level.
package tensor
