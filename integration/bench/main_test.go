package main

import "testing"

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
		{Result{Optbuild: 9, Bound: 8}, "≤ 8 missed"},
		{Result{Optbuild: 9, Stock: 10, Ratio: 0.9, Bound: 0.8}, "≤ 0.8 missed"},
		{Result{Optbuild: 0, Bound: nothing}, "≤ 0"},
		{Result{Optbuild: 1, Bound: nothing}, "≤ 0 missed"},
	} {
		if got := c.r.bound(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.r, got, c.want)
		}
	}
}
