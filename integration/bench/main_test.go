package main

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

func TestSummarise(t *testing.T) {
	r := summarise("x", "ms", []float64{30, 10, 20, 40}, []float64{20, 20, 20, 20}, 1)
	if r.Optbuild != 25 || r.Stock != 20 || r.Ratio != 1.25 {
		t.Errorf("got %+v, want medians 25 and 20, ratio 1.25", r)
	}
	if r.Spread != 0.75 { // of 0.5, 1, 1.5, 2: quartiles 0.875 and 1.625
		t.Errorf("spread %v, want 0.75", r.Spread)
	}
	if r := summarise("x", "ms", []float64{3, 1, 2}, nil, 15); r.Optbuild != 2 || r.Ratio != 0 {
		t.Errorf("got %+v, want median 2 and no ratio", r)
	}
}

func TestInterval(t *testing.T) {
	if low, high := interval([]float64{2, 3}, []float64{1, 1}); low != 0 || high != 0 {
		t.Errorf("of 2 pairs: %v to %v, want none", low, high)
	}
	// Both sides are slow at the same time: the ratio is certain, though the times are not.
	if low, high := interval([]float64{1, 2, 4, 8}, []float64{2, 4, 8, 16}); low != 0.5 || high != 0.5 {
		t.Errorf("of equal pairs: %v to %v, want 0.5 to 0.5", low, high)
	}
	low, high := interval([]float64{9, 10, 11, 10, 12}, []float64{10, 10, 10, 10, 10})
	if low >= 1 || high <= 1 || low < 0.9 || high > 1.2 {
		t.Errorf("of 0.9 to 1.2: %v to %v, want 1 between them", low, high)
	}
}

func TestBound(t *testing.T) {
	for _, c := range []struct {
		r    Result
		want string
	}{
		{Result{Optbuild: 7}, ""},
		{Result{Optbuild: 7, Bound: 8}, "≤ 8"},
		{Result{Optbuild: 9, Bound: 8}, "≤ 8 missed?"},
		{Result{Optbuild: 9, Bound: 8, Low: 8.5, High: 9.5}, "≤ 8 missed"},
		{Result{Optbuild: 9, Bound: 8, Low: 7, High: 9.5}, "≤ 8 missed?"},
		{Result{Optbuild: 9, Stock: 10, Ratio: 0.9, Bound: 0.8}, "≤ 0.8 missed?"},
		{Result{Optbuild: 9, Stock: 10, Ratio: 0.9, Bound: 0.8, Low: 0.85, High: 1.2}, "≤ 0.8 missed"},
		{Result{Optbuild: 0, Bound: nothing}, "≤ 0"},
		{Result{Optbuild: 1, Bound: nothing}, "≤ 0 missed"},
	} {
		if got := c.r.bound(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.r, got, c.want)
		}
	}
}

func TestClaim(t *testing.T) {
	for _, c := range []struct {
		r    Result
		want string
	}{
		{Result{Optbuild: 7}, ""},
		{Result{Stock: 1, Ratio: 0.5}, claimOpen},                                  // too few runs
		{Result{Stock: 1, Ratio: 0.5, Low: 0.4, High: 1.1}, claimOpen},             // perhaps not
		{Result{Stock: 1, Ratio: 0.5, Low: 0.4, High: 0.9}, claimLess},             // below 1
		{Result{Stock: 1, Ratio: 1.5, Low: 1.1, High: 2}, claimMore},               // above 1
		{Result{Stock: 1, Ratio: 0.5, Low: 0.4, High: 0.9, Bound: 0.6}, claimOpen}, // the bar is the bound
		{Result{Stock: 1, Ratio: 0.5, Low: 0.4, High: 0.6, Bound: 0.6}, claimHeld},
		{Result{Stock: 1, Ratio: 0.8, Low: 0.7, High: 0.9, Bound: 0.6}, claimMissed},
		{Result{Optbuild: 10, Low: 9, High: 11, Bound: 15}, claimHeld}, // nothing to compare with
		{Result{Optbuild: 10, Low: 9, High: 11, Bound: 10}, claimOpen},
	} {
		if got := c.r.claim(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.r, got, c.want)
		}
	}
}

func TestSelection(t *testing.T) {
	list := []*one{
		{name: "help", scenario: "S0"}, {name: "S1 W1", scenario: "S1", workload: "W1"}, {name: "S3 W1", scenario: "S3", workload: "W1"},
		{name: "S3 W2", scenario: "S3", workload: "W2"}, {name: "S10", scenario: "S10"}, {name: "pair-go"}, {name: "export-5g", asked: true},
	}
	for _, c := range []struct{ pattern, words, want string }{
		{"", "", "help, S1 W1, S3 W1, S3 W2, S10, pair-go"},
		{"", "S3", "S3 W1, S3 W2"},
		{"", "W1", "S1 W1, S3 W1"},
		{"", "S3 W1", "S3 W1"},
		{"", "S1 S3 W1 W2", "S1 W1, S3 W1, S3 W2"},
		{"W2", "S3", "S3 W2"},
		{"export-", "", "export-5g"},
		{"^S1", "", "S1 W1, S10"},
	} {
		s, err := newSelection(c.pattern, strings.Fields(c.words))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range list {
			if s.has(o) {
				got = append(got, o.name)
			}
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("-run %q %s: %s; want %s", c.pattern, c.words, text, c.want)
		}
	}
	for _, words := range []string{"S11", "W7", "W0", "S3W1", "-n"} {
		if _, err := newSelection("", []string{words}); err == nil {
			t.Errorf("%s is no error", words)
		}
	}
}

// TestTable looks at the rows of the whole table: names are unique, what people select by exists, and names of workloads can be parts of names of images.
func TestTable(t *testing.T) {
	dir := t.TempDir()
	b := &bench{options: options{App: "../demo/app", Dir: dir}}
	list, err := cases(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	names, scenarios, workloads := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range list {
		// Rows that compare one thing with two others have one name.
		if key := c.name + "/" + c.against; names[key] {
			t.Errorf("there are two cases %q", key)
		} else {
			names[key] = true
		}
		scenarios[c.scenario], workloads[c.workload] = true, true
		if c.matrix != nil {
			if _, err := name.ParseReference("127.0.0.1:1/"+strings.ToLower(c.matrix.workload.name)+"-naive/x:latest", name.Insecure); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	for _, want := range strings.Fields("S0 S1 S2 S3 S4 S5 S6 S7 S8 S9 S10") {
		if !scenarios[want] {
			t.Errorf("no case is about %s", want)
		}
	}
	for _, want := range strings.Fields("W1 W2 W3 W4 W5 W6") {
		if !workloads[want] {
			t.Errorf("no case is about %s", want)
		}
	}
}
