package main

import (
	"strings"
	"testing"
	"time"
)

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		whole, deeper bool
	}{
		{"*", "a", true, false},
		{"*", "a/b", false, false},
		{"a/*", "a", false, true},
		{"a/*", "a/b", true, false},
		{"./a//b/", "a/b", true, false},
		{"**", "a/b/c", true, true},
		{"**/*.py", "x.py", true, true},
		{"**/*.py", "a/b/x.py", true, true},
		{"**/*.py", "a/b", false, true},
		{"src/**/t?.go", "src/t1.go", true, true},
		{"src/**/t?.go", "lib", false, false},
		{"[ab].txt", "b.txt", true, false},
		{"[", "[", false, false},
		{"", "a", false, false},
	} {
		whole, deeper := parseGlob(c.pattern).match(c.name)
		if whole != c.whole || deeper != c.deeper {
			t.Errorf("%q on %q: %v, %v", c.pattern, c.name, whole, deeper)
		}
	}
}

func TestManyStarsCostNoTime(t *testing.T) {
	begin := time.Now()
	g := parseGlob(strings.Repeat("**/a/", 60) + "b")
	g.match(strings.Repeat("a/", 200) + "c")
	if took := time.Since(begin); took > 2*time.Second {
		t.Fatalf("took %v", took)
	}
}
