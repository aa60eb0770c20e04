package fuzzbuild

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/optbuild/optbuild/integration/oracle"
)

// Product builds contexts with what it remembers from earlier builds in the same state directory: optbuild, or something that is
// to be found out.
type Product interface {
	Build(ctx context.Context, p *Project, dir, state string) (*Outcome, error)
}

// Optbuild is the command. It may be used concurrently, for different state directories.
type Optbuild struct {
	Bin string
	// Home holds configuration: .config/buildkit/buildkitd.toml names the mirror.
	Home string
	// Level is --optimize; "" is the default.
	Level string

	reader oracle.Reader
}

// Build runs `optbuild build`. The engine is one of its own, and ends with it.
func (o *Optbuild) Build(ctx context.Context, p *Project, dir, state string) (*Outcome, error) {
	return o.build(ctx, p, dir, state, state+".out", how{})
}

// how says what is special about a build.
type how struct {
	args []string
	push string // name of the image that is pushed; "" writes a layout
}

// build writes to the directory out.
func (o *Optbuild) build(ctx context.Context, p *Project, dir, state, out string, h how) (*Outcome, error) {
	r, err := o.start(ctx, p, dir, state, out, h)
	if err != nil {
		return nil, err
	}
	r.progress.read(nil)
	return o.finish(ctx, r)
}

// running is a build that was started.
type running struct {
	command  *exec.Cmd
	progress *progress
	out      string // directory of what it writes
	pushed   string // the image that it pushes; "" if it writes a layout
	stdout   bytes.Buffer
}

func (o *Optbuild) start(ctx context.Context, p *Project, dir, state, out string, h how) (*running, error) {
	r := &running{out: out, pushed: h.push}
	for _, file := range []string{r.metadata(), r.steps()} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return nil, err
	}
	output := "type=oci,tar=false,compression=uncompressed,dest=" + r.layout()
	// Layers are merged, as by default; what would be left out of them is to be compared.
	args := append([]string{"build", "--progress=rawjson", "--strip=off", "--metadata-file", r.metadata()}, h.args...)
	if r.pushed != "" {
		args = append(args, "--push", "-t", r.pushed)
	} else {
		args = append(args, "-o", output)
	}
	if o.Level != "" {
		args = append(args, "--optimize="+o.Level)
	}
	for _, option := range p.Case.Options {
		args = append(args, "--"+option[0], option[1])
	}
	env := append(o.env(state), "OPTBUILD_STEPS_LOG="+r.steps())
	for id, value := range p.Secrets {
		args = append(args, "--secret", "id="+id+",env=SECRET_"+id)
		env = append(env, "SECRET_"+id+"="+value)
	}
	r.command = exec.CommandContext(ctx, o.Bin, append(args, dir)...)
	r.command.Env = env
	r.command.Stdout = &r.stdout
	pipe, err := r.command.StderrPipe()
	if err != nil {
		return nil, err
	}
	r.progress = &progress{lines: bufio.NewReader(pipe)}
	if err := r.command.Start(); err != nil {
		return nil, fmt.Errorf("start optbuild: %w", err)
	}
	return r, nil
}

func (o *Optbuild) env(state string) []string {
	return append(os.Environ(), "HOME="+o.Home, "XDG_CONFIG_HOME="+filepath.Join(o.Home, ".config"), "OPTBUILD_ROOT="+state)
}

func (r *running) layout() string   { return filepath.Join(r.out, "layout") }
func (r *running) metadata() string { return filepath.Join(r.out, "metadata.json") }
func (r *running) steps() string    { return filepath.Join(r.out, "steps.jsonl") }

// finish waits for the end of a build whose progress was read to its end.
func (o *Optbuild) finish(ctx context.Context, r *running) (*Outcome, error) {
	err := r.command.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	out := &Outcome{Log: r.progress.log.String(), Copied: r.progress.copied}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		out.Failed = failure(r.progress.text.String())
		out.Steps, err = readSteps(r.steps(), r.progress)
		return out, err
	}
	if err != nil {
		return nil, fmt.Errorf("optbuild build: %w\n%s", err, r.progress.text.String())
	}
	if out.Steps, err = readSteps(r.steps(), r.progress); err != nil {
		return nil, err
	}
	images, err := r.images(ctx)
	if err != nil {
		return nil, fmt.Errorf("read optbuild's image: %w", err)
	}
	if out.Image, err = only(&o.reader, images); err != nil {
		return nil, fmt.Errorf("read optbuild's image: %w", err)
	}
	if out.Blobs, err = blobs(images); err != nil {
		return nil, fmt.Errorf("read optbuild's image: %w", err)
	}
	out.Residue, err = residue(r.metadata())
	return out, err
}

// images are what the build has made.
func (r *running) images(ctx context.Context) (map[string]v1.Image, error) {
	if r.pushed == "" {
		return oracle.Layout(r.layout())
	}
	ref, err := name.ParseReference(r.pushed, name.Insecure)
	if err != nil {
		return nil, err
	}
	image, err := remote.Image(ref, remote.WithContext(ctx))
	return map[string]v1.Image{"": image}, err
}

// blobs are the digests of the layers of images.
func blobs(images map[string]v1.Image) (list []string, err error) {
	for _, i := range images {
		m, err := i.Manifest()
		if err != nil {
			return nil, err
		}
		for _, l := range m.Layers {
			list = append(list, l.Digest.Hex)
		}
	}
	return list, nil
}

// residue are the paths that remarks in the metadata of a build declare to be missing.
func residue(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var metadata struct {
		Remarks []struct {
			Kind    string
			Residue []string
		} `json:"optbuild.remarks"`
	}
	if err := json.Unmarshal(b, &metadata); err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}
	var out []string
	for _, m := range metadata.Remarks {
		if m.Kind == "passed" {
			out = append(out, m.Residue...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Prune runs `optbuild prune`.
func (o *Optbuild) Prune(ctx context.Context, state string, args ...string) error {
	c := exec.CommandContext(ctx, o.Bin, append([]string{"prune"}, args...)...)
	c.Env = o.env(state)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("optbuild prune: %w\n%s", err, out)
	}
	return nil
}

// progress reads what a build prints with --progress=rawjson.
type progress struct {
	lines  *bufio.Reader
	events int
	text   strings.Builder // lines that are not JSON
	log    strings.Builder // what the steps printed
	// vertices are the RUN steps by digest, in the order in which they were named.
	order    []string
	vertices map[string]*vertex
	copied   bool // a COPY or ADD was made
}

type vertex struct {
	Digest    string
	Name      string
	Started   *time.Time
	Completed *time.Time
	Cached    bool
	Error     string
}

// read reads to the end; after each line it calls after with the number of lines so far.
func (p *progress) read(after func(events int)) {
	p.vertices = map[string]*vertex{}
	for {
		line, err := p.lines.ReadString('\n')
		if line != "" {
			p.line(line)
			p.events++
			if after != nil {
				after(p.events)
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *progress) line(line string) {
	var status struct {
		Vertexes []*vertex
		Logs     []struct{ Data []byte }
	}
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &status) != nil {
		p.text.WriteString(line)
		return
	}
	for _, v := range status.Vertexes {
		if isCopy(v.Name) && v.Completed != nil && !v.Cached {
			p.copied = true
		}
		if isRun(v.Name) {
			if p.vertices[v.Digest] == nil {
				p.order = append(p.order, v.Digest)
			}
			p.vertices[v.Digest] = v
		}
	}
	for _, l := range status.Logs {
		p.log.Write(l.Data)
	}
}
