// Package opt rewrites plans: the compiler's passes.
//
// In come a plan, what is known of the world ([plan.Facts]) and the user's choices ([Options]); out come the rewritten plan and remarks that say
// what was done, what was refused and why. A pass is a row of a table; the rows' order is the order in which they run, and each says why it stands
// where it stands. Passes do no I/O. A pass that breaks what every plan must keep (plan.Check), or panics, costs the build its optimisation, never
// its result: Run then hands back the plan that came in.
//
// Weak where programs are: a pass knows a table of programs and refuses the rest.
package opt

import (
	"fmt"
	"slices"

	"github.com/optbuild/optbuild/frontend/plan"
)

// Keeps is how much of the result a rewrite leaves as stock BuildKit makes it. A lower value keeps more.
type Keeps int

const (
	Image    Keeps = iota + 1 // bit for bit
	Files                     // the same files and image config, but for the residue that the remark names; layers may differ
	Observed                  // as Files, provided that the programs that run read what they are known to read
)

var keepsNames = map[Keeps]string{Image: "image", Files: "files", Observed: "observed"}

func (k Keeps) String() string { return keepsNames[k] }

// Pass is a row of the table.
type Pass struct {
	Name  string // verb-noun, kebab-case
	Doc   string // one line for people
	Order string // why it stands where it stands
	Keeps Keeps  // the most that a rewrite of it may change; a Change may keep more or less
	Fix   bool   // it only makes sense in a Dockerfile that people keep: `optbuild fix`, not builds

	// Wants lists paths of the build context of which the pass needs to know more, nil for none. It is asked before Run, with the plan as the user wrote it, and
	// again when some were told.
	Wants func(*plan.Plan, *plan.Facts) []string
	// Images lists base images of which the pass needs to know whether they are the same on the build platform, nil for none.
	Images func(*plan.Plan, *plan.Facts, Options) []string

	Run func(*Work)
}

// Level says which rewrites are done.
type Level string

const (
	Off  Level = "off"  // none
	Safe Level = "safe" // those that keep the image or its files
	All  Level = "all"  // those that rest on what programs are known to read as well
)

// Options are the user's choices. The zero value is level Safe, without limit.
type Options struct {
	Level    Level // "" is Safe
	Disabled []string
	Rewrites int      // do only the first N rewrites, for bisection; 0 means all, a negative number none
	Fix      bool     // the result is a Dockerfile for people, not for this build
	Share    []string // stages that give the same to all platforms, as the user knows: --share-stage
	Checked  bool     // the images are looked through for machine code of shared stages (see Shared)
}

// Check reports an unknown level or pass.
func (o Options) Check() error {
	switch o.Level {
	case "", Off, Safe, All:
	default:
		return fmt.Errorf("unknown level %q: want off, safe or all", o.Level)
	}
	for _, d := range o.Disabled {
		if !slices.Contains(Names(), d) {
			return fmt.Errorf("unknown pass %q: want one of %v", d, Names())
		}
	}
	if len(o.Share) > 0 && (o.Level == Off || slices.Contains(o.Disabled, ShareStages)) {
		return fmt.Errorf("a stage can't be shared where the pass %s is switched off", ShareStages)
	}
	return nil
}

// WatchInputs is no pass of plans: where it is not disabled, the frontend marks RUNs and COPYs, and the engine watches what the RUNs read of what is copied, in
// order to replay them for as long as that does not change. It keeps what a `files` pass keeps.
const WatchInputs = "watch-inputs"

// Watches reports whether RUNs are to be watched and replayed.
func (o Options) Watches() bool {
	return o.Level != Off && o.Rewrites == 0 && !slices.Contains(o.Disabled, WatchInputs)
}

// SkipSync is no pass either: where it is not disabled, the frontend marks RUNs, and the engine does not let them wait for the disk when they sync what they
// write. It keeps the image.
const SkipSync = "skip-sync"

// SkipsSync reports whether RUNs are to be kept from syncing.
func (o Options) SkipsSync() bool {
	return o.Level != Off && o.Rewrites == 0 && !slices.Contains(o.Disabled, SkipSync)
}

// Names are the passes' names, in order, and those of watching and of skipping sync.
func Names() []string {
	names := make([]string, len(Passes), len(Passes)+2)
	for i, p := range Passes {
		names[i] = p.Name
	}
	return append(names, WatchInputs, SkipSync)
}

// Result is what Run made.
type Result struct {
	Plan    *plan.Plan
	Remarks []Remark
	After   []Step // the plan after each pass that changed it, in order
	Err     error  // the BrokenError of a pass whose work was thrown away, together with that of all others
}

// Step is the plan after one pass.
type Step struct {
	Pass string
	Plan *plan.Plan
}

// BrokenError is a pass that broke a plan: a bug in optbuild.
type BrokenError struct {
	Pass string
	Err  error
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("pass %s broke the plan: %v", e.Pass, e.Err)
}
func (e *BrokenError) Unwrap() error { return e.Err }

// Wants lists the paths of the context that the passes would like to know of, sorted. Where a file names others, the list grows with what is known: it is asked
// again with what it was told, until it has nothing new, or WantRounds times.
func Wants(p *plan.Plan, f *plan.Facts, o Options) []string {
	var want []string
	for _, pass := range o.passes() {
		if pass.Wants != nil && (pass.Keeps != Observed || o.Level == All) { // what is not done is not worth a look at the context
			want = append(want, pass.Wants(p, f)...)
		}
	}
	slices.Sort(want)
	return slices.Compact(want)
}

// Images lists the base images of which the passes would like to know whether they are the same on the build platform, sorted.
func Images(p *plan.Plan, f *plan.Facts, o Options) []string {
	var want []string
	for _, pass := range o.passes() {
		if pass.Images != nil {
			want = append(want, pass.Images(p, f, o)...)
		}
	}
	slices.Sort(want)
	return slices.Compact(want)
}

// WantRounds is how often Wants is asked at most.
const WantRounds = 5

func (o Options) passes() []Pass {
	if o.Level == Off {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(Passes), func(p Pass) bool {
		return slices.Contains(o.Disabled, p.Name) || p.Fix && !o.Fix
	})
}

// Run puts the plan through the passes. It does not change p.
func Run(p *plan.Plan, f *plan.Facts, o Options) Result {
	return run(p, f, o, o.passes())
}

// run checks what came out of all passes, and only if that is broken which pass it was: a check costs as much as a pass.
func run(p *plan.Plan, f *plan.Facts, o Options, passes []Pass) Result {
	res := runUnchecked(p, f, o, passes)
	if res.Err == nil && len(res.After) > 0 && plan.Check(p, res.Plan, f) != nil {
		for _, after := range res.After {
			if err := plan.Check(p, after.Plan, f); err != nil {
				return Result{Plan: p, Err: &BrokenError{after.Pass, err}}
			}
		}
	}
	return res
}

func runUnchecked(p *plan.Plan, f *plan.Facts, o Options, passes []Pass) Result {
	if o.Level == "" {
		o.Level = Safe
	}
	res := Result{Plan: p}
	left := o.Rewrites
	if left == 0 {
		left = -1
	} else if left < 0 {
		left = 0
	}
	for _, pass := range passes {
		w := &Work{Plan: res.Plan.Clone(), Facts: f, Options: o, pass: pass, left: &left}
		if err := w.run(); err != nil {
			for _, after := range res.After { // it may be another one's fault
				if broken := plan.Check(p, after.Plan, f); broken != nil {
					return Result{Plan: p, Err: &BrokenError{after.Pass, broken}}
				}
			}
			return Result{Plan: p, Err: &BrokenError{pass.Name, err}}
		}
		res.Remarks = append(res.Remarks, w.remarks...)
		if w.changed {
			res.Plan = w.Plan
			res.After = append(res.After, Step{pass.Name, w.Plan})
		}
	}
	slices.SortStableFunc(res.Remarks, func(a, b Remark) int { return a.Lines.First - b.Lines.First })
	return res
}
