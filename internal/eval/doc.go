// Package eval judges language models by the conventions of the field, each stated in the result: the same text gives another perplexity
// with another window, stride or beginning.
package eval
