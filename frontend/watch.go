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

// UnsyncedKey is the key in the description of a RUN that asks optbuild's engine not to let it wait for the disk.
const UnsyncedKey = "optbuild.unsynced"

// asks is what is asked of the engine for one step.
type asks struct {
	watch    bool // RUN and COPY, see WatchKey
	unsynced bool // RUN, see UnsyncedKey
}

// mark describes the definition's RUNs and COPYs to the engine.
func (r *rewriter) mark(def *pb.Definition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil || r.file.asks == nil {
		return
	}
	for _, dt := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(dt) != nil || op.GetExec() == nil && op.GetFile() == nil {
			continue
		}
		vertex := string(digest.FromBytes(dt))
		a, known := r.file.asks[r.report.Steps[vertex].Step]
		if !known { // of no line of the file
			a = asks{r.options.Watches(), r.options.SkipsSync()}
		}
		exec := op.GetExec() != nil
		if !a.watch && !(a.unsynced && exec) {
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
		if a.watch {
			md.Description[WatchKey] = r.BuildOpts().Opts[AttrProject]
		}
		if a.watch && exec && r.file.args != "" {
			md.Description[ArgsKey] = r.file.args
		}
		if a.unsynced && exec {
			md.Description[UnsyncedKey] = "1"
		}
	}
}

// asks says what is asked of the engine for each step of a plan, less what pragmas keep as it is.
func (r *rewriter) asks(p *plan.Plan) map[int]asks {
	all := map[int]asks{}
	for _, stage := range p.Stages {
		for _, s := range stage.Steps {
			all[s.ID] = asks{r.options.Watches() && !s.Kept(opt.WatchInputs), r.options.SkipsSync() && !s.Kept(opt.SkipSync)}
		}
	}
	return all
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
