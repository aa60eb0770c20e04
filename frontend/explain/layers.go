package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// Leavings are the rules of an export by which what a program leaves behind is left out of the image, by the program's name. Which rules there are only the exporter knows; a test of the command compares.
var Leavings = map[string][]string{
	"apt-get": {"apt-lists", "apt-archives", "apt-logs", "dpkg-old"}, "apt": {"apt-lists", "apt-archives", "apt-logs", "dpkg-old"},
	"apk": {"apk"}, "dnf": {"dnf"}, "microdnf": {"dnf"}, "yum": {"dnf"}, "tdnf": {"dnf"}, "zypper": {"dnf"}, "pacman": {"pacman"},
	"pip": {"pip"}, "pip3": {"pip"}, "uv": {"uv"}, "npm": {"npm"}, "npx": {"npm"}, "yarn": {"yarn"}, "pnpm": {"pnpm"},
	"bundle": {"bundler"}, "gem": {"bundler"}, "composer": {"composer"}, "go": {"go"}, "dotnet": {"nuget"},
}

// Layers says what an export is going to do to the layers of the image that a plan makes, as far as the Dockerfile tells: which RUNs become one layer, and which of them run programs that leave behind what is left out. Pragmas
// count, the command's flags don't.
func Layers(p *plan.Plan, f *plan.Facts) (remarks []opt.Remark) {
	target := p.Target(f)
	if target == nil {
		return nil
	}
	var group []*plan.Step
	end := func() {
		if len(group) > 1 && !target.From.Kept("squash") {
			remarks = append(remarks, together(p, group))
		}
		group = nil
	}
	for _, st := range stagesOf(p, target, f) {
		states := p.Flow(st, f)
		for i, s := range st.Steps {
			switch cmd := s.Cmd.(type) {
			case *instructions.RunCommand:
				group = append(group, s)
				if r, ok := leftOut(p, target, s, cmd, states[i].Shell); ok {
					remarks = append(remarks, r)
				}
			case *instructions.CopyCommand, *instructions.AddCommand:
				end()
			}
		}
	}
	end()
	return remarks
}

// stagesOf are the stages whose layers are in the image, the lowest first.
func stagesOf(p *plan.Plan, st *plan.Stage, f *plan.Facts) (list []*plan.Stage) {
	for st != nil {
		list = append(list, st)
		st, _, _ = p.Resolve(st, f)
	}
	slices.Reverse(list)
	return list
}

func together(p *plan.Plan, group []*plan.Step) opt.Remark {
	r := opt.Remark{Kind: opt.Analysis, Pass: "layers", Name: "one-layer", File: p.Name, Step: group[0].ID}
	for i, s := range group {
		r.Lines = r.Lines.Union(s.Lines)
		if i > 0 {
			r.Also = append(r.Also, s.ID)
		}
	}
	r.Message = fmt.Sprintf("these %d RUNs become one layer of the image (--squash=off: one each), but for those that turn out to read files of the context, which may begin another", len(group))
	return r
}

// leftOut is the remark on a RUN whose programs leave something behind.
func leftOut(p *plan.Plan, target *plan.Stage, s *plan.Step, run *instructions.RunCommand, shell []string) (opt.Remark, bool) {
	sc, err := script.OfRun(run, shell)
	if err != nil || target.From.Kept("strip") {
		return opt.Remark{}, false
	}
	var programs, rules []string
	for _, c := range sc.Commands() {
		name := program(c)
		for _, rule := range Leavings[name] {
			if target.From.Kept("strip-" + rule) {
				continue
			}
			if !slices.Contains(rules, rule) {
				rules = append(rules, rule)
			}
			if !slices.Contains(programs, name) {
				programs = append(programs, name)
			}
		}
	}
	return opt.Remark{
		Kind: opt.Analysis, Pass: "layers", Name: "left-out", File: p.Name, Lines: s.Lines, Step: s.ID,
		Message: fmt.Sprintf("what %s may leave behind is left out of the image (--strip=off: it stays): %s", strings.Join(programs, " and "), strings.Join(rules, ", ")),
		Args:    []opt.Arg{{Key: "rules", Value: strings.Join(rules, ",")}},
	}, len(rules) > 0
}

// program is the name of what a command runs; python -m pip is pip.
func program(c script.Command) string {
	name, args := c.Name(), c.Args()
	if strings.HasPrefix(name, "python") && len(args) > 1 && args[0].Value == "-m" {
		return args[1].Value
	}
	return name
}
