package recipe

import (
	"maps"
	"slices"
	"strings"
)

// didYouMean ends a sentence about an unknown name: the known name it comes nearest to, else all of them.
func didYouMean(name string, known []string) string {
	if n := nearest(name, known); n != "" {
		return ": did you mean " + n + "?"
	}
	return ", known are " + strings.Join(known, ", ")
}

// nearest gives the known name with the fewest edits, "" if it would take more than a third of the name; ties
// go to the first.
func nearest(name string, known []string) string {
	best, cost := "", max(2, len(name)/3)+1
	for _, k := range known {
		if len(k)-len(name) >= cost || len(name)-len(k) >= cost {
			continue // every missing byte is an edit
		}
		if d := edits(strings.ToLower(name), strings.ToLower(k)); d < cost {
			best, cost = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1) // cost of turning the read part of a into b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
