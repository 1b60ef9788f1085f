// Package models carries the bundled models inside the program, so that the demo
// works wherever the binary is.
package models

import "embed"

// Story is a small Llama that tells stories, story/ the checkpoint's directory.
//
//go:embed story
var Story embed.FS
