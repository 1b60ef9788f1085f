// Package quantize holds the methods that put weights on a grid, one method a file, arithmetic only.
package quantize
