package frontend

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// SharedKey is where, in the result's metadata, stands as JSON what images have of stages that ran once for all platforms though not all of what they run is known (see opt.Shared): a list of
// SharedStage. Whoever exports the images looks there for machine code, which must not be this machine's in an image for another one. It is not there if there is none of those stages.
const SharedKey = "optbuild.shared"

// SharedStage is one of them.
type SharedStage struct {
	Stage string `json:"stage"`
	By    string `json:"by"` // "lock" or "asked"

	// Copies are the steps of the image that copy from it, or from a stage that does, as the image's history has them.
	Copies []string `json:"copies"`
}

// sharedStages are those of a plan.
func sharedStages(p *plan.Plan, f *plan.Facts, remarks []opt.Remark) (list []SharedStage) {
	target := p.Target(f)
	for _, s := range opt.SharedStages(remarks) {
		root := opt.SharedStage(p, s.Stage)
		if s.By == opt.ByText || root == nil || target == nil {
			continue
		}
		list = append(list, SharedStage{Stage: s.Stage, By: s.By, Copies: copiesOf(p, f, root, target)})
	}
	return list
}

// CompareKey is where, in the result's metadata, stands as JSON which stages would run once for all platforms if the user asked for it, with what images take of them: a list of ComparedStage. Whoever
// exports the images can tell whether they were the same.
const CompareKey = "optbuild.compare"

// ComparedStage is one of them.
type ComparedStage struct {
	Stage  string   `json:"stage"`
	Copies []string `json:"copies"`
}

// comparedStages are those of a plan from which nothing but the image takes anything.
func comparedStages(p *plan.Plan, f *plan.Facts, remarks []opt.Remark) (list []ComparedStage) {
	target := p.Target(f)
	if target == nil || len(f.Targets) < 2 {
		return nil
	}
	for _, name := range opt.ShareableStages(remarks) {
		root := opt.SharedStage(p, name)
		if root == nil {
			continue
		}
		copies := copiesOf(p, f, root, target)
		taken, family := 0, []*plan.Stage{}
		for _, st := range p.Stages {
			base, _, _ := p.Resolve(st, f)
			if st == root || slices.Contains(family, base) {
				family = append(family, st)
				continue
			}
			for _, s := range st.Steps {
				if takesFrom(p, s, family) {
					taken++
				}
			}
		}
		if taken == len(copies) && taken > 0 && !slices.Contains(copies, "COPY") {
			list = append(list, ComparedStage{name, copies})
		}
	}
	return list
}

// copiesOf follows what a stage made: into stages that start from it or copy from it, and into the image.
func copiesOf(p *plan.Plan, f *plan.Facts, root, target *plan.Stage) (copies []string) {
	has := []*plan.Stage{root}
	for _, st := range p.Stages { // a stage knows only those above it
		base, _, _ := p.Resolve(st, f)
		if slices.Contains(has, base) || slices.ContainsFunc(st.Steps, func(s *plan.Step) bool { return takesFrom(p, s, has) }) {
			has = append(has, st)
		}
	}
	for at := target; at != nil; at, _, _ = p.Resolve(at, f) {
		states := p.Flow(at, f)
		for i, s := range at.Steps {
			if c, ok := s.Cmd.(*instructions.CopyCommand); ok && takesFrom(p, s, has) {
				copies = append(copies, historyOf(c, &states[i]))
			}
		}
	}
	return copies
}

func takesFrom(p *plan.Plan, s *plan.Step, stages []*plan.Stage) bool {
	return slices.ContainsFunc(plan.References(s.Cmd), func(name string) bool {
		st := p.Stage(name)
		return st != nil && slices.Contains(stages, st)
	})
}

// historyOf is what BuildKit writes of a COPY into an image's history; "COPY", which is the beginning of all, if a word of it is not known.
func historyOf(c *instructions.CopyCommand, at *plan.State) string {
	words := []string{"COPY"}
	if c.Parents {
		words = append(words, "--parents")
	}
	for _, flag := range [][2]string{{"--chown=", c.Chown}, {"--chmod=", c.Chmod}} {
		if flag[1] != "" {
			words = append(words, flag[0]+flag[1])
		}
	}
	words = append(append(words, c.SourcePaths...), c.DestPath)
	for i, w := range words {
		v, ok := at.Expand(w)
		if !ok {
			return "COPY"
		}
		words[i] = v
	}
	return strings.Join(words, " ")
}

// attachShared tells the exporter of stages that are shared, and of those that could be.
func (c *compiled) attachShared(res *client.Result) error {
	if len(c.shared) > 0 {
		b, err := json.Marshal(c.shared)
		if err != nil {
			return fmt.Errorf("tell of shared stages: %w", err)
		}
		res.AddMeta(SharedKey, b)
	}
	if len(c.compared) > 0 {
		b, err := json.Marshal(c.compared)
		if err != nil {
			return fmt.Errorf("tell of stages to compare: %w", err)
		}
		res.AddMeta(CompareKey, b)
	}
	return nil
}

// missingStage is a --share-stage that names no stage.
func (r *rewriter) missingStage(name string, src []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.options.Share) == 0 || r.file == nil || r.report.Aside != "" {
		return nil
	}
	p, err := plan.Parse(path.Base(name), src)
	if err != nil {
		return nil // BuildKit has the words for it
	}
	return opt.MissingShared(p, r.options)
}
