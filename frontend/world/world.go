// Package world gathers facts of the world for commands that have no engine.
//
// In come a Dockerfile and the directory that it builds, as they lie on this machine; out comes a [plan.Facts]: what the build context holds
// under .dockerignore, and what is known by heart of official images. The package asks no registry and no daemon, so what it says of images is
// marked as assumed, and what it does not know it leaves out.
//
// Weak where a Dockerfile builds on images of one's own: nothing is known of them here, and passes that need their user or environment refuse.
package world

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/platforms"
	"github.com/moby/patternmatcher/ignorefile"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/frontend/plan"
)

// Source is a Dockerfile and the directory that it builds.
type Source struct {
	Context string // directory
	Path    string // of the Dockerfile, "" if it came from a stream
	Name    string // of the Dockerfile for messages, as the user knows it
	Data    []byte
}

var (
	// ErrNoDockerfile is in the error of Open if the file is not there.
	ErrNoDockerfile = errors.New("there is no Dockerfile")
	// ErrContext is in the error of Open if the context is no directory.
	ErrContext = errors.New("the context is not a directory")
)

// dockerfileLimit bounds a Dockerfile: BuildKit's frontend gets it in one message, which can't be larger.
const dockerfileLimit = 16 << 20

// Open reads a Dockerfile as `docker build -f file context` finds it: file is relative to the working directory, "-" is stdin, "" is
// Dockerfile in the context.
func Open(context, file string, stdin io.Reader) (*Source, error) {
	fi, err := os.Stat(context)
	if err != nil {
		return nil, fmt.Errorf("open context: %w", err)
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("open context: %s: %w", context, ErrContext)
	}
	s := &Source{Context: context}
	if file == "-" {
		s.Name = "Dockerfile"
		s.Data, err = readAll("standard input", stdin)
		return s, err
	}
	if file == "" {
		file = filepath.Join(context, "Dockerfile")
	}
	if filepath.Base(file) == "Dockerfile" {
		lower := filepath.Join(filepath.Dir(file), "dockerfile")
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) && regular(lower) {
			file = lower
		}
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: %w", file, ErrNoDockerfile)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s.Path, s.Name = file, file
	s.Data, err = readAll(file, f)
	return s, err
}

func regular(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.Mode().IsRegular()
}

func readAll(name string, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, dockerfileLimit+1))
	if err == nil && len(b) > dockerfileLimit {
		err = fmt.Errorf("%s is larger than %d MB", name, dockerfileLimit>>20)
	}
	return b, err
}

// Options are what a build would be told.
type Options struct {
	BuildArgs map[string]string
	Target    string
	Targets   []ocispecs.Platform
	Named     []string              // what --build-context names
	Images    map[string]plan.Image // base images that are known from elsewhere, by FROM's name

	// Wants lists paths, or patterns of path.Match, whose content the compiler would like to know; nil for none. It is given all other facts.
	Wants func(*plan.Plan, *plan.Facts) []string
}

// Local makes the facts for the plan of s. What can't be read is unknown, not an error; an ignore file that can't be is an error, as for a build.
func Local(p *plan.Plan, s *Source, o Options) (*plan.Facts, error) {
	f := &plan.Facts{BuildArgs: o.BuildArgs, Target: o.Target, Targets: o.Targets, Build: buildPlatform(), Images: map[string]plan.Image{}, Named: map[string]bool{}}
	for _, name := range o.Named {
		f.Named[plan.ContextName(name)] = true
	}
	for _, st := range p.Stages {
		if base, name, ok := p.Resolve(st, f); ok && base == nil {
			if img, ok := o.Images[name]; ok {
				f.Images[name] = img
			} else if img, ok := Official(name); ok {
				f.Images[name] = img
			}
		}
	}
	name, text, err := s.Ignore()
	if err != nil {
		return nil, err
	}
	ignore, err := ignorefile.ReadAll(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read ignore file %s: %w", name, err)
	}
	tree, err := list(s.Context, ignore)
	if err != nil {
		return nil, err
	}
	f.Context = &plan.Context{Paths: tree.paths, Complete: tree.complete, Ignore: name != ""}
	tree.read(nil)
	for known := -1; o.Wants != nil; {
		wants := o.Wants(p, f)
		if len(wants) <= known { // it only grows, with what is known
			break
		}
		known = len(wants)
		tree.read(wants)
	}
	return f, nil
}

// buildPlatform is where steps would run: Linux, on this machine's processor.
func buildPlatform() ocispecs.Platform {
	p := platforms.Normalize(platforms.DefaultSpec())
	return ocispecs.Platform{OS: "linux", Architecture: p.Architecture, Variant: p.Variant}
}
