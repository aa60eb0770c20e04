package lint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil/types"

	"github.com/optbuild/optbuild/frontend/plan"
)

// buildkit asks BuildKit's own linter. It wants a gateway and a registry; it gets ones that answer from the facts.
func (c *check) buildkit(ctx context.Context, ignore string) error {
	res, err := c.asked(ctx, ignore, nil)
	if err == nil && res.Error != nil {
		if args := c.missing(); len(args) > 0 { // a real build is given them; they are warned of all the same
			res, err = c.asked(ctx, ignore, args)
		}
	}
	if err != nil {
		return fmt.Errorf("ask BuildKit's linter: %w", err)
	}
	for _, w := range res.Warnings {
		at := ranges(w.Location)
		if s, known := c.step(at.Line); !known && (w.RuleName == linter.RuleUndefinedVar.Name || w.RuleName == linter.RuleWorkdirRelativePath.Name && strings.Contains(s.Text, "$")) {
			continue // the base may set the variable
		}
		c.findings = append(c.findings, Finding{Rule: w.RuleName, Severity: Warning, Message: w.Detail, summary: w.Description, URL: w.URL, File: c.p.Name, Range: at})
	}
	if res.Error != nil && !lintFailure(res.Error.Message) {
		c.rule = &rules[0]
		c.findings = append(c.findings, Finding{Rule: buildError, Severity: Error, Message: res.Error.Message, URL: c.rule.page(), File: c.p.Name, Range: ranges(&res.Error.Location)})
	}
	return ctx.Err()
}

// asked is the linter's answer with further build arguments.
func (c *check) asked(ctx context.Context, ignore string, args map[string]string) (*lint.LintResults, error) {
	g := &answers{f: c.f, args: args, images: map[string]plan.Image{}, ignore: []byte(ignore)}
	for name, img := range c.f.Images {
		if ref, err := reference.ParseNormalizedNamed(name); err == nil {
			g.images[reference.TagNameOnly(ref).String()] = img
		}
	}
	client, err := dockerui.NewClient(g)
	if err != nil {
		return nil, err
	}
	target := c.f.Build
	if len(c.f.Targets) > 0 {
		target = c.f.Targets[0]
	}
	source := llb.NewSourceMap(nil, c.p.Name, "Dockerfile", c.p.Source)
	source.Definition = &llb.Definition{} // the linter copies it
	return dockerfile2llb.DockerfileLint(ctx, c.p.Source, dockerfile2llb.ConvertOpt{
		Config: client.Config, Client: client, MetaResolver: g, TargetPlatform: &target, SourceMap: source,
	})
}

// missing are values for the arguments above the first FROM that have none: of the form of a tag and of an image's name.
func (c *check) missing() map[string]string {
	args := map[string]string{}
	for _, s := range c.p.Args {
		for _, a := range s.Cmd.(*instructions.ArgCommand).Args {
			if _, given := c.f.BuildArgs[a.Key]; !given && (a.Value == nil || *a.Value == "") {
				args[a.Key] = "given.invalid"
			}
		}
	}
	return args
}

// lintFailure is what `# check=error=true` makes of warnings, which are reported by themselves.
func lintFailure(message string) bool {
	return strings.HasPrefix(message, "lint violation found for rules")
}

// step is the step that a line belongs to, and whether all variables are known where it begins.
func (c *check) step(line int) (s *plan.Step, known bool) {
	for _, st := range c.p.Stages {
		for i, s := range st.Steps {
			if s.Lines.First <= line && line <= s.Lines.Last {
				return s, c.states[st][i].Known
			}
		}
	}
	return nil, true
}

// ranges is a place as BuildKit's linter has it, which are lines.
func ranges(l *pb.Location) Range {
	r := Range{Line: 1, EndLine: 1}
	for i, g := range l.GetRanges() {
		first, last := int(g.GetStart().GetLine()), int(g.GetEnd().GetLine())
		if i == 0 {
			r = Range{Line: max(first, 1), EndLine: max(first, last, 1)}
		}
		r.EndLine = max(r.EndLine, last)
	}
	return r
}

// errOffline says that the linter asked for what only an engine can do.
var errOffline = errors.New("there is no engine")

// answers is a gateway that knows images and the ignore file, and builds nothing.
type answers struct {
	f      *plan.Facts
	args   map[string]string     // further build arguments
	images map[string]plan.Image // by normalised name
	ignore []byte
}

// Inputs implements client.Client.
func (a *answers) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }

// NewContainer implements client.Client.
func (a *answers) NewContainer(context.Context, gateway.NewContainerRequest) (gateway.Container, error) {
	return nil, errOffline
}

// Warn implements client.Client.
func (a *answers) Warn(context.Context, digest.Digest, string, gateway.WarnOpts) error { return nil }

// ResolveSourceMetadata implements client.Client.
func (a *answers) ResolveSourceMetadata(context.Context, *pb.SourceOp, sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return nil, errOffline
}

// BuildOpts implements client.Client.
func (a *answers) BuildOpts() gateway.BuildOpts {
	opts := map[string]string{}
	for k, v := range a.f.BuildArgs {
		opts["build-arg:"+k] = v
	}
	for k, v := range a.args {
		opts["build-arg:"+k] = v
	}
	for name := range a.f.Named {
		opts["context:"+name] = "docker-image://named.invalid/context" // what it is does not matter
	}
	if a.f.Target != "" {
		opts["target"] = a.f.Target
	}
	return gateway.BuildOpts{
		Opts: opts, Workers: []gateway.WorkerInfo{{Platforms: []ocispecs.Platform{a.f.Build}}},
		LLBCaps: pb.Caps.CapSet(pb.Caps.All()), Caps: gwpb.Caps.CapSet(gwpb.Caps.All()),
	}
}

// Solve is asked for the context's ignore file.
func (a *answers) Solve(context.Context, gateway.SolveRequest) (*gateway.Result, error) {
	res := gateway.NewResult()
	res.SetRef(ignoreFile{text: a.ignore})
	return res, nil
}

// ignoreFile is a directory with nothing but an ignore file.
type ignoreFile struct{ text []byte }

// ToState implements client.Reference.
func (i ignoreFile) ToState() (llb.State, error) { return llb.Scratch(), nil }

// Evaluate implements client.Reference.
func (i ignoreFile) Evaluate(context.Context) error { return nil }

// StatFile implements client.Reference.
func (i ignoreFile) StatFile(_ context.Context, req gateway.StatRequest) (*types.Stat, error) {
	if req.Path != dockerui.DefaultDockerignoreName {
		return nil, errOffline
	}
	return &types.Stat{Path: req.Path, Size: int64(len(i.text)), Mode: 0o644}, nil
}

// ReadDir implements client.Reference.
func (i ignoreFile) ReadDir(context.Context, gateway.ReadDirRequest) ([]*types.Stat, error) {
	return nil, errOffline
}

// ReadFile implements client.Reference.
func (i ignoreFile) ReadFile(_ context.Context, req gateway.ReadRequest) ([]byte, error) {
	if req.Filename != dockerui.DefaultDockerignoreName {
		return nil, errOffline
	}
	if r := req.Range; r != nil {
		return i.text[min(r.Offset, len(i.text)):min(r.Offset+r.Length, len(i.text))], nil
	}
	return i.text, nil
}

// ResolveImageConfig answers from the facts; an image that is not known sets nothing. What has a name and no known value is set to nothing, which is
// all that the linter looks at.
func (a *answers) ResolveImageConfig(_ context.Context, ref string, o sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	img := a.images[ref]
	config := dockerspec.DockerOCIImage{}
	config.Platform = platforms.Normalize(a.f.Build)
	if o.ImageOpt != nil && o.ImageOpt.Platform != nil {
		config.Platform = *o.ImageOpt.Platform
	}
	for _, kv := range img.Env {
		name, value, _ := strings.Cut(kv, "=")
		config.Config.Env = append(config.Config.Env, name+"="+value)
	}
	config.Config.User, config.Config.WorkingDir, config.Config.Shell = img.User, img.WorkingDir, img.Shell
	config.RootFS.DiffIDs = []digest.Digest{digest.FromString("")} // without a layer it would count as scratch
	b, err := json.Marshal(config)
	return ref, digest.FromBytes(b), b, err
}
