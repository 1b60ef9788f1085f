// Package lowrank holds methods that write a weight matrix as a product of two thin ones, or add such a product to it.
package lowrank
