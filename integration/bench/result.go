package main

import (
	"cmp"
	"fmt"
)

// Result is one row: what was measured, for both sides, and the bound that it is held to.
type Result struct {
	Case     string  `json:"case"`
	Unit     string  `json:"unit"`
	Optbuild float64 `json:"optbuild"` // median
	Stock    float64 `json:"stock"`    // median; 0 where there is nothing to compare with
	// Against is what Stock is the median of; "" is the same build with stock BuildKit. "by hand" is a Dockerfile that an expert wrote, with
	// stock BuildKit; "unwatched" optbuild without watching steps.
	Against string  `json:"against,omitempty"`
	Ratio   float64 `json:"ratio"` // Optbuild / Stock
	// Bound is the largest ratio (without Stock: value) that the project allows; 0 means that there is none.
	Bound float64 `json:"bound,omitempty"`
	Runs  int     `json:"runs"`
	// Spread is the distance of the quartiles of the ratios of neighbouring runs: how far to trust Ratio.
	Spread float64 `json:"spread"`
	Best   float64 `json:"best,omitempty"` // the smallest of those ratios
	Worst  float64 `json:"worst,omitempty"`
	// Low and High are between which the ratio (without Stock: the value) lies, with a confidence of 95 %, if these runs are like others. 0 with fewer
	// than 3 runs.
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
}

// nothing is the bound of what has to be 0.
const nothing = -1

// String is the row as one line, for those who wait.
func (r Result) String() string {
	if r.Stock == 0 {
		return fmt.Sprintf("%s: %s %s %s", r.Case, figure(r.Optbuild), r.Unit, r.bound())
	}
	return fmt.Sprintf("%s: %s %s, %s %s: ratio %.2f %s %s",
		r.Case, figure(r.Optbuild), r.Unit, cmp.Or(r.Against, "stock"), figure(r.Stock), r.Ratio, r.interval(), r.bound())
}

// interval says how far the ratio can be trusted.
func (r Result) interval() string {
	if r.High == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f–%.2f", r.Low, r.High)
}

// bound says what the row is held to, and whether that was missed: with a question mark, where too few runs were made to say so.
func (r Result) bound() string {
	if r.Bound == 0 {
		return ""
	}
	limit := r.limit()
	bound := fmt.Sprintf("≤ %.3g", limit)
	value := r.Optbuild
	if r.Stock > 0 {
		value = r.Ratio
	}
	switch {
	case r.claim() == claimMissed || value > limit && r.Bound == nothing:
		bound += " missed"
	case value > limit:
		bound += " missed?"
	}
	return bound
}

// limit is what Bound allows.
func (r Result) limit() float64 { return max(r.Bound, 0) }

// Claims that results make. Where the interval includes the bar, or where there is none, nothing is claimed.
const (
	claimHeld   = "held"   // below the bound
	claimMissed = "missed" // above it
	claimLess   = "less"   // than what it is compared with; there is no bound
	claimMore   = "more"
	claimOpen   = "open"
)

// claim is what the interval allows to say: of the bound, or, where there is none, of who needs less.
func (r Result) claim() string {
	bar, below, above := r.limit(), claimHeld, claimMissed
	if r.Bound == 0 {
		if r.Stock == 0 {
			return ""
		}
		bar, below, above = 1, claimLess, claimMore
	}
	switch {
	case r.High == 0 && r.Low == 0:
		return claimOpen
	case r.High < bar || r.High == bar && r.Bound != 0: // a bound may be reached
		return below
	case r.Low > bar:
		return above
	}
	return claimOpen
}

// figure writes a measure with as many digits as there is to see.
func figure(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}
