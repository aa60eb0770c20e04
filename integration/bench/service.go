package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/optbuild/optbuild/integration/bases"
)

// A web server in Go for two platforms. The naive Dockerfile knows nothing of platforms: stock BuildKit runs the compiler under emulation. The one by hand compiles across.

// The bounds of the project for that.
const (
	boundEmulated = 0.5 // time, against stock BuildKit under emulation
	boundCross    = 1.1 // processor time, against the Dockerfile by hand
	boundSingle   = 1.6 // time, against optbuild's own build for one platform
)

// onePlatform is what stands in place of a Dockerfile's name where the naive one is built for this machine's platform only.
const onePlatform = "one-platform"

// service is a cell of its own: it has a side more than others, and looks at the images of both platforms.
type service struct {
	*cell
	programs map[string][]byte // by platform, of the images of cold builds: no builder makes another one than the others
}

func (b *bench) serviceCases() (list []*one) {
	w := &workload{name: "service", what: "Go service", platforms: "linux/amd64,linux/arm64", made: "app", generate: serviceProject}
	for _, s := range []scenario{coldBuild, oneEdit} {
		what := s.what
		s.name, s.floor, s.bound = "S6", false, 0
		s.what = "two platforms, " + what
		c := b.cell(s, w, "S6 Go service, "+what)
		v := &service{cell: c.matrix, programs: map[string][]byte{}}
		generated := c.prepare
		c.prepare = func(ctx context.Context) error {
			if runtime.GOARCH != "amd64" {
				return skipped("it is made for amd64, with arm64 as the other platform")
			}
			return errors.Join(generated(ctx), b.pushGolangs(ctx))
		}
		c.rows = v.rows
		list = append(list, c)
	}
	return list
}

func (v *service) rows(ctx context.Context, runs int) ([]Result, error) {
	all, err := v.contenders(ctx, []string{"naive", "by-hand", onePlatform}, false)
	if err != nil {
		return nil, err
	}
	var list []contender
	for _, k := range all {
		switch {
		case k.name == "optbuild" && k.dockerfile != "by-hand", k.name == "stock" && k.dockerfile != onePlatform:
			list = append(list, k)
		}
	}
	if err := v.inTurn(ctx, list, runs, v.build); err != nil {
		return nil, err
	}
	rows := compare(v.name, v.builds, map[string]float64{"stock/naive": boundEmulated, "optbuild/" + onePlatform: boundSingle})
	for i, r := range rows {
		if r.Against == "stock/by-hand" && r.Case == v.name+", processor time" {
			rows[i].Bound = boundCross
		}
	}
	return rows, nil
}

func (v *service) build(ctx context.Context, k contender, round int) (f Build, err error) {
	state := "service-" + k.dockerfile
	j := job{state: state, dir: v.project.dir, file: v.project.naive, image: fmt.Sprintf("%s/%s/%s:latest", v.registry, state, k.name),
		platforms: v.workload.platforms, stepsLogged: filepath.Join(v.Dir, "steps.jsonl")}
	switch k.dockerfile {
	case "by-hand":
		j.file, j.native = v.project.byHand, true
	case onePlatform:
		j.platforms, _, _ = strings.Cut(j.platforms, ",")
	}
	if v.scenario.cold {
		if err := k.empty(ctx, state); err != nil {
			return f, err
		}
	}
	if v.scenario.change != nil {
		if err := v.scenario.change(v.workload, v.project); err != nil {
			return f, err
		}
		j.changed = filepath.Join(v.project.dir, v.project.edit)
	}
	command, err := k.command(j)
	if err != nil {
		return f, err
	}
	f, logs, err := v.observe(ctx, k.daemons(), command)
	if err != nil {
		return f, err
	}
	f.Side, f.Round = k.String(), round
	if f.Steps, err = k.steps(j, logs[0]); err != nil {
		return f, err
	}
	return f, v.look(j, &f)
}

// look reads the pushed image: for each platform a program for that, made of the sources as they are now, and as all others make it.
func (v *service) look(j job, f *Build) error {
	ref, err := name.ParseReference(strings.Replace(j.image, v.registry, v.aside, 1), name.Insecure)
	if err != nil {
		return err
	}
	for text := range strings.SplitSeq(j.platforms, ",") {
		p, err := v1.ParsePlatform(text)
		if err != nil {
			return err
		}
		img, err := remote.Image(ref, remote.WithPlatform(*p))
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		layers, err := layersOf(img)
		if err != nil {
			return err
		}
		f.Layers += len(layers)
		for _, l := range layers {
			f.ImageBytes += l.Size
		}
		program, err := contentOf(img, v.workload.made)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		if err := machineIs(program, p.Architecture); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		if mark := v.project.mark(); !bytes.Contains(program, []byte(mark)) {
			return fmt.Errorf("%s: the program is not made of the sources as they are now: it lacks %q", text, mark)
		}
		if !v.scenario.cold { // the mark is another one each time
			continue
		}
		if first, ok := v.programs[text]; !ok {
			v.programs[text] = program
		} else if !bytes.Equal(first, program) {
			return fmt.Errorf("%s: the program is not the one that another builder has made", text)
		}
	}
	return nil
}

// machineIs is an error if a program is not for an architecture.
func machineIs(program []byte, arch string) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return err
	}
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want {
		return fmt.Errorf("the program is for %v, not for %v", f.Machine, want)
	}
	return nil
}

// serviceProject is a web server that knows nothing of platforms.
func serviceProject(ctx context.Context, b *bench) (*project, error) {
	files, address, err := goFiles(b, "\tfmt.Println(\""+marked+"\")\n\tgo http.ListenAndServe(\":8080\", nil)\n", "net/http")
	if err != nil {
		return nil, err
	}
	const compile = "go build -o /usr/local/bin/app ./cmd/app\n"
	const end = "FROM scratch\nCOPY --from=build /usr/local/bin/app /app\nCMD [\"/app\"]\n"
	environment := "ENV GOPROXY=" + address + "\nWORKDIR /src\n"
	const mounts = "--mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build "
	p, err := b.newProject("service", files, map[string]string{
		"naive": "FROM " + golangs + " AS build\n" + environment + "COPY . .\nRUN go mod download\nRUN CGO_ENABLED=0 " + compile + end,
		"by-hand": "FROM --platform=$BUILDPLATFORM " + golangs + " AS build\n" + environment +
			"COPY go.mod go.sum ./\nRUN --mount=type=cache,target=/go/pkg/mod go mod download\nCOPY . .\nARG TARGETOS TARGETARCH\n" +
			"RUN " + mounts + "CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH " + compile + end,
	})
	if err != nil {
		return nil, err
	}
	p.edit = "cmd/app/main.go"
	return p, p.tidy(ctx, b, address)
}

// golangs is the name of the base image with Go for two platforms, which stands in for the official one: that on Alpine has busybox and no C compiler, too.
const golangs = "golang:1.26-alpine"

const golangsFile = `ARG TARGETARCH
FROM REGISTRY/library/` + twoPlatforms + ` AS both
COPY <<END /etc/passwd
root:x:0:0:root:/root:/bin/sh
END
COPY --from=go VERSION go.env /usr/local/go/
COPY --from=go pkg/include /usr/local/go/pkg/include
COPY --from=go src /usr/local/go/src
FROM both AS amd64
COPY --from=go bin/go /usr/local/go/bin/go
COPY --from=go pkg/tool /usr/local/go/pkg/tool
FROM both AS arm64
COPY --from=other --chmod=755 bin/go /usr/local/go/bin/go
COPY --from=other --chmod=755 pkg/tool /usr/local/go/pkg/tool
FROM $TARGETARCH
ENV PATH=/go/bin:/usr/local/go/bin:/usr/bin:/bin GOPATH=/go GOTOOLCHAIN=local
`

// pushGolangs pushes that image. It is made once, without running anything of it: programs for arm64 are in a module of Go's proxy, all else is this machine's.
func (b *bench) pushGolangs(ctx context.Context) error {
	if err := b.pushPlatforms(ctx); err != nil {
		return err
	}
	cache, err := bases.CacheDir()
	if err != nil {
		return err
	}
	version, err := output("go", "env", "GOVERSION")
	if err != nil {
		return skipped("there is no go on this machine to make a base image with")
	}
	dir := filepath.Join(cache, "bench-golang-platforms-"+version+"-"+toolchainVersion)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := b.makeGolangs(ctx, dir, version); err != nil {
			return err
		}
	}
	images, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return err
	}
	m, err := images.IndexManifest()
	if err != nil {
		return err
	}
	if len(m.Manifests) != 1 {
		return fmt.Errorf("%s holds %d images, want 1", dir, len(m.Manifests))
	}
	index, err := images.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(b.registry+"/library/"+golangs, name.Insecure)
	if err != nil {
		return err
	}
	return remote.WriteIndex(ref, index, remote.WithContext(ctx))
}

func (b *bench) makeGolangs(ctx context.Context, dir, version string) error {
	fmt.Fprintf(os.Stderr, "  making the base image %s for two platforms (once; it is kept in the cache directory) …\n", golangs)
	root, err := output("go", "env", "GOROOT")
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(b.Dir, "context-")
	if err != nil {
		return err
	}
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", "golang.org/toolchain@v0.0.1-"+version+".linux-arm64")
	download.Dir = work // no module's
	text, err := download.Output()
	var module struct{ Dir, Error string }
	if jerr := json.Unmarshal(text, &module); err != nil || jerr != nil {
		return skipped(fmt.Sprintf("%s for arm64 can't be had: %v %s", version, errors.Join(err, jerr), module.Error))
	}
	if err := os.WriteFile(filepath.Join(work, "Dockerfile"), []byte(strings.ReplaceAll(golangsFile, "REGISTRY", b.registry)), 0o644); err != nil {
		return err
	}
	c := b.optbuildAs("", filepath.Join(b.Dir, "bases"), "build", "--optimize=off", "--platform=linux/amd64,linux/arm64", "-o", "type=oci,tar=false,dest="+dir,
		"--build-context", "go="+root, "--build-context", "other="+module.Dir, work)
	if err := execute(c); err != nil {
		return skipped(fmt.Sprintf("its base image can't be made: %v", err))
	}
	return nil
}
