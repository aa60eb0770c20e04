package replay

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
)

// link is one step of those that made the file system which a RUN starts from.
type link struct {
	name   string // of the vertex
	exec   bool   // a RUN; else a file operation: COPY, ADD, WORKDIR
	copies bool   // it copies from the build's context
	shares bool   // what it is made by has cache mounts that the step has, too: it may have left something there
}

// chainOf returns the steps that made the root file system of an exec, topmost first, down to the lowest one that copies from the context; nil when
// there is none. Each of them makes one layer. What lies below is known by its snapshot.
//
// A wrong guess here costs hits and nothing else: whatever a layer is taken for, it is known by its exact content or by what was observed of it.
func chainOf(v solver.Vertex, root int64) (links []link) {
	lowest := -1
	own := cacheMountsOf(v)
	edge, ok := inputOf(v, root)
	for ok && len(links) < maxChain {
		op, isOp := edge.Vertex.Sys().(*pb.Op)
		if !isOp {
			break
		}
		l := link{name: stepName(edge.Vertex)}
		parent := int64(-1)
		switch o := op.Op.(type) {
		case *pb.Op_File:
			parent, l.copies = fileParent(o.File, edge.Index, len(edge.Vertex.Inputs())), copiesContext(edge.Vertex, o.File)
			for i, in := range edge.Vertex.Inputs() {
				l.shares = l.shares || int64(i) != parent && sharesBelow(in.Vertex, own)
			}
		case *pb.Op_Exec:
			l.exec, l.shares = true, intersect(own, cacheMounts(o.Exec))
			for _, m := range o.Exec.Mounts {
				if m.MountType == pb.MountType_BIND && m.Output == int64(edge.Index) { // secrets have an output, 0, without meaning it
					parent = m.Input
				}
			}
		default:
			return cut(links, lowest)
		}
		if l.copies {
			lowest = len(links)
		}
		links = append(links, l)
		edge, ok = inputOf(edge.Vertex, parent)
	}
	return cut(links, lowest)
}

// cacheMountsOf returns the ids of a RUN's cache mounts.
func cacheMountsOf(v solver.Vertex) []string {
	if op, ok := v.Sys().(*pb.Op); ok && op.GetExec() != nil {
		return cacheMounts(op.GetExec())
	}
	return nil
}

// sharesBelow is true if a vertex, or one that it depends on, has one of these cache mounts. Stages are often joined by nothing but download caches that the frontend has added (frontend/opt/cache-mounts.md), of
// which no step can make anything else than without: those don't count.
func sharesBelow(v solver.Vertex, own []string) bool {
	own = slices.DeleteFunc(slices.Clone(own), isAdded)
	seen := map[solver.Vertex]bool{}
	var look func(v solver.Vertex) bool
	look = func(v solver.Vertex) bool {
		if seen[v] {
			return false
		}
		seen[v] = true
		return intersect(own, cacheMountsOf(v)) || slices.ContainsFunc(v.Inputs(), func(e solver.Edge) bool { return look(e.Vertex) })
	}
	return len(own) > 0 && look(v)
}

// isAdded is true of the id of a mount that the frontend has added, as it is stored here.
func isAdded(id string) bool {
	b, err := hex.DecodeString(id)
	_, name, found := strings.Cut(string(b), "/") // behind the namespace of ids
	return err == nil && found && (strings.HasPrefix(name, "optbuild/") || strings.HasPrefix(name, "optbuild-"))
}

func intersect(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// maxChain bounds how many steps are looked at; overlayfs takes a few hundred layers at most.
const maxChain = 500

func cut(links []link, lowest int) []link { return slices.Clip(links[:lowest+1]) }

func inputOf(v solver.Vertex, i int64) (solver.Edge, bool) {
	in := v.Inputs()
	if i < 0 || i >= int64(len(in)) {
		return solver.Edge{}, false
	}
	return in[i], true
}

// fileParent is the input that a file operation's output builds on: its actions form a chain that starts at an input, or at nothing (-1).
func fileParent(op *pb.FileOp, output solver.Index, inputs int) int64 {
	at := slices.IndexFunc(op.Actions, func(a *pb.FileAction) bool { return a.Output == int64(output) })
	for at >= 0 {
		from := op.Actions[at].Input
		if from < int64(inputs) {
			return from
		}
		next := int(from) - inputs // actions are numbered behind the inputs
		if next >= at {
			return -1
		}
		at = next
	}
	return -1
}

// copiesContext says that a file operation copies something that comes from the build's context.
func copiesContext(v solver.Vertex, op *pb.FileOp) bool {
	for _, a := range op.Actions {
		if a.GetCopy() == nil {
			continue
		}
		if in, ok := inputOf(v, a.SecondaryInput); ok && onlyContext(in.Vertex, 0) {
			return true
		}
	}
	return false
}

// onlyContext says that a vertex has nothing but files of a context: the context itself, or a stage that only copies it.
func onlyContext(v solver.Vertex, depth int) bool {
	op, ok := v.Sys().(*pb.Op)
	if !ok || depth > maxChain {
		return false
	}
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		scheme, _, _ := strings.Cut(o.Source.Identifier, "://")
		return scheme == "local" || scheme == "git" || scheme == "http" || scheme == "https"
	case *pb.Op_File:
		if len(v.Inputs()) == 0 {
			return false
		}
		for _, in := range v.Inputs() {
			if !onlyContext(in.Vertex, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

// stepName is the name of a vertex as users know it: without its number and stage, which come first in brackets.
func stepName(v solver.Vertex) string {
	name := v.Name()
	if strings.HasPrefix(name, "[") {
		if _, rest, ok := strings.Cut(name, "] "); ok {
			return rest
		}
	}
	return name
}
