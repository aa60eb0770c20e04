package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/frontend/diagnose"
)

// buildError is the error of a failed build, with what helps to understand it.
type buildError struct {
	*diagnose.Diagnosis
	cause error
	// log is that of the failed step, nil if it has none; lines is how many of its lines to print.
	log   *shownLog
	lines int
	// shown says that the build's progress is above the error.
	shown bool
	// path of the Dockerfile, absolute; "" if it is not a local file.
	path string
}

func (e *buildError) Unwrap() error { return e.cause }

// explain makes an engine's error one for people.
func (b *build) explain(err error, rec *recorder, show *display) error {
	f := failureOf(err)
	vertex := failedVertex(err)
	f.Step = rec.nameOf(vertex)
	path := b.solve.Dockerfile
	if path != "" {
		f.File = shortPath(path)
		if f.First == 0 { // perhaps the step's name tells the line
			f.Source, _ = os.ReadFile(path)
		}
	}
	e := &buildError{Diagnosis: diagnose.Explain(f, b.files()), cause: err, lines: show.logLines(), shown: show.readable(), path: path}
	if message, hint := registry.Explain(err); message != "" && !fetched.MatchString(f.Text) {
		e.Message = message
		if !slices.ContainsFunc(e.Hints, func(h string) bool { return strings.HasPrefix(h, "did you mean") }) {
			e.Hints = append(e.Hints, hint)
		}
	}
	if message, hint := emulation.Explain(f.Text); message != "" {
		e.Message = message
		e.Hints = append(e.Hints, hint)
	}
	if vertex != "" || e.First > 0 { // else it is not a step's error
		e.log = rec.logOf(vertex)
	}
	switch {
	case full(f.Text, e.log), strings.HasSuffix(f.Text, io.EOF.Error()) && b.outputFull() != "":
		message, hint := explainFull(f.Text+b.outputFull(), b.state)
		if f.Exited {
			hint = message + ": " + hint
		} else {
			e.Message = message
		}
		e.Hints = append(e.Hints, hint)
	case strings.Contains(f.Text, "docker exporter does not currently support exporting manifest lists"):
		e.Hints = append(e.Hints, "load one platform (--platform), or write all of them to a file: -o type=oci,dest=FILE")
	}
	return e
}

// fetched matches errors of ADD with a URL, which look like a registry's.
var fetched = regexp.MustCompile(`failed to load cache key: (?:Get|Head) "http`)

// failureOf takes the facts out of an error of BuildKit's client.
func failureOf(err error) diagnose.Failure {
	f := diagnose.Failure{Text: err.Error()}
	for _, s := range errdefs.Sources(err) {
		if first, last := span(s.Ranges); first > 0 && s.Info != nil {
			f.File, f.Source, f.First, f.Last = s.Info.Filename, s.Info.Data, first, last
			break
		}
	}
	var exit *gatewayapi.ExitError
	if errors.As(err, &exit) {
		f.Exited, f.ExitCode = true, int(exit.ExitCode)
		f.OutOfMemory = strings.HasSuffix(f.Text, syscall.ENOMEM.Error()) // how the executor tells
	}
	return f
}

func failedVertex(err error) digest.Digest {
	var v *errdefs.VertexError
	if errors.As(err, &v) {
		return digest.Digest(v.Digest)
	}
	return ""
}

// span is the first and the last line of ranges, 0 if there are none.
func span(ranges []*pb.Range) (first, last int) {
	for _, r := range ranges {
		start := int(r.GetStart().GetLine())
		end := max(start, int(r.GetEnd().GetLine()))
		if first == 0 || start < first {
			first = start
		}
		last = max(last, end)
	}
	return first, last
}

// files is the build's context as it is on the disk.
func (b *build) files() diagnose.Context {
	return contextFiles(b.solve)
}

func contextFiles(s *request.Solve) diagnose.Context {
	c := diagnose.Context{Named: map[string]fs.FS{}, NoAgent: !s.SSH}
	for name, dir := range s.NamedDirs {
		c.Named[name] = os.DirFS(dir)
	}
	if s.ContextDir == "" {
		c.None = s.FrontendAttrs["context"] == ""
		return c
	}
	c.Files = os.DirFS(s.ContextDir)
	ignore := filepath.Join(s.ContextDir, ".dockerignore")
	if own := s.Dockerfile + ".dockerignore"; s.Dockerfile != "" {
		if _, err := os.Stat(own); err == nil {
			ignore = own
		}
	}
	if text, err := request.ReadText(ignore); err == nil {
		c.Ignore = diagnose.IgnoreFile{Name: shortPath(ignore), Text: string(text)}
	}
	return c
}

// shortPath is a path relative to the working directory if it is below that.
func shortPath(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	return relativeTo(wd, path)
}

func relativeTo(dir, path string) string {
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return path
	}
	return rel
}
