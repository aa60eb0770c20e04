package frontend

import (
	"context"
	"strings"
	"sync"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/frontend/opt"
)

// rewriter is a gateway client in which the Dockerfile is the optimised one.
//
// BuildKit's frontend reads the Dockerfile through a reference that a Solve returned; until that has happened, references are wrapped
// so that the read can be answered. Definitions that were made of the optimised text get the user's lines on their way to the solver.
type rewriter struct {
	client.Client
	options opt.Options
	images  *imageCache

	mu      sync.Mutex
	file    *compiled     // nil until the Dockerfile was read
	vertex  digest.Digest // of the Dockerfile's source, which warnings point at
	ran     bool          // a definition made of the optimised text was handed to the solver
	lowered bool          // a definition made of any Dockerfile was: nobody reads the Dockerfile any more
	report  Report
}

func newRewriter(c client.Client, o opt.Options) *rewriter {
	return &rewriter{Client: c, options: o, images: newImageCache(c), report: Report{Version: 1}}
}

// rewrote reports whether the frontend below was given another text than the user's.
func (r *rewriter) rewrote() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file != nil && r.file.text != nil
}

func (r *rewriter) solved() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ran
}

func (r *rewriter) wasLowered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lowered
}

// ResolveImageConfig remembers answers: facts and conversions ask for the same images.
func (r *rewriter) ResolveImageConfig(ctx context.Context, ref string, o sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return r.images.ResolveImageConfig(ctx, ref, o)
}

func (r *rewriter) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	if req.Definition != nil && len(req.Definition.GetSource().GetInfos()) > 0 { // made of a Dockerfile
		r.restore(req.Definition)
		r.mark(req.Definition)
		return r.Client.Solve(ctx, req)
	}
	res, err := r.Client.Solve(ctx, req)
	if err != nil || req.Definition == nil || r.wasLowered() {
		return res, err
	}
	var def llb.Definition
	def.FromPB(req.Definition)
	head, err := def.Head()
	if err != nil {
		return nil, err
	}
	return wrapRefs(res, func(ref client.Reference) client.Reference { return &reading{Reference: ref, r: r, vertex: head} })
}

// Warn drops what BuildKit says of a text that the user did not write; what it says of the user's was sent when that was converted.
func (r *rewriter) Warn(ctx context.Context, dgst digest.Digest, msg string, o client.WarnOpts) error {
	if r.rewrote() && o.SourceInfo != nil && string(o.SourceInfo.Data) == string(r.file.text) {
		return nil
	}
	return r.Client.Warn(ctx, dgst, msg, o)
}

// reading is a reference from which the Dockerfile may be read.
type reading struct {
	client.Reference
	r      *rewriter
	vertex digest.Digest
}

// wholeFile is what dockerui reads at least when it reads a file as a whole, in bytes; it reads less to find out what a file is.
const wholeFile = 1 << 20

func (f *reading) ReadFile(ctx context.Context, req client.ReadRequest) ([]byte, error) {
	dt, err := f.Reference.ReadFile(ctx, req)
	if err != nil || req.Range == nil || req.Range.Length < wholeFile || strings.HasSuffix(req.Filename, ".dockerignore") {
		return dt, err
	}
	text := f.r.read(ctx, req.Filename, dt, f.vertex)
	return text, f.r.missingStage(req.Filename, dt)
}

// read is told the user's Dockerfile and returns the one to build.
func (r *rewriter) read(ctx context.Context, name string, src []byte, vertex digest.Digest) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		r.vertex = vertex
		if r.report.Aside = aside(r.BuildOpts().Opts, src); r.report.Aside != "" {
			r.file = &compiled{source: src}
		} else {
			r.file = r.compile(ctx, name, src)
		}
	}
	if string(src) != string(r.file.source) || r.file.text == nil {
		return src
	}
	return r.file.text
}

// Aside says why the optimiser would stand aside for a Dockerfile with these build arguments, "" if it would not.
func Aside(buildArgs map[string]string, src []byte) string {
	opts := map[string]string{}
	if v, ok := buildArgs["BUILDKIT_SYNTAX"]; ok {
		opts["build-arg:BUILDKIT_SYNTAX"] = v
	}
	return aside(opts, src)
}

func aside(opts map[string]string, src []byte) string {
	if image := foreignSyntax(opts, src); image != "" {
		return "the syntax image " + image + " reads this file"
	}
	return ""
}

// foreignSyntax is the frontend image that is to read the file, "" if it is this package.
func foreignSyntax(opts map[string]string, src []byte) string {
	if _, ok := opts["cmdline"]; ok {
		return ""
	}
	ref, given := opts["build-arg:BUILDKIT_SYNTAX"]
	if given {
		ref, _, _ = strings.Cut(strings.TrimSpace(ref), " ")
	} else {
		var ok bool
		if ref, _, _, ok = parser.DetectSyntax(src); !ok {
			return ""
		}
	}
	if serves(ref) {
		return ""
	}
	return ref
}

// finish gives back the solver's own references, with the report.
func (r *rewriter) finish(res *client.Result) (*client.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.report.attach(res); err != nil {
		return nil, err
	}
	if r.file != nil && r.report.Aside == "" {
		res.AddMeta(LayersOffKey, []byte(r.file.off))
		if r.report.Broken == "" {
			if err := r.file.attachShared(res); err != nil {
				return nil, err
			}
		}
	}
	return wrapRefs(res, func(ref client.Reference) client.Reference {
		if f, ok := ref.(*reading); ok {
			return f.Reference
		}
		return ref
	})
}

// wrapRefs replaces the references of a result.
func wrapRefs(res *client.Result, wrap func(client.Reference) client.Reference) (*client.Result, error) {
	if res.Ref != nil {
		res.Ref = wrap(res.Ref)
	}
	for k, ref := range res.Refs {
		if ref != nil {
			res.Refs[k] = wrap(ref)
		}
	}
	return res, nil
}
