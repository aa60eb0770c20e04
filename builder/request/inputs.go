package request

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/tonistiigi/fsutil"
)

// Errors about where the build's files come from.
var (
	errNoContext    = errors.New("the build context does not exist")
	errNoDockerfile = errors.New("there is no Dockerfile")
	errEmptyStdin   = errors.New("nothing came on standard input")
	errNoText       = errors.New("standard input is neither an archive nor a Dockerfile")
)

// InputError names the path that an input error is about, and what to do about it.
type InputError struct {
	Path string
	Err  error
	Hint string // "" for none
}

func (e *InputError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }
func (e *InputError) Unwrap() error { return e.Err }

// inputs sets up the context, the Dockerfile and the named contexts.
func (r *Request) inputs(ctx context.Context, s *Solve) error {
	if r.Context == "" {
		return &InputError{Path: "build", Err: errNoContext, Hint: "name a directory, a URL, or - for standard input: optbuild build ."}
	}
	if r.Context == "-" && r.File == "-" {
		return flagErrorf("file", "-", "standard input can be the context or the Dockerfile, not both")
	}
	var dockerfile []byte // from a stream
	switch {
	case r.Context == "-":
		var err error
		if dockerfile, err = r.stdinContext(s); err != nil {
			return err
		}
	case isDir(r.Context):
		if err := s.mountContext(r.Context); err != nil {
			return err
		}
	case isRemote(r.Context):
		s.FrontendAttrs["context"] = r.Context
		s.needGitQuery(r.Context, "moby.buildkit.frontend.gitquerystring")
	default:
		return contextError(r.Context)
	}
	if err := r.dockerfile(ctx, s, dockerfile); err != nil {
		return err
	}
	return r.namedContexts(s)
}

func contextError(path string) error {
	_, err := os.Stat(path)
	switch {
	case err == nil:
		return &InputError{Path: path, Err: syscall.ENOTDIR, Hint: "the context is a directory, a URL, or - for an archive on standard input; a Dockerfile is named with -f"}
	case errors.Is(err, fs.ErrNotExist):
		return &InputError{Path: path, Err: errNoContext}
	}
	return &InputError{Path: path, Err: cause(err)}
}

// cause is an error of the file system without the operation and the path.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (s *Solve) mountContext(dir string) error {
	abs, err := s.mount("context", dir)
	s.ContextDir = abs
	return err
}

// mount offers a local directory to the build under a name, and returns its absolute path.
func (s *Solve) mount(name, dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	if _, err := os.ReadDir(abs); err != nil {
		return "", &InputError{Path: dir, Err: cause(err), Hint: "the build reads this directory as the user who runs it"}
	}
	if ignore := filepath.Join(abs, ".dockerignore"); isPipe(ignore) { // the engine would wait for it for ever
		return "", &InputError{Path: ignore, Err: errPipe}
	}
	f, err := fsutil.NewFS(abs)
	if err != nil {
		return "", &InputError{Path: abs, Err: err}
	}
	f = hardlinks{f, abs}
	if s.modes != nil {
		if s.modes[abs] == nil {
			s.modes[abs] = &modes{}
		}
		f = trackedModes{f, s.modes[abs]}
	}
	s.LocalMounts[name] = s.ledger.FS(name, abs, unreadable{f, abs, s.unreadable, s.released})
	return abs, nil
}

// stdinContext reads the start of standard input: an archive becomes the context; anything else is a Dockerfile, returned.
func (r *Request) stdinContext(s *Solve) ([]byte, error) {
	in := bufio.NewReaderSize(r.Stdin, 64<<10)
	head, err := in.Peek(1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if len(head) == 0 {
		return nil, &InputError{Path: "-", Err: errEmptyStdin, Hint: "pipe a Dockerfile or an archive into optbuild build -"}
	}
	if isArchive(head) {
		archive := io.NopCloser(in)
		if !compressed(head) {
			archive = newWholeTar(in, func() {
				s.report(&InputError{Path: "-", Err: errCutOff, Hint: "see what happened to the command that writes it"})
				<-s.released // as for files that can't be read: the build has to be cancelled with this as its cause
			})
		}
		up := uploadprovider.New()
		s.FrontendAttrs["context"] = up.Add(archive)
		s.Session = append(s.Session, up)
		return nil, nil
	}
	if r.File != "" {
		return nil, flagErrorf("file", r.File, "standard input is a Dockerfile already")
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, &InputError{Path: "-", Err: errNoText, Hint: "archives may be plain or compressed with gzip, zstd, xz or bzip2"}
	}
	s.LocalMounts["context"] = memory{}
	return b, nil
}

// needGitQuery asks for a frontend that understands a query in git URLs; an older one named by a syntax line then says so.
func (s *Solve) needGitQuery(u, capability string) {
	if g, err := gitutil.ParseURL(u); err == nil && len(g.Query) > 0 {
		s.need(capability)
	}
}

// need adds a capability to the ones that the frontend must have.
func (s *Solve) need(capability string) {
	var caps []string
	if have := s.FrontendAttrs["frontend.caps"]; have != "" {
		caps = strings.Split(have, ",")
	}
	if !slices.Contains(caps, capability) {
		caps = append(caps, capability)
		slices.Sort(caps)
	}
	s.FrontendAttrs["frontend.caps"] = strings.Join(caps, ",")
}

func isRemote(s string) bool {
	if u, err := url.Parse(s); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		return true
	}
	_, ok, err := dfgitutil.ParseGitRef(s)
	return ok && err == nil
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func isPipe(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode()&fs.ModeNamedPipe != 0
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}
