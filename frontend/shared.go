package frontend

import (
	"encoding/json"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

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

// shared is the metadata of SharedKey, nil for none.
func (c *compiled) shared() []byte {
	if len(c.onceFor) == 0 {
		return nil
	}
	b, err := json.Marshal(c.onceFor)
	if err != nil {
		panic(err) // strings can be marshalled
	}
	return b
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
