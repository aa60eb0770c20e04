package main

import (
	"math/rand/v2"
	"slices"
)

// summarise makes a row from runs of both sides that were made in turn.
func summarise(name, unit string, ours, stock []float64, bound float64) Result {
	r := Result{Case: name, Unit: unit, Optbuild: median(ours), Bound: bound, Runs: len(ours)}
	if len(stock) == 0 {
		r.Spread = quantile(ours, 0.75) - quantile(ours, 0.25)
		ones := make([]float64, len(ours))
		for i := range ones {
			ones[i] = 1
		}
		r.Low, r.High = interval(ours, ones)
		return r
	}
	r.Stock = median(stock)
	if slices.Contains(stock, 0) { // there is no ratio to nothing
		return r
	}
	r.Ratio = r.Optbuild / r.Stock
	var pairs []float64
	for i := range ours {
		pairs = append(pairs, ours[i]/stock[i])
	}
	r.Spread, r.Best, r.Worst = quantile(pairs, 0.75)-quantile(pairs, 0.25), slices.Min(pairs), slices.Max(pairs)
	r.Low, r.High = interval(ours, stock)
	return r
}

// interval is the bootstrap's for the ratio of the medians: what it would have been, had other ones of these pairs been measured, some of them more than
// once. The same pairs give the same interval.
func interval(ours, stock []float64) (low, high float64) {
	if len(ours) < 3 {
		return 0, 0
	}
	r := rand.New(rand.NewPCG(1, 1))
	var ratios []float64
	some, other := make([]float64, len(ours)), make([]float64, len(ours))
	for range 2000 {
		for i := range some {
			k := r.IntN(len(ours))
			some[i], other[i] = ours[k], stock[k]
		}
		ratios = append(ratios, median(some)/median(other))
	}
	return quantile(ratios, 0.025), quantile(ratios, 0.975)
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile interpolates between the values around the place q (0..1) in order.
func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}
