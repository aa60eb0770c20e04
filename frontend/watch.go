package frontend

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// WatchKey is the key in the description of a vertex that asks optbuild's engine to watch a RUN and to replay it, or to keep the times of what a COPY copies. Its value names the
// project. Descriptions are no part of a vertex's digest, and other engines do not look at this one.
const WatchKey = "optbuild.watch"

// ArgsKey is the key in the description of a RUN under which stand the names of the variables in its environment that are build arguments, separated by commas.
const ArgsKey = "optbuild.args"

// mark asks for the definition's RUNs and COPYs to be watched, except for those that a pragma keeps as they are.
func (r *rewriter) mark(def *pb.Definition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil || r.file.watch == nil || !r.options.Watches() {
		return
	}
	for _, dt := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(dt) != nil || op.GetExec() == nil && op.GetFile() == nil {
			continue
		}
		vertex := string(digest.FromBytes(dt))
		if watch, known := r.file.watch[r.report.Steps[vertex].Step]; known && !watch {
			continue
		}
		md := def.Metadata[vertex]
		if md == nil {
			md = &pb.OpMetadata{}
			if def.Metadata == nil {
				def.Metadata = map[string]*pb.OpMetadata{}
			}
			def.Metadata[vertex] = md
		}
		if md.Description == nil {
			md.Description = map[string]string{}
		}
		md.Description[WatchKey] = r.BuildOpts().Opts[AttrProject]
		if op.GetExec() != nil && r.file.args != "" {
			md.Description[ArgsKey] = r.file.args
		}
	}
}

// watches says for each step whether no pragma keeps it from being watched.
func watches(p *plan.Plan) map[int]bool {
	watch := map[int]bool{}
	for _, stage := range p.Stages {
		for _, s := range stage.Steps {
			watch[s.ID] = !s.Kept(opt.WatchInputs)
		}
	}
	return watch
}

// argNames are the variables that are an ARG somewhere in the file, and an ENV nowhere.
func argNames(p *plan.Plan) string {
	args := map[string]bool{}
	for _, stage := range p.Stages {
		for _, s := range stage.Steps {
			switch c := s.Cmd.(type) {
			case *instructions.ArgCommand:
				for _, a := range c.Args {
					if _, env := args[a.Key]; !env {
						args[a.Key] = true
					}
				}
			case *instructions.EnvCommand:
				for _, e := range c.Env {
					args[e.Key] = false
				}
			}
		}
	}
	maps.DeleteFunc(args, func(_ string, arg bool) bool { return !arg })
	return strings.Join(slices.Sorted(maps.Keys(args)), ",")
}
