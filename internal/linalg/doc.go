// Package linalg holds the factorisations that methods need, over the matrix products of package tensor and in float64: the same bits on every
// machine. Everything outside of those products is plain Go in a fixed order, with no step that a compiler may fuse.
package linalg
