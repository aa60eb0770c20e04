package replay

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// vertex is one of a solver's.
type vertex struct {
	name   string
	op     *pb.Op
	inputs []solver.Edge
}

func (v *vertex) Digest() digest.Digest         { return digest.FromString(v.name) }
func (v *vertex) Sys() any                      { return v.op }
func (v *vertex) Options() solver.VertexOptions { return solver.VertexOptions{} }
func (v *vertex) Inputs() []solver.Edge         { return v.inputs }
func (v *vertex) Name() string                  { return v.name }

func source(id string) *vertex {
	return &vertex{name: id, op: &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: id}}}}
}

func edges(list ...*vertex) (e []solver.Edge) {
	for _, v := range list {
		e = append(e, solver.Edge{Vertex: v})
	}
	return e
}

// run is a RUN on top of a vertex.
func run(name string, root *vertex, mounts ...*pb.Mount) *vertex {
	mounts = append([]*pb.Mount{{Input: 0, Output: 0, Dest: "/"}}, mounts...)
	return &vertex{name: "[stage 2/9] " + name, op: &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Mounts: mounts}}}, inputs: edges(root)}
}

// copyFrom is a COPY of something to a vertex; nil stands for an empty file system.
func copyFrom(name string, from, to *vertex) *vertex {
	a := &pb.FileAction{Input: -1, SecondaryInput: 0, Output: 0, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{}}}
	v := &vertex{name: name, inputs: edges(from)}
	if to != nil {
		a.Input, a.SecondaryInput, v.inputs = 0, 1, edges(to, from)
	}
	v.op = &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{a}}}}
	return v
}

func workdir(to *vertex) *vertex {
	a := &pb.FileAction{Input: 0, SecondaryInput: -1, Output: 0, Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{}}}
	return &vertex{name: "WORKDIR", op: &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{a}}}}, inputs: edges(to)}
}

func TestChain(t *testing.T) {
	base, context, repository := source("docker-image://debian"), source("local://context"), source("git://github.com/a/b")
	built := run("RUN make", copyFrom("COPY . .", context, base))
	merged := &vertex{name: "merge", op: &pb.Op{Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}}, inputs: edges(base, copyFrom("COPY --link . .", context, nil))}
	two := copyFrom("COPY a b .", context, base) // of two actions, the second on top of the first
	file := two.op.GetFile()
	file.Actions = append(file.Actions, &pb.FileAction{Input: 2, SecondaryInput: 1, Output: 0, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{}}})
	file.Actions[0].Output = -1
	for _, c := range []struct {
		name string
		root *vertex
		want string // topmost first: e for a RUN, c for a COPY from the context, f for another file operation
	}{
		{"nothing copied", run("RUN a", base), ""},
		{"a copy", copyFrom("COPY . .", context, base), "c"},
		{"of a repository", copyFrom("COPY . .", repository, base), "c"},
		{"a RUN above it", run("RUN a", copyFrom("COPY . .", context, base)), "e c"},
		{"what is below is not looked at", run("RUN b", copyFrom("COPY . .", context, run("RUN a", workdir(base)))), "e c"},
		{"down to the lowest", copyFrom("COPY . .", context, run("RUN a", workdir(copyFrom("COPY a .", context, base)))), "c e f c"},
		{"from a stage that runs something", run("RUN a", copyFrom("COPY --from=b", built, base)), ""},
		{"from a stage that only copies the context", run("RUN a", copyFrom("COPY --from=b", copyFrom("COPY . .", context, nil), base)), "e c"},
		{"from an image", copyFrom("COPY --from=alpine", source("docker-image://alpine"), base), ""},
		{"a merge ends it", run("RUN a", merged), ""},
		{"a merge ends it, what is above counts", run("RUN a", copyFrom("COPY . .", context, merged)), "e c"},
		{"a secret's output is none", run("RUN a", copyFrom("COPY . .", context, base), &pb.Mount{Input: -1, Output: 0, MountType: pb.MountType_SECRET, Dest: "/s"}), "e c"},
		{"several actions", run("RUN a", two), "e c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, l := range chainOf(run("RUN last", c.root), 0) {
				switch {
				case l.exec:
					got = append(got, "e")
				case l.copies:
					got = append(got, "c")
				default:
					got = append(got, "f")
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
}

// A definition may come from anybody: actions that build on themselves end somewhere.
func TestChainOfCircularActions(t *testing.T) {
	v := copyFrom("COPY . .", source("local://context"), source("docker-image://debian"))
	v.op.GetFile().Actions[0].Input = 2
	if got := chainOf(run("RUN a", v), 0); len(got) != 1 {
		t.Errorf("got %d steps, want the COPY", len(got))
	}
}

func TestStepName(t *testing.T) {
	for name, want := range map[string]string{
		"[build 2/3] RUN make": "RUN make", "[2/3] COPY . .": "COPY . .", "RUN [ -f x ] || true": "RUN [ -f x ] || true", "[]": "[]", "": "",
	} {
		if got := stepName(&vertex{name: name}); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

func TestShortened(t *testing.T) {
	long := strings.Repeat("ä ", 100)
	for in, want := range map[string]string{"RUN  a\n  b": "RUN a b", long: strings.Repeat("ä ", 29) + "ä…"} {
		if got := shortened(in); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
