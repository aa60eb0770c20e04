package trace

import "testing"

func TestComparePaths(t *testing.T) {
	sorted := []string{".", "\x01", "-", ".a", "a", "a/-", "a/b", "a/b/c", "a/b-", "a\x01", "a-", "ab", "\xff"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got, want := ComparePaths(a, b), min(1, max(-1, i-j)); got != want {
				t.Errorf("%q, %q: got %d, want %d", a, b, got, want)
			}
		}
	}
}
