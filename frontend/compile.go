package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"reflect"
	"runtime/debug"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/frontend/explain"
	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// compiled is a Dockerfile and what became of it.
type compiled struct {
	source []byte
	text   []byte       // optimised, nil if that is no other than source
	lines  []plan.Lines // by line of text
	steps  []int        // IDs, by line of what is built
	made   map[int]bool // the steps that passes made, by ID: whether they have mounts that the user did not write
	asks   map[int]asks // what is asked of the engine for the steps, by ID; nil if there is no plan
	args   string       // names of ARGs, see ArgsKey
	off    string       // see LayersOffKey

	shared   []SharedStage   // see SharedKey
	compared []ComparedStage // see CompareKey

	images map[string]dockerspec.DockerOCIImageConfig // what source gives, by platform ("" if none was asked for)
}

// compile optimises the Dockerfile. What is wrong with the user's file is for BuildKit to say: then there is no text.
func (r *rewriter) compile(ctx context.Context, name string, src []byte) (file *compiled) {
	file = &compiled{source: src}
	defer func() {
		if p := recover(); p != nil { // a bug of ours, or of BuildKit's parser: the build is BuildKit's alone
			r.report.Broken = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
			file = &compiled{source: src}
		}
	}()
	p, err := plan.Parse(path.Base(name), src)
	if err != nil {
		return file
	}
	if opt.MissingShared(p, r.options) != nil { // which ends the build, see missingStage; a rewritten file would be built as it is written instead
		return file
	}
	bc, err := dockerui.NewClient(r.images)
	if err != nil {
		return file
	}
	f := r.facts(ctx, bc, p)
	res := opt.Run(p, f, r.options)
	r.report.Account = explain.New(p, f, r.options, res)
	if res.Err != nil {
		r.report.Broken = res.Err.Error()
	}
	file.steps = r.report.Account.Last().Steps()
	file.asks = r.asks(res.Plan)
	file.args = argNames(res.Plan)
	file.off = layersOff(p, f)
	if r.options.Checked {
		file.compared = comparedStages(res.Plan, f, res.Remarks)
	}
	text, lines := res.Plan.Text()
	if text == string(src) {
		return file
	}
	if file.images, err = r.convert(ctx, bc, name, src); err != nil {
		return file
	}
	file.shared = sharedStages(res.Plan, f, res.Remarks)
	file.text, file.lines, file.made = []byte(text), lines, made(p, res.Plan)
	return file
}

// convert lowers the user's own file, for its errors, its warnings and the image configs that it gives; the LLB is not used.
func (r *rewriter) convert(ctx context.Context, bc *dockerui.Client, name string, src []byte) (map[string]dockerspec.DockerOCIImageConfig, error) {
	type warning struct {
		msg string
		o   client.WarnOpts
	}
	var warnings []warning
	source := &pb.SourceInfo{Data: src, Filename: name, Language: "Dockerfile"}
	targets := []*ocispecs.Platform{nil}
	if len(bc.TargetPlatforms) > 0 {
		targets = nil
		for _, p := range bc.TargetPlatforms {
			targets = append(targets, &p)
		}
	}
	images := map[string]dockerspec.DockerOCIImageConfig{}
	for i, platform := range targets {
		o := dockerfile2llb.ConvertOpt{
			Config: bc.Config, Client: bc, MetaResolver: r.images, TargetPlatform: platform,
			SourceMap: llb.NewSourceMap(nil, name, "Dockerfile", src),
		}
		if i == 0 {
			o.Warn = func(rule, description, url, msg string, at []parser.Range) {
				w := client.WarnOpts{Level: 1, Detail: [][]byte{[]byte(description)}, URL: url, SourceInfo: source}
				line := 0
				for _, rg := range at {
					w.Range = append(w.Range, &pb.Range{
						Start: &pb.Position{Line: int32(rg.Start.Line), Character: int32(rg.Start.Character)},
						End:   &pb.Position{Line: int32(rg.End.Line), Character: int32(rg.End.Character)},
					})
				}
				if len(at) > 0 {
					line = at[0].Start.Line
				}
				warnings = append(warnings, warning{linter.LintFormatShort(rule, msg, line), w})
			}
		}
		res, err := dockerfile2llb.Dockerfile2LLB(ctx, src, o)
		if err != nil {
			return nil, err
		}
		images[platformKey(platform)] = res.Image.Config
	}
	for _, w := range warnings {
		if err := r.Client.Warn(ctx, r.vertex, w.msg, w.o); err != nil {
			return nil, err
		}
	}
	return images, nil
}

func platformKey(p *ocispecs.Platform) string {
	if p == nil {
		return ""
	}
	return platforms.FormatAll(platforms.Normalize(*p))
}

// configError is a rewritten file whose image config is not what the user's file gives.
type configError struct{ platform, got, want string }

func (e *configError) Error() string {
	return fmt.Sprintf("image config %s: got %s, want %s", e.platform, e.got, e.want)
}

func isBroken(err error) bool {
	var e *configError
	return errors.As(err, &e)
}

// sameConfig checks that the result's image config is what the user's file gives.
func (r *rewriter) sameConfig(res *client.Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil || r.file.text == nil {
		return nil
	}
	for platform, want := range r.file.images {
		dt, ok := res.Metadata[exptypes.ExporterImageConfigKey]
		if !ok {
			dt, ok = res.Metadata[exptypes.ExporterImageConfigKey+"/"+platform]
		}
		if !ok {
			return &configError{platform, "none", "one"}
		}
		var img dockerspec.DockerOCIImage
		if err := json.Unmarshal(dt, &img); err != nil {
			return fmt.Errorf("read image config: %w", err)
		}
		a, err := json.Marshal(img.Config)
		if err != nil {
			return err
		}
		b, err := json.Marshal(want)
		if err != nil {
			return err
		}
		var x, y any
		if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil || !reflect.DeepEqual(x, y) {
			return &configError{platform, string(a), string(b)}
		}
	}
	return nil
}

// factTime bounds how long a build waits for what the compiler would like to know and BuildKit's own conversion would not ask for.
const factTime = 20 * time.Second
