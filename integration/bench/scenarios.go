package main

import "strconv"

// scenario is what has happened since the last build, or that there was none. Scenarios and workloads make the matrix: each row of one table with each
// row of the other.
type scenario struct {
	name string // "S3": what people select by; several may have one
	what string // for those who read the results
	cold bool   // there was no build
	// change is made before each build, another one each time; nil if there is none.
	change func(w *workload, p *project) error
	// floor is true if what no builder can beat is known: see the program floor.
	floor bool
	long  bool // a third of the runs
	// bound is what the project holds the naive Dockerfile under optbuild to, in time, against the one by hand under stock BuildKit. 0: nothing
	bound float64
}

var (
	coldBuild = scenario{name: "S1", what: "cold", cold: true, long: true, bound: 0.8}
	noOp      = scenario{name: "S2", what: "nothing changed", floor: true, bound: 1}
	oneEdit   = scenario{name: "S3", what: "one source file changed", floor: true, long: true, bound: 1,
		change: func(_ *workload, p *project) error { return p.edited() }}
	newManifest = scenario{name: "S5", what: "a dependency dropped or added, warm", long: true, bound: 1,
		change: func(w *workload, p *project) error {
			p.serial++
			return w.manifest(p, p.serial)
		}}
)

// matrixCases are the scenarios on projects as people have them, and two of them on contexts with very many files.
func (b *bench) matrixCases() (list []*one) {
	for _, w := range b.workloads() {
		for _, s := range []scenario{coldBuild, noOp, oneEdit, newManifest} {
			if s.name == "S5" && w.manifest == nil {
				continue
			}
			list = append(list, b.cell(s, w, s.name+" "+w.name))
		}
	}
	for _, files := range []int{10_000, 100_000} {
		w := b.filesWorkload(files)
		for _, s := range []scenario{noOp, oneEdit} {
			what := s.what
			s.name, s.bound, s.long = "S8", 1, true
			s.what = "context of " + strconv.Itoa(files) + " files, " + what
			list = append(list, b.cell(s, w, "S8 "+strconv.Itoa(files)+" files, "+what))
		}
	}
	return list
}
