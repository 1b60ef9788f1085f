// Package prune holds the methods that take weights out of a matrix, one a file.
package prune
