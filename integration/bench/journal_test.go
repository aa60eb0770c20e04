package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// binaries makes files that stand for what is measured.
func binaries(t *testing.T, text string) options {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"optbuild", "buildkitd", "buildctl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return options{Optbuild: filepath.Join(dir, "optbuild"), Stock: dir, Runs: 3}
}

// TestResume has benches that are killed, and others that go on.
func TestResume(t *testing.T) {
	path, o := filepath.Join(t.TempDir(), "below", "bench.jsonl"), binaries(t, "one")
	open := func(o options, again bool) *journal {
		t.Helper()
		j, err := openJournal(path, o, again)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	first := open(o, false)
	for _, name := range []string{"S1 W1", "S2 W1"} {
		if _, kept := first.find(name); kept {
			t.Errorf("%s is done before anything was", name)
		}
		if _, err := first.add(entry{Case: name, Time: time.Unix(1, 0).UTC(), Builds: []Build{{Side: subject, Seconds: 2}}}); err != nil {
			t.Fatal(err)
		}
	}
	first.close()
	// Killed in the middle of a line.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)-20], 0o644); err != nil {
		t.Fatal(err)
	}
	second := open(o, false)
	if e, kept := second.find("S1 W1"); !kept || len(e.Builds) != 1 || e.Builds[0].Seconds != 2 {
		t.Errorf("what was finished is not there: %+v", e)
	}
	if _, kept := second.find("S2 W1"); kept {
		t.Error("half a line counts as a finished case")
	}
	if _, err := second.add(entry{Case: "S2 W1"}); err != nil {
		t.Fatal(err)
	}
	second.close()
	third := open(o, false)
	for _, name := range []string{"S1 W1", "S2 W1"} {
		if _, kept := third.find(name); !kept {
			t.Errorf("%s is not done after the second bench", name)
		}
	}
	third.close()
	other := o
	other.Runs = 11
	for why, j := range map[string]*journal{"other binaries": open(binaries(t, "two"), false), "more runs": open(other, false), "-again": open(o, true)} {
		if _, kept := j.find("S1 W1"); kept {
			t.Errorf("%s: what was measured before counts", why)
		}
		j.close()
	}
	entries, err := readJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("%d cases in the file, want 2: %+v", len(entries), entries)
	}
}

// invented are a cell of the matrix and another case.
func invented() []entry {
	var builds []Build
	for round, times := range [][3]float64{{1, 2, 0.1}, {1.1, 2.2, 0.1}, {0.9, 1.8, 0.1}} {
		builds = append(builds,
			Build{Side: "stock/by-hand", Round: round, Seconds: times[1], ProcessorSeconds: 2 * times[1], ImageBytes: 2e6},
			Build{Side: subject, Round: round, Seconds: times[0], ProcessorSeconds: times[0], ImageBytes: 1e6},
			Build{Side: "floor", Round: round, Seconds: times[2]})
	}
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []entry{
		{Case: "S3 W1", What: "one source file changed: npm <&>", Time: when, Binaries: "b", Builds: builds, Results: compare("S3 W1", builds, map[string]float64{"stock/by-hand": 1})},
		{Case: "export-gzip", Time: when, Binaries: "b", Results: []Result{summarise("export-gzip, time", "ms", []float64{30, 31, 32}, []float64{60, 60, 60}, 0.4)}},
	}
}

func TestCompare(t *testing.T) {
	e := invented()[0]
	find := func(name, against string) Result {
		t.Helper()
		for _, r := range e.Results {
			if r.Case == name && r.Against == against {
				return r
			}
		}
		t.Fatalf("there is no %s against %s", name, against)
		return Result{}
	}
	if r := find("S3 W1, time", "stock/by-hand"); r.Ratio != 0.5 || r.Bound != 1 || r.claim() != claimHeld || r.Runs != 3 {
		t.Errorf("time: %+v", r)
	}
	if r := find("S3 W1, processor time", "stock/by-hand"); r.Ratio != 0.25 || r.Bound != 0 || r.claim() != claimLess {
		t.Errorf("processor time: %+v", r)
	}
	if r := find("S3 W1, image", "floor"); r.Ratio != 0 || r.High != 0 {
		t.Errorf("a ratio to nothing: %+v", r)
	}
	if got, want := strings.Join(sidesOf(e.Builds), " "), "optbuild/naive stock/by-hand floor"; got != want {
		t.Errorf("sides are %s, want %s", got, want)
	}
}

func TestPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.html")
	if err := writePage(path, invented()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"S3 W1", "npm &lt;&amp;&gt;", "stock/by-hand", "export-gzip, time", ">0.50<", `<td class="less"`, `class="missed"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"http://", "https://", "<script", "@import", "url(", "NaN", "ZgotmplZ"} {
		if strings.Contains(string(text), not) {
			t.Errorf("the page has %q", not)
		}
	}
}
