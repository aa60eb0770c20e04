package trace

import (
	"slices"
	"testing"
)

func TestWithoutClocks(t *testing.T) {
	names := []Name{{"2026-11-30T23_21_38_086Z-debug-0.log", 8}, {"2026-11-30T23_21_38_086Z-debug-0.log.old", 8}, {"other", 8}}
	for dir, want := range map[string]int{
		"root/.npm/_logs": 2, "home/node/.npm/_logs": 2, ".npm/_logs": 2, "root/.npm/_logs/a": 3, "root/x.npm/_logs": 3, "root/_logs": 3, "_logs": 3, ".": 3,
	} {
		if got := withoutClocks(dir, slices.Clone(names)); len(got) != want {
			t.Errorf("%s: got %v, want %d of them", dir, got, want)
		}
	}
}

// What npm leaves has another name each time; all else in its directory counts.
func TestCheckClocks(t *testing.T) {
	g := newGround(t)
	g.mkdir("root/.npm/_logs")
	log := "root/.npm/_logs/2026-11-30T23_21_38_086Z-debug-0.log"
	g.write(log, "x")
	l := g.capture(Seen{"root/.npm/_logs", Listed, 1})
	check := func(want string) {
		t.Helper()
		d, err := l.Check(g.dir, started)
		if err != nil || (d == nil) != (want == "") || d != nil && d.Name != want {
			t.Errorf("got %v, %v, want %q", d, err, want)
		}
	}
	check("")
	g.remove(log)
	g.write("root/.npm/_logs/2026-12-01T23_21_38_086Z-debug-0.log", "x")
	check("")
	g.write("root/.npm/_logs/other", "x")
	check("other")
}
