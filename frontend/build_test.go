package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// gateway is a BuildKit that solves nothing: it serves the files of the context, and keeps what it was asked.
type gateway struct {
	files  map[string]string
	opts   map[string]string
	config string                             // of every image
	fail   func(command, mounts string) error // what running a command ends with; nil: well

	mu       sync.Mutex
	defs     []*pb.Definition // that are made of a Dockerfile
	warnings []string
	resolved []string
	foreign  []string // frontend images that were asked for
}

func (g *gateway) Solve(_ context.Context, req client.SolveRequest) (*client.Result, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if req.Frontend != "" {
		g.foreign = append(g.foreign, req.FrontendOpt["source"])
	}
	if req.Definition != nil && len(req.Definition.GetSource().GetInfos()) > 0 {
		g.defs = append(g.defs, req.Definition)
	}
	res := client.NewResult()
	res.SetRef(&fileRef{g, req.Definition})
	return res, nil
}

func (g *gateway) ResolveSourceMetadata(_ context.Context, op *pb.SourceOp, _ sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: digest.FromString(g.config), Config: []byte(g.config)}}, nil
}

func (g *gateway) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if strings.Contains(ref, "missing") {
		return "", "", nil, errors.New("no such image")
	}
	g.resolved = append(g.resolved, ref)
	config := g.config
	if config == "" {
		config = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]}}`
	}
	return ref, digest.FromString(config), []byte(config), nil
}

func (g *gateway) BuildOpts() client.BuildOpts {
	return client.BuildOpts{Opts: g.opts, Workers: []client.WorkerInfo{{Platforms: []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}}}},
		LLBCaps: pb.Caps.CapSet(pb.Caps.All()), Caps: gwpb.Caps.CapSet(gwpb.Caps.All())}
}
func (g *gateway) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }
func (g *gateway) NewContainer(context.Context, client.NewContainerRequest) (client.Container, error) {
	return nil, errors.New("no containers here")
}
func (g *gateway) Warn(_ context.Context, _ digest.Digest, msg string, _ client.WarnOpts) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.warnings = append(g.warnings, msg)
	return nil
}

type fileRef struct {
	g   *gateway
	def *pb.Definition
}

func (r *fileRef) ToState() (llb.State, error) { return llb.Scratch(), nil }
func (r *fileRef) Evaluate(context.Context) error {
	if r.g.fail == nil {
		return nil
	}
	for _, dt := range r.def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(dt); err != nil {
			return err
		}
		if e := op.GetExec(); e != nil {
			mounts := ""
			for _, m := range e.Mounts[1:] {
				mounts += m.Dest
			}
			if err := r.g.fail(e.Meta.Args[len(e.Meta.Args)-1], mounts); err != nil {
				return errdefs.WrapVertex(err, digest.FromBytes(dt))
			}
		}
	}
	return nil
}
func (r *fileRef) ReadFile(_ context.Context, req client.ReadRequest) ([]byte, error) {
	text, ok := r.g.files[strings.TrimPrefix(req.Filename, "/")]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", req.Filename, os.ErrNotExist)
	}
	return []byte(text), nil
}
func (r *fileRef) StatFile(_ context.Context, req client.StatRequest) (*fstypes.Stat, error) {
	return nil, os.ErrNotExist
}
func (r *fileRef) ReadDir(_ context.Context, req client.ReadDirRequest) (list []*fstypes.Stat, err error) {
	for name, text := range r.g.files {
		if name == req.IncludePattern {
			list = append(list, &fstypes.Stat{Path: name, Mode: 0o644, Size: int64(len(text))})
		}
	}
	return list, nil
}

// withPasses runs the test with other passes than the product's.
func withPasses(t *testing.T, passes ...opt.Pass) {
	old := opt.Passes
	opt.Passes = passes
	t.Cleanup(func() { opt.Passes = old })
}

// rewriteRun is a pass that makes RUN old into RUN new.
func rewriteRun(old, text string) opt.Pass {
	return opt.Pass{Name: "rewrite-run", Doc: "d", Order: "o", Keeps: opt.Files, Run: func(w *opt.Work) {
		for _, st := range w.Plan.Stages {
			for i, s := range st.Steps {
				if s.Text != old {
					continue
				}
				n, err := w.Plan.NewStep(text, s)
				if err != nil {
					panic(err)
				}
				w.Do(opt.Change{Steps: []*plan.Step{s}, Name: "rewritten", Message: "rewritten", Apply: func() { st.Steps[i] = n }})
			}
		}
	}}
}

func build(t *testing.T, g *gateway) (*client.Result, *Report) {
	t.Helper()
	if g.opts == nil {
		g.opts = map[string]string{}
	}
	res, err := Build(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := ReadReport(map[string]string{ReportKey: string(res.Metadata[ReportKey])})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := res.Ref.(*fileRef); !ok {
		t.Errorf("the result's reference is a %T, not the gateway's own", res.Ref)
	}
	return res, rep
}

// commands are the RUNs of the last definition, with their lines.
func (g *gateway) commands(t *testing.T) (list []string) {
	t.Helper()
	def := g.defs[len(g.defs)-1]
	for _, dt := range def.Def {
		var op pb.Op
		if err := op.Unmarshal(dt); err != nil {
			t.Fatal(err)
		}
		if e := op.GetExec(); e != nil {
			loc := def.Source.Locations[string(digest.FromBytes(dt))].Locations[0]
			list = append(list, fmt.Sprintf("%d-%d %s", loc.Ranges[0].Start.Line, loc.Ranges[len(loc.Ranges)-1].End.Line, strings.Join(e.Meta.Args, " ")))
			if src := string(def.Source.Infos[loc.SourceIndex].Data); src != g.files["Dockerfile"] {
				t.Errorf("source is %q", src)
			}
		}
	}
	return list
}

func compare(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s:\ngot  %s\nwant %s", what, g, w)
	}
}

const twoSteps = "FROM a\n\n# first\nRUN one\nRUN two\n"

func TestRewritten(t *testing.T) {
	withPasses(t, rewriteRun("RUN one", "RUN uno && \\\n  due"))
	g := &gateway{files: map[string]string{"Dockerfile": twoSteps}}
	_, rep := build(t, g)
	compare(t, "commands", g.commands(t), []string{"4-4 /bin/sh -c uno &&   due", "5-5 /bin/sh -c two"})
	compare(t, "broken", rep.Broken, "")
	compare(t, "text", rep.Account.Versions[1].Text(), "FROM a\n\n# first\nRUN uno && \\\n  due\nRUN two\n")
	compare(t, "resolved", g.resolved, []string{"docker.io/library/a:latest"}) // asked once, by facts and both conversions
	lines := []plan.Lines{}
	text := map[int]string{}
	for _, row := range rep.Account.Last().Rows {
		text[row.Lines.First] = row.Text
	}
	for _, v := range rep.Steps {
		lines = append(lines, v.Lines)
		for _, row := range rep.Account.Last().Rows {
			if row.ID == v.Step {
				compare(t, "step of a vertex", row.Text, text[v.Lines.First])
			}
		}
		if v.Step == 0 {
			t.Errorf("%v has no step", v.Lines)
		}
	}
	slices.SortFunc(lines, func(a, b plan.Lines) int { return a.First - b.First })
	compare(t, "steps", lines, []plan.Lines{{First: 4, Last: 4}, {First: 5, Last: 5}})
}

// TestImages: a vertex knows of how many platforms' images it is a part. What is only scanned does not count.
func TestImages(t *testing.T) {
	const text = "FROM a AS tools\nCOPY <<E /f\nE\nFROM a AS cross\nARG TARGETARCH\nRUN make $TARGETARCH\nFROM a\nCOPY --from=tools / /t\nCOPY --from=cross / /c\n"
	for name, c := range map[string]struct {
		opts map[string]string
		want map[int]string // of the vertices of each line
	}{
		"two":     {map[string]string{"platform": "linux/amd64,linux/arm64"}, map[int]string{2: "[2]", 6: "[1 1]", 9: "[1 1]"}},
		"one":     {map[string]string{"platform": "linux/amd64"}, map[int]string{2: "[1]", 6: "[1]", 9: "[1]"}},
		"scanned": {map[string]string{"platform": "linux/amd64", "attest:sbom": "generator=scanner"}, map[int]string{2: "[1]", 6: "[1]", 9: "[1]"}},
	} {
		g := &gateway{files: map[string]string{"Dockerfile": text}, opts: c.opts, config: `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["/scan"]}}`}
		res, err := Build(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := ReadReport(map[string]string{ReportKey: string(res.Metadata[ReportKey])})
		if err != nil {
			t.Fatal(err)
		}
		got := map[int][]int{}
		for _, v := range rep.Steps {
			got[v.Lines.First] = append(got[v.Lines.First], v.Images)
		}
		for line, images := range c.want {
			compare(t, fmt.Sprintf("%s, line %d", name, line), got[line], images)
		}
	}
}

func TestSyntaxLine(t *testing.T) {
	withPasses(t, rewriteRun("RUN one", "RUN uno"))
	g := &gateway{files: map[string]string{"Dockerfile": "# syntax=docker/dockerfile:1.4\nFROM a\nRUN one\n"}}
	_, rep := build(t, g)
	compare(t, "commands", g.commands(t), []string{"3-3 /bin/sh -c uno"})
	compare(t, "aside", rep.Aside, "")

	g = &gateway{files: map[string]string{"Dockerfile": "# syntax=example.com/other:2\nFROM a\nRUN one\n"}}
	_, rep = build(t, g)
	compare(t, "foreign", g.foreign, []string{"example.com/other:2"})
	compare(t, "aside", rep.Aside, "the syntax image example.com/other:2 reads this file")
	compare(t, "definitions", len(g.defs), 0)
}

func TestOff(t *testing.T) {
	withPasses(t, rewriteRun("RUN one", "RUN uno"))
	for _, opts := range []map[string]string{{AttrOptimize: "off"}, {"build-arg:OPTBUILD_OPTIMIZE": "off"}, {AttrDisable: "rewrite-run"}, {AttrRewrites: "0"}} {
		g := &gateway{files: map[string]string{"Dockerfile": twoSteps}, opts: opts}
		if _, err := Build(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		compare(t, fmt.Sprint(opts), g.commands(t), []string{"4-4 /bin/sh -c one", "5-5 /bin/sh -c two"})
	}
	for _, opts := range []map[string]string{{AttrOptimize: "fast"}, {AttrDisable: "nothing"}, {AttrRewrites: "many"}, {AttrRewrites: "-2"}} {
		g := &gateway{files: map[string]string{"Dockerfile": twoSteps}, opts: opts}
		if _, err := Build(t.Context(), g); err == nil {
			t.Errorf("%v is accepted", opts)
		}
	}
}

// TestHugeReport: a Dockerfile for whose account a response has no room is built all the same.
func TestHugeReport(t *testing.T) {
	withPasses(t, rewriteRun("RUN one", "RUN uno"))
	g := &gateway{files: map[string]string{"Dockerfile": twoSteps + "RUN <<E\n" + strings.Repeat("#"+strings.Repeat("x", 10<<10)+"\n", 120) + "E\n"}}
	res, rep := build(t, g)
	if n := len(res.Metadata[ReportKey]); n > reportLimit || rep.Account != nil || len(rep.Steps) == 0 {
		t.Errorf("%d bytes, account %v, %d steps", n, rep.Account != nil, len(rep.Steps))
	}
}

// TestBroken: whatever a pass does wrong, the build is that of the user's file, and the report says so.
func TestBroken(t *testing.T) {
	for name, pass := range map[string]opt.Pass{
		"panics":           {Name: "p", Keeps: opt.Files, Run: func(*opt.Work) { panic("ouch") }},
		"breaks the plan":  func() opt.Pass { p := rewriteRun("RUN one", "CMD one"); p.Name = "p"; return p }(),
		"panics elsewhere": {Name: "p", Keeps: opt.Files, Wants: func(*plan.Plan, *plan.Facts) []string { panic("ouch") }, Run: func(*opt.Work) {}},
		"does not convert": {Name: "p", Keeps: opt.Files, Run: func(w *opt.Work) {
			s := w.Plan.Stages[0].Steps
			n, _ := w.Plan.NewStep("RUN --mount=type=bind,target=/x,from=${NOWHERE} one", s[0])
			w.Do(opt.Change{Steps: s[:1], Apply: func() { s[0] = n }})
		}},
	} {
		withPasses(t, pass)
		g := &gateway{files: map[string]string{"Dockerfile": twoSteps}}
		_, rep := build(t, g)
		compare(t, name, g.commands(t), []string{"4-4 /bin/sh -c one", "5-5 /bin/sh -c two"})
		if rep.Broken == "" {
			t.Errorf("%s: and the report says nothing", name)
		}
	}
}

// TestConfigDiffers: an image config that is not the user's costs the rewrite.
func TestConfigDiffers(t *testing.T) {
	withPasses(t, rewriteRun("RUN one", "RUN uno"))
	g := &gateway{files: map[string]string{"Dockerfile": twoSteps}}
	r := newRewriter(g, opt.Options{Level: opt.Safe})
	r.file = r.compile(t.Context(), "Dockerfile", []byte(twoSteps))
	res := client.NewResult()
	for config, same := range map[string]bool{
		`{"config":{"Env":["PATH=/bin"]}}`:            true,
		`{"config":{"Env":["PATH=/bin","A=1"]}}`:      false,
		`{"config":{"Env":["PATH=/bin"],"User":"x"}}`: false,
	} {
		res.AddMeta(exptypes.ExporterImageConfigKey, []byte(config))
		if err := r.sameConfig(res); (err == nil) != same || same != !isBroken(err) {
			t.Errorf("%s: %v", config, err)
		}
	}
}

// TestWarnings: the user hears what BuildKit says of the user's own file, once.
func TestWarnings(t *testing.T) {
	withPasses(t, rewriteRun("RUN one", "RUN uno"))
	g := &gateway{files: map[string]string{"Dockerfile": "FROM a as b\nRUN one\nENV K v\n"}}
	build(t, g)
	optimised := g.warnings
	g = &gateway{files: g.files, opts: map[string]string{AttrOptimize: "off"}}
	if _, err := Build(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	compare(t, "warnings", optimised, g.warnings)
	if len(g.warnings) < 2 {
		t.Errorf("BuildKit says only %q", g.warnings)
	}
}

// TestErrors: what is wrong with the user's file is reported as BuildKit reports it, with the user's lines.
func TestErrors(t *testing.T) {
	withPasses(t, rewriteRun("RUN one", "RUN uno\\\n\\\n\\\n && due"))
	for _, src := range []string{
		"FROM a\nRUN one\nCOPY --from=$X a b\nFRUM b\n",
		"FROM a\nRUN one\nRUN --mount=type=what x\n",
		"FROM a\nRUN one\nFROM missing\n",
		"FROM a\nRUN one\nFROM ${NOTHING}\n",
		"FROM a\nRUN one\nCOPY --from=${a} x y\nENV =\n",
		"FROM a\nRUN one\nUSER ${x:?unset}\n",
	} {
		_, err := Build(t.Context(), &gateway{files: map[string]string{"Dockerfile": src}, opts: map[string]string{}})
		_, want := Build(t.Context(), &gateway{files: map[string]string{"Dockerfile": src}, opts: map[string]string{AttrOptimize: "off"}})
		if err == nil || want == nil {
			t.Errorf("%q: %v, %v", src, err, want)
			continue
		}
		compare(t, src, where(t, err), where(t, want))
	}
}

func where(t *testing.T, err error) string {
	t.Helper()
	s := err.Error()
	for _, src := range errdefs.Sources(err) {
		b, err := json.Marshal(src.Ranges)
		if err != nil {
			t.Fatal(err)
		}
		s += string(b) + string(src.Info.Data)
	}
	return s
}

// TestFacts: what the passes are told.
func TestFacts(t *testing.T) {
	var got *plan.Facts
	withPasses(t, opt.Pass{Name: "look", Keeps: opt.Image,
		Wants: func(*plan.Plan, *plan.Facts) []string { return []string{"package.json", "nothing"} },
		Run:   func(w *opt.Work) { got = w.Facts }})
	g := &gateway{files: map[string]string{"Dockerfile": "ARG V\nFROM node:$V AS x\nRUN a\nFROM missing\nFROM other AS o\nFROM x\nCOPY --from=o . .\n", "package.json": "{}"},
		opts: map[string]string{"build-arg:V": "20", "target": "", "context:other": "docker-image://another", "platform": "linux/arm64"}, config: `{"config":{"User":"node","Env":["A=b"],"OnBuild":["RUN x"]}}`}
	if _, err := Build(t.Context(), g); err != nil || got == nil {
		t.Fatal(err, got)
	}
	compare(t, "images", got.Images, map[string]plan.Image{"node:20": {Env: []string{"A=b"}, User: "node", OnBuild: []string{"RUN x"}}})
	compare(t, "named", got.Named, map[string]bool{"other": true})
	compare(t, "platforms", fmt.Sprint(got.Build.Architecture, got.Targets), "amd64[{arm64 linux  [] }]")
	p, known := got.Context.Lookup("package.json")
	compare(t, "package.json", fmt.Sprint(string(p.Data), p.Exists, known), "{}true true")
	p, known = got.Context.Lookup("nothing")
	compare(t, "nothing", fmt.Sprint(p.Exists, known), "false true")
	_, known = got.Context.Lookup("Dockerfile")
	compare(t, "a path that nobody asked for", known, false)
}

// TestAttestation: the solver gets its own references back, those of attestations included.
func TestAttestation(t *testing.T) {
	withPasses(t, rewriteRun("RUN one", "RUN uno"))
	for _, level := range []string{"off", "safe"} {
		g := &gateway{files: map[string]string{"Dockerfile": twoSteps}, opts: map[string]string{AttrOptimize: level, "attest:sbom": "generator=scanner"},
			config: `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["/scan"]}}`}
		res, err := Build(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Attestations) == 0 {
			t.Error("no attestation")
		}
		for _, list := range res.Attestations {
			for _, a := range list {
				if _, ok := a.Ref.(*fileRef); !ok {
					t.Errorf("%s: reference is a %T", level, a.Ref)
				}
			}
		}
	}
}

// TestStepFails: a step that a pass wrote and that fails as the user's line could not costs the rewrite; the user's own failure is not tried twice.
func TestStepFails(t *testing.T) {
	exit := &gwpb.ExitError{ExitCode: 1, Err: errors.New("exit code: 1")}
	const mount = "RUN --mount=type=cache,target=/cache one"
	for name, c := range map[string]struct {
		pass    opt.Pass
		fail    func(command, mounts string) error
		retried bool
		fails   bool
	}{
		"mount is refused":           {rewriteRun("RUN one", mount), func(_, m string) error { return when(m != "", errors.New("no such mount")) }, true, false},
		"program fails with mount":   {rewriteRun("RUN one", mount), func(_, m string) error { return when(m != "", exit) }, true, false},
		"program fails anyway":       {rewriteRun("RUN one", mount), func(c, _ string) error { return when(c == "one", exit) }, true, false}, // the solver says so later
		"merged step's program":      {rewriteRun("RUN one", "RUN uno"), func(c, _ string) error { return when(c == "uno", exit) }, false, true},
		"merged step can't be run":   {rewriteRun("RUN one", "RUN uno"), func(c, _ string) error { return when(c == "uno", errors.New("disk")) }, true, false},
		"a step of the user's fails": {rewriteRun("RUN one", mount), func(c, _ string) error { return when(c == "two", errors.New("disk")) }, false, true},
	} {
		withPasses(t, c.pass)
		g := &gateway{files: map[string]string{"Dockerfile": twoSteps}, opts: map[string]string{}, fail: c.fail}
		res, err := Build(t.Context(), g)
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		compare(t, name+": definitions", len(g.defs), map[bool]int{false: 1, true: 2}[c.retried])
		if !c.fails {
			rep, err := ReadReport(map[string]string{ReportKey: string(res.Metadata[ReportKey])})
			if err != nil || rep.Broken == "" || len(g.warnings) == 0 {
				t.Errorf("%s: nobody is told: %v %+v %q", name, err, rep, g.warnings)
			}
		}
	}
}

func when(cond bool, err error) error {
	if cond {
		return err
	}
	return nil
}
