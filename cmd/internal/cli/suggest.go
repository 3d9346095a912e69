package cli

import (
	"strconv"
	"strings"
)

// maxSuggest bounds the words nearest compares, since its cost is their product.
const maxSuggest = 64

// nearest returns the candidate a person most likely meant, or "" when none is
// close: at most a third of the word may differ, or it is a beginning.
func nearest(word string, candidates []string) string {
	if word == "" || len(word) > maxSuggest {
		return ""
	}
	best, bestCost := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if len(c) > maxSuggest || len(c) < 2 {
			continue
		}
		cost := distance(word, c)
		if len(word) > 1 && strings.HasPrefix(c, word) {
			cost = 1
		}
		if cost < bestCost {
			best, bestCost = c, cost
		}
	}
	return best
}

// distance counts insertions, deletions, replacements and swapped neighbours.
func distance(a, b string) int {
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			differs := 0
			if a[i-1] != b[j-1] {
				differs = 1
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differs)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// quote shows a word a person typed, shortened, safe for a terminal.
func quote(word string) string {
	const most = 40
	if len(word) > most {
		word = word[:most] + "..."
	}
	return strconv.Quote(word)
}
