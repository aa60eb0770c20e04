package replay

import (
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/ops"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// execVertex is as much of a vertex as a stock op looks at.
type execVertex struct{ inputs int }

func (execVertex) Digest() digest.Digest         { return "sha256:1" }
func (execVertex) Sys() any                      { return nil }
func (execVertex) Options() solver.VertexOptions { return solver.VertexOptions{} }
func (execVertex) Name() string                  { return "RUN" }
func (v execVertex) Inputs() []solver.Edge       { return make([]solver.Edge, v.inputs) }

func TestWithoutWholeHash(t *testing.T) {
	base, other := llb.Image("debian"), llb.Image("busybox")
	for _, test := range []struct {
		name   string
		mount  llb.RunOption
		hashed []bool // what of the inputs is hashed by its content
		stays  bool   // the op is not copied
	}{
		{"nothing is mounted", llb.Shlex("true"), []bool{false}, true},
		{"a file of the base", llb.AddMount("/y", base, llb.SourcePath("/x"), llb.Readonly), []bool{false}, false},
		{"a writable one that is dropped", llb.AddMount("/y", base, llb.SourcePath("/x"), llb.ForceNoOutput), []bool{false}, false},
		{"a file of another image", llb.AddMount("/y", other, llb.SourcePath("/x"), llb.Readonly), []bool{false, true}, true},
		{"a cache mount on the base", llb.AddMount("/y", base, llb.AsPersistentCacheDir("y", llb.CacheMountShared)), []bool{false}, false},
		{"nothing below it", llb.AddMount("/y", llb.Scratch(), llb.AsPersistentCacheDir("y", llb.CacheMountShared)), []bool{false}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			def, err := base.Run(llb.Shlex("true"), test.mount).Marshal(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var o *pb.Op_Exec
			var inputs int
			for _, dt := range def.Def {
				var op pb.Op
				if err := op.UnmarshalVT(dt); err != nil {
					t.Fatal(err)
				}
				if e, ok := op.Op.(*pb.Op_Exec); ok {
					o, inputs = e, len(op.Inputs)
				}
			}
			before := o.Exec.CloneVT()
			got := withoutWholeHash(o)
			if (got == o) != test.stays || !o.Exec.EqualVT(before) {
				t.Errorf("copied: %v, changed in place: %v", got != o, !o.Exec.EqualVT(before))
			}
			op, err := ops.NewExecOp(execVertex{inputs}, got, nil, nil, nil, nil, nil, nil, nil, false)
			if err != nil {
				t.Fatal(err)
			}
			m, _, err := op.CacheMap(t.Context(), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i, d := range m.Deps {
				if (d.ComputeDigestFunc != nil) != test.hashed[i] {
					t.Errorf("input %d is hashed: %v, want %v", i, d.ComputeDigestFunc != nil, test.hashed[i])
				}
			}
		})
	}
}
