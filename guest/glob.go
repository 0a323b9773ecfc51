package main

import (
	"path"
	"strings"
)

// glob is a pattern by path elements: "**" stands for any number of them, the rest is path.Match's.
type glob []string

func parseGlob(pattern string) glob {
	var g glob
	for part := range strings.SplitSeq(pattern, "/") {
		if part != "" && part != "." {
			g = append(g, part)
		}
	}
	return g
}

// match says whether name is meant, and whether something below it may be.
func (g glob) match(name string) (whole, deeper bool) {
	return matchParts(g, strings.Split(name, "/"))
}

// matchParts walks the pattern's possible places at once, so that many "**" cost no more than their number.
func matchParts(g glob, names []string) (whole, deeper bool) {
	at := make([]bool, len(g)+1)
	at[0] = true
	for _, name := range names {
		spread(g, at)
		next := make([]bool, len(g)+1)
		for i := range g {
			if !at[i] {
				continue
			}
			if g[i] == "**" {
				next[i] = true
			} else if ok, err := path.Match(g[i], name); ok && err == nil {
				next[i+1] = true
			}
		}
		at = next
	}
	for i := range g {
		deeper = deeper || at[i]
	}
	spread(g, at)
	return at[len(g)] && len(g) > 0, deeper
}

// spread lets each "**" stand for nothing.
func spread(g glob, at []bool) {
	for i := range g {
		if at[i] && g[i] == "**" {
			at[i+1] = true
		}
	}
}
