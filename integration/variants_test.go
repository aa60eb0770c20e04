package integration

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
	offline "github.com/optbuild/optbuild/frontend/world"
	"github.com/optbuild/optbuild/integration/oracle"
	"github.com/optbuild/optbuild/integration/oracle/cases"
)

// variant is one way to build a Dockerfile.
type variant struct {
	name  string
	attrs map[string]string
	fixed bool // what `optbuild fix` writes, built by stock BuildKit's frontend
	// merged has the exporter make one layer of adjacent RUNs, as it does by default; nothing is stripped.
	merged bool
}

const stockName = "stock"

// variants are stock BuildKit's frontend first, then ours: off, each pass alone, safe, safe with merged layers, all, and the fixed file.
func variants() []variant {
	out := []variant{{name: stockName}, {name: "off", attrs: map[string]string{frontend.AttrOptimize: string(opt.Off)}}}
	names := opt.Names()
	for _, p := range opt.Passes {
		if p.Fix {
			continue // in builds it does nothing
		}
		others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == p.Name })
		out = append(out, variant{name: p.Name, attrs: map[string]string{frontend.AttrOptimize: string(opt.All), frontend.AttrDisable: strings.Join(others, ","), frontend.AttrChecked: "1"}})
	}
	return append(out,
		variant{name: "safe", attrs: map[string]string{frontend.AttrOptimize: string(opt.Safe), frontend.AttrChecked: "1"}},
		variant{name: "merged", attrs: map[string]string{frontend.AttrOptimize: string(opt.Safe), frontend.AttrChecked: "1"}, merged: true},
		variant{name: "all", attrs: map[string]string{frontend.AttrOptimize: string(opt.All), frontend.AttrChecked: "1"}},
		variant{name: "fix", fixed: true})
}

// compiled is what a variant makes of a Dockerfile, before anything is built.
type compiled struct {
	key     string // the same for variants that build the same: a digest of the LLB and of the image config
	remarks []opt.Remark
	err     error // the Dockerfile does not compile
	broken  string
	text    string // of the fixed file, and of the last pass that changed it
}

// rules are what the remarks of the rewrites that were made promise.
func (c *compiled) rules() oracle.Rules {
	r := oracle.Rules{Level: oracle.LevelImage}
	for _, m := range c.remarks {
		if m.Kind != opt.Passed {
			continue
		}
		if m.Keeps != opt.Image {
			r.Level = oracle.LevelFiles
		}
		r.Residue = append(r.Residue, m.Residue...)
	}
	return r
}

// passed are the passes that rewrote something.
func (c *compiled) passed() []string {
	var names []string
	for _, m := range c.remarks {
		if m.Kind == opt.Passed {
			names = append(names, m.Pass)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// job is a case that was written to a place of its own on a rig.
type job struct {
	rig    *rig
	c      *cases.Case
	place  cases.Place
	second bool
}

func newJob(r *rig, c *cases.Case) (*job, error) {
	dir, err := os.MkdirTemp(r.dir, "c")
	if err != nil {
		return nil, err
	}
	base := "http://" + r.server.Addr
	j := &job{rig: r, c: c, place: cases.Place{Dir: dir, HTTP: base + "/files/" + filepath.Base(dir), Git: base + "/git/" + filepath.Base(dir) + "/http"}}
	if err := os.Mkdir(filepath.Join(dir, fixedDir), 0o755); err != nil {
		return nil, err
	}
	return j, c.Write(j.place)
}

func (j *job) remove() { os.RemoveAll(j.place.Dir) }

// next changes the files for the second build.
func (j *job) next() error {
	j.second = true
	return j.c.WriteSecond(j.place)
}

const (
	fixedDir   = "fixed" // below the place
	fixedMount = "fixed"
	// cacheNamespace keeps the cache mounts of cases and variants apart: a difference is one that can be repeated.
	cacheNamespace = "build-arg:BUILDKIT_CACHE_MOUNT_NS"
)

// spec is the build of a variant.
func (j *job) spec(v variant) (build, map[string]string) {
	attrs, contexts := j.c.Attrs(j.place, j.second)
	contexts["context"], contexts["dockerfile"] = j.place.Context(), j.place.Context()
	contexts[fixedMount] = filepath.Join(j.place.Dir, fixedDir)
	maps.Copy(attrs, v.attrs)
	if v.fixed {
		attrs["dockerfilekey"] = fixedMount
	}
	if v.fixed || v.name == stockName {
		attrs["cmdline"] = "stock" // the frontend of this process, whatever `# syntax=` says
	}
	b := build{attrs: attrs, dirs: contexts, frontend: frontend.Build, merged: v.merged}
	if v.fixed || v.name == stockName {
		b.frontend = dockerfile.Build
	}
	return b, attrs
}

// errCompiled ends the session of a compilation.
var errCompiled = errors.New("compiled")

// compile asks what each variant would build. Nothing is.
func (j *job) compile(ctx context.Context, vs []variant) (map[string]*compiled, error) {
	out := map[string]*compiled{}
	fixed, err := j.fix()
	if err != nil {
		return nil, err
	}
	b, _ := j.spec(vs[0])
	b.frontend = func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		for _, v := range vs {
			if v.fixed && fixed == nil {
				continue
			}
			spec, attrs := j.spec(v)
			d := &dry{Client: c, attrs: attrs}
			res, err := spec.frontend(ctx, d)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			got := &compiled{err: err}
			if err == nil {
				got.key = d.key(res)
				report, err := frontend.ReadReport(texts(res.Metadata))
				if err != nil {
					return nil, err
				}
				if report != nil {
					got.broken = report.Broken
					if a := report.Account; a != nil {
						got.remarks = a.Remarks
						if len(a.Versions) > 1 {
							got.text = a.Last().Text()
						}
					}
				}
			}
			if v.fixed {
				got.remarks, got.text, got.broken = fixed.remarks, fixed.text, fixed.broken
			}
			out[v.name] = got
		}
		return nil, errCompiled
	}
	_, err = j.rig.build(ctx, b)
	if err == nil || !strings.Contains(err.Error(), errCompiled.Error()) {
		return nil, fmt.Errorf("compile: %w", err)
	}
	return out, nil
}

func texts(m map[string][]byte) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = string(v)
	}
	return out
}

// fix writes the fixed file, as `optbuild fix` makes it, with the facts that there are without an engine. It returns nil if the file can't be read.
func (j *job) fix() (*compiled, error) {
	attrs, contexts := j.c.Attrs(j.place, j.second)
	name := attrs["filename"]
	if name == "" {
		name = "Dockerfile"
	}
	file := filepath.Join(j.place.Context(), name)
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p, err := plan.Parse("Dockerfile", data)
	out := &compiled{text: string(data)}
	if err == nil {
		o := opt.Options{Level: opt.All, Fix: true}
		w := offline.Options{BuildArgs: map[string]string{}, Target: attrs["target"],
			Wants: func(p *plan.Plan, f *plan.Facts) []string { return opt.Wants(p, f, o) }}
		for k, v := range attrs {
			if k, ok := strings.CutPrefix(k, "build-arg:"); ok {
				w.BuildArgs[k] = v
			}
			if k, ok := strings.CutPrefix(k, "context:"); ok {
				w.Named = append(w.Named, k)
			}
		}
		_ = contexts
		for s := range strings.SplitSeq(attrs["platform"], ",") {
			if s == "" {
				continue
			}
			spec, err := platforms.Parse(s)
			if err != nil {
				return nil, err
			}
			w.Targets = append(w.Targets, ocispecs.Platform(platforms.Normalize(spec)))
		}
		f, err := offline.Local(p, &offline.Source{Context: j.place.Context(), Path: file, Name: "Dockerfile", Data: data}, w)
		if err != nil {
			return nil, err
		}
		res := opt.Run(p, f, o)
		out.remarks = res.Remarks
		out.text, _ = res.Plan.Text()
		if res.Err != nil {
			out.broken = res.Err.Error()
		}
	}
	// An ignore file of the Dockerfile's own stands beside it.
	fixed := filepath.Join(j.place.Dir, fixedDir, name)
	if err := os.MkdirAll(filepath.Dir(fixed), 0o755); err != nil {
		return nil, err
	}
	if ignore, err := os.ReadFile(file + ".dockerignore"); err == nil {
		if err := os.WriteFile(fixed+".dockerignore", ignore, 0o644); err != nil {
			return nil, err
		}
	}
	return out, os.WriteFile(fixed, []byte(out.text), 0o644)
}

// build builds a variant for real. Variants with the same namespace share cache mounts.
func (j *job) build(ctx context.Context, v variant, namespace string) (map[string]*oracle.Image, error) {
	b, attrs := j.spec(v)
	attrs[cacheNamespace] = filepath.Base(j.place.Dir) + "-" + namespace
	return j.rig.build(ctx, b)
}

// dry is a gateway client with other options than the session's, that does not build what was made of a Dockerfile.
type dry struct {
	gateway.Client
	attrs map[string]string

	mu   sync.Mutex
	defs []string
}

func (d *dry) BuildOpts() gateway.BuildOpts {
	o := d.Client.BuildOpts()
	opts := maps.Clone(d.attrs)
	for k, v := range o.Opts {
		if strings.HasPrefix(k, "frontend.") {
			opts[k] = v
		}
	}
	opts["build-arg:SOURCE_DATE_EPOCH"] = o.Opts["build-arg:SOURCE_DATE_EPOCH"]
	o.Opts = opts
	return o
}

func (d *dry) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	if req.Frontend == "" && len(req.Definition.GetSource().GetInfos()) == 0 {
		return d.Client.Solve(ctx, req)
	}
	sum := sha256.New()
	fmt.Fprint(sum, req.Frontend, len(req.FrontendOpt))
	for _, op := range req.Definition.GetDef() {
		s := sha256.Sum256(op)
		sum.Write(s[:])
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.defs = append(d.defs, hex.EncodeToString(sum.Sum(nil)))
	return gateway.NewResult(), nil
}

// key tells results apart.
func (d *dry) key(res *gateway.Result) string {
	slices.Sort(d.defs) // platforms are compiled at the same time
	sum := sha256.New()
	fmt.Fprintln(sum, d.defs)
	for _, k := range slices.Sorted(maps.Keys(res.Metadata)) {
		if k != frontend.ReportKey && k != frontend.LayersOffKey && k != frontend.SharedKey && k != frontend.CompareKey { // which are for the exporter
			fmt.Fprintf(sum, "%s=%s\n", k, res.Metadata[k])
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}
