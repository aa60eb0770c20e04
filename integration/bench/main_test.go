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
