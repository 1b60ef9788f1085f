// Package imports holds no code, only the test of the layers: which package may import which, where the queue and the stores of
// other people are allowed, what arithmetic must not touch, and that the packages meant for others show no internal type.
// The table is in rules_test.go. A new package is added to it in the commit that creates it.
package imports
