package explain

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	"github.com/optbuild/optbuild/frontend/plan"
)

// Op is one vertex of LLB, in the form of `buildctl debug dump-llb`.
type Op struct {
	Op         *pb.Op
	Digest     digest.Digest
	OpMetadata *pb.OpMetadata
}

// Lower makes LLB of a Dockerfile with BuildKit's own dockerfile2llb, for each target platform in turn, without a registry: images are
// what the facts say, and have no digests; of an unknown one nothing but the name is in the LLB.
func Lower(ctx context.Context, dockerfile string, f *plan.Facts) ([]Op, error) {
	targets := f.Targets
	if len(targets) == 0 {
		targets = []ocispecs.Platform{f.Build}
	}
	var ops []Op
	seen := map[string]bool{}
	for _, target := range targets {
		def, err := lower(ctx, dockerfile, f, target, len(targets) > 1)
		if err != nil {
			return nil, err
		}
		list, err := stable(def)
		if err != nil {
			return nil, err
		}
		for _, op := range list {
			if !seen[op.Digest.String()] {
				seen[op.Digest.String()] = true
				ops = append(ops, op)
			}
		}
	}
	return ops, nil
}

// stable are the vertices without what differs each time that LLB is made: the context's source carries a random number, which would be
// in the digests of all that comes after.
func stable(def *llb.Definition) ([]Op, error) {
	ops := make([]Op, 0, len(def.Def))
	now := map[string]string{} // digests
	for _, b := range def.Def {
		op := &pb.Op{}
		if err := op.UnmarshalVT(b); err != nil {
			return nil, fmt.Errorf("read LLB: %w", err)
		}
		old := digest.FromBytes(b)
		for _, in := range op.Inputs {
			in.Digest = now[in.Digest]
		}
		delete(op.GetSource().GetAttrs(), pb.AttrLocalUniqueID)
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
		if err != nil {
			return nil, fmt.Errorf("make LLB: %w", err)
		}
		d := digest.FromBytes(b)
		now[old.String()] = d.String()
		ops = append(ops, Op{op, d, def.Metadata[old].ToPB()})
	}
	return ops, nil
}

func lower(ctx context.Context, dockerfile string, f *plan.Facts, target ocispecs.Platform, several bool) (*llb.Definition, error) {
	args := maps.Clone(f.BuildArgs) // dockerfile2llb changes them
	res, err := dockerfile2llb.Dockerfile2LLB(ctx, []byte(dockerfile), dockerfile2llb.ConvertOpt{
		Config:         dockerui.Config{BuildArgs: args, Target: f.Target, BuildPlatforms: []ocispecs.Platform{f.Build}, MultiPlatformRequested: several},
		TargetPlatform: &target,
		MetaResolver:   newResolver(f),
	})
	if err != nil {
		return nil, err
	}
	def, err := res.State.Marshal(ctx, llb.Platform(target))
	if err != nil {
		return nil, fmt.Errorf("make LLB: %w", err)
	}
	return def, nil
}

// resolver answers for images, by their complete names.
type resolver map[string]plan.Image

// newResolver answers from the facts, whose names are as the file has them.
func newResolver(f *plan.Facts) resolver {
	r := resolver{}
	for _, name := range slices.Sorted(maps.Keys(f.Images)) {
		if ref, err := reference.ParseNormalizedNamed(name); err == nil {
			r[reference.TagNameOnly(ref).String()] = f.Images[name]
		}
	}
	return r
}

// ResolveImageConfig implements llb.ImageMetaResolver.
func (r resolver) ResolveImageConfig(_ context.Context, ref string, o sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	img := r[ref]
	var config dockerspec.DockerOCIImage
	if o.ImageOpt != nil && o.ImageOpt.Platform != nil {
		config.Platform = *o.ImageOpt.Platform
	}
	for _, kv := range img.Env {
		if strings.Contains(kv, "=") { // else the value is not known
			config.Config.Env = append(config.Config.Env, kv)
		}
	}
	config.Config.User, config.Config.WorkingDir = img.User, img.WorkingDir
	config.Config.Shell, config.Config.OnBuild = img.Shell, img.OnBuild
	config.RootFS.DiffIDs = []digest.Digest{digest.FromString("")} // without a layer it would count as scratch
	b, err := json.Marshal(config)
	return ref, "", b, err
}

// LLB writes a line of JSON for each vertex.
func LLB(w io.Writer, ops []Op) error {
	enc := json.NewEncoder(w)
	for _, op := range ops {
		if err := enc.Encode(op); err != nil {
			return err
		}
	}
	return nil
}

// Dot writes the vertices as a graph for Graphviz.
func Dot(w io.Writer, ops []Op) error {
	var b strings.Builder
	b.WriteString("digraph {\n  node [shape=box fontname=monospace]\n")
	for _, op := range ops {
		if op.Op.Op != nil {
			fmt.Fprintf(&b, "  %s [label=%s%s]\n", quote(string(op.Digest)), quote(label(op)), shape(op.Op))
		}
	}
	for _, op := range ops {
		for i, in := range op.Op.Inputs {
			if op.Op.Op != nil { // the last op only points at the result
				fmt.Fprintf(&b, "  %s -> %s%s\n", quote(in.Digest), quote(op.Digest.String()), mountLabel(op.Op, i))
			}
		}
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func label(op Op) string {
	if name := op.OpMetadata.GetDescription()["llb.customname"]; name != "" {
		return name
	}
	switch o := op.Op.Op.(type) {
	case *pb.Op_Source:
		return o.Source.Identifier
	case *pb.Op_Exec:
		return strings.Join(o.Exec.Meta.Args, " ")
	}
	return op.Digest.String()
}

func shape(op *pb.Op) string {
	switch op.Op.(type) {
	case *pb.Op_Source:
		return " shape=ellipse"
	case *pb.Op_File:
		return " shape=note"
	}
	return ""
}

// mountLabel says where the i-th input of a RUN is mounted, if not at the root.
func mountLabel(op *pb.Op, i int) string {
	exec, ok := op.Op.(*pb.Op_Exec)
	if !ok {
		return ""
	}
	for _, m := range exec.Exec.Mounts {
		if int(m.Input) == i && m.Dest != "/" {
			return " [label=" + quote(m.Dest) + "]"
		}
	}
	return ""
}

var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\x00", "")

func quote(s string) string { return `"` + dotEscapes.Replace(s) + `"` }
