package main

import (
	"encoding/json"
	"testing"
)

// TestNoRatioToNothing: counts of nothing are measured, too, and can be kept.
func TestNoRatioToNothing(t *testing.T) {
	r := summarise("requests", "requests", []float64{4, 5, 6}, []float64{0, 5, 5}, 0)
	if r.Optbuild != 5 || r.Stock != 5 || r.Ratio != 0 || r.High != 0 {
		t.Errorf("got %+v", r)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}
