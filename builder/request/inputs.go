package request

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/tonistiigi/fsutil"
)

// Errors about where the build's files come from. Hints for them are given in cmd.
var (
	ErrNoContext    = errors.New("the build context does not exist")
	ErrNoDockerfile = errors.New("there is no Dockerfile")
	ErrEmptyStdin   = errors.New("nothing came on standard input")
)

// InputError names the path that an input error is about.
type InputError struct {
	Path string
	Err  error
	Hint string
}

func (e *InputError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }
func (e *InputError) Unwrap() error { return e.Err }

// inputs sets up the context, the Dockerfile and the named contexts.
func (r *Request) inputs(s *Solve) error {
	if r.Context == "" {
		return &InputError{Path: "build", Err: ErrNoContext, Hint: "name a directory, a URL, or - for standard input: optbuild build ."}
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
	default:
		return contextError(r.Context)
	}
	if err := r.dockerfile(s, dockerfile); err != nil {
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
		return &InputError{Path: path, Err: ErrNoContext}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &InputError{Path: path, Err: err}
}

func (s *Solve) mountContext(dir string) error {
	abs, err := s.mount("context", dir)
	if err != nil {
		return err
	}
	s.ContextDir = abs
	s.SharedKey = sharedKey(abs)
	return nil
}

// mount offers a local directory to the build under a name, and returns its absolute path.
func (s *Solve) mount(name, dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.ReadDir(abs); err != nil {
		return "", contextError(abs)
	}
	f, err := fsutil.NewFS(abs)
	if err != nil {
		return "", &InputError{Path: abs, Err: err}
	}
	s.LocalMounts[name] = f
	return abs, nil
}

// sharedKey names a directory for the engine's copy of it. The copy is brought up to date by size and time stamps only, so
// two directories must never share one, as they would under docker's key, the directory's base name.
func sharedKey(dir string) string {
	if fi, err := os.Stat(dir); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			return fmt.Sprintf("%s:%d:%d", dir, st.Dev, st.Ino)
		}
	}
	return dir
}

// stdinContext reads the start of standard input: an archive becomes the context; anything else is a Dockerfile, returned.
func (r *Request) stdinContext(s *Solve) ([]byte, error) {
	in := bufio.NewReaderSize(r.Stdin, 64<<10)
	head, err := in.Peek(1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if len(head) == 0 {
		return nil, &InputError{Path: "-", Err: ErrEmptyStdin, Hint: "pipe a Dockerfile or an archive into optbuild build -"}
	}
	if isArchive(head) {
		up := uploadprovider.New()
		s.FrontendAttrs["context"] = up.Add(io.NopCloser(in))
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
	dir, err := s.stage.tempDir("", "context-")
	if err != nil {
		return nil, err
	}
	_, err = s.mount("context", dir)
	return b, err
}

// isArchive tells archives, plain or compressed, from Dockerfiles by their first bytes.
func isArchive(head []byte) bool {
	if compression.DetectCompression(head) != compression.Uncompressed {
		return true
	}
	if bytes.HasPrefix(head, []byte("BZh")) || bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")) {
		return true
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil
}

// dockerfile finds the Dockerfile and offers its directory to the build. content is not nil when it came with the context.
func (r *Request) dockerfile(s *Solve, content []byte) error {
	s.FrontendAttrs["filename"] = "Dockerfile"
	var err error
	switch {
	case content != nil:
	case r.File == "-":
		if content, err = io.ReadAll(r.Stdin); err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		if len(content) == 0 {
			return &InputError{Path: "-", Err: ErrEmptyStdin, Hint: "pipe a Dockerfile into optbuild build -f - ."}
		}
	case strings.HasPrefix(r.File, "http://"), strings.HasPrefix(r.File, "https://"):
		if content, err = download(r.File); err != nil {
			return err
		}
	case s.ContextDir == "" && !filepath.IsAbs(r.File): // in the remote context
		if r.File != "" {
			s.FrontendAttrs["filename"] = r.File
		}
		return nil
	default:
		return r.localDockerfile(s)
	}
	return s.mountDockerfile("Dockerfile", content, nil)
}

// mountDockerfile offers the text of a Dockerfile, and of its own ignore file if it has one, from a directory of its own.
func (s *Solve) mountDockerfile(name string, content, ignore []byte) error {
	dir, err := s.stage.tempDir("", "dockerfile-")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		return err
	}
	if ignore != nil {
		if err := os.WriteFile(filepath.Join(dir, name+".dockerignore"), ignore, 0o600); err != nil {
			return err
		}
	}
	s.FrontendAttrs["filename"], s.FrontendAttrs["dockerfilekey"] = name, "dockerfile"
	_, err = s.mount("dockerfile", dir)
	return err
}

func (r *Request) localDockerfile(s *Solve) error {
	path := r.File
	if path == "" {
		path = filepath.Join(s.ContextDir, "Dockerfile")
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if lower := filepath.Join(s.ContextDir, "dockerfile"); isFile(lower) {
				path = lower
			}
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &InputError{Path: path, Err: ErrNoDockerfile, Hint: dockerfileHint(path, r.File)}
	case err != nil:
		return contextError(path)
	case fi.IsDir():
		return &InputError{Path: path, Err: syscall.EISDIR, Hint: "-f names the Dockerfile itself, not its directory: -f " + filepath.Join(path, "Dockerfile")}
	}
	s.Dockerfile = path
	dir, name := filepath.Split(path)
	if real, err := filepath.EvalSymlinks(path); err == nil && filepath.Dir(real) != filepath.Clean(dir) && isLink(path) {
		// A link that leads out of its directory: the build would be offered the link without its target.
		content, err := os.ReadFile(path)
		if err != nil {
			return contextError(path)
		}
		ignore, err := os.ReadFile(path + ".dockerignore")
		if err != nil {
			ignore = nil
		}
		return s.mountDockerfile(name, content, ignore)
	}
	s.FrontendAttrs["filename"] = name
	_, err = s.mount("dockerfile", dir)
	return err
}

// dockerfileHint looks for what the user may have meant.
func dockerfileHint(path, flag string) string {
	dir := filepath.Dir(path)
	for _, pattern := range []string{"[Dd]ockerfile*", "*.[Dd]ockerfile", "Containerfile", "*/[Dd]ockerfile"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, f := range found {
			if isFile(f) && !strings.HasSuffix(f, ".dockerignore") {
				return "there is " + f + ": optbuild build -f " + f + " …"
			}
		}
	}
	if flag != "" && !filepath.IsAbs(flag) {
		return "-f is relative to the current directory, not to the context"
	}
	return "name it with -f, or give the directory that has one as the context"
}

// downloadLimit bounds a Dockerfile that is named by URL.
const downloadLimit = 2 << 20

func download(u string) ([]byte, error) {
	resp, err := http.Get(u) //nolint:gosec // the user's own argument
	if err != nil {
		return nil, &InputError{Path: u, Err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &InputError{Path: u, Err: fmt.Errorf("the server answered %s", resp.Status)}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, downloadLimit+1))
	if err == nil && len(b) > downloadLimit {
		err = fmt.Errorf("is larger than %d bytes", downloadLimit)
	}
	if err != nil {
		return nil, &InputError{Path: u, Err: err}
	}
	return b, nil
}

// namedContexts sets up --build-context NAME=WHERE.
func (r *Request) namedContexts(s *Solve) error {
	for _, flag := range r.BuildContexts {
		name, where, ok := strings.Cut(flag, "=")
		name = strings.ToLower(name)
		if !ok || name == "" || where == "" {
			return flagErrorf("build-context", flag, "is not NAME=PATH, NAME=docker-image://REF, NAME=oci-layout://PATH or NAME=URL")
		}
		attr := "context:" + name
		switch {
		case strings.HasPrefix(where, "oci-layout://"):
			ref, err := s.ociLayout(strings.TrimPrefix(where, "oci-layout://"))
			if err != nil {
				return &FlagError{"build-context", flag, err}
			}
			s.FrontendAttrs[attr] = ref
		case strings.HasPrefix(where, "docker-image://"), strings.HasPrefix(where, "target:"), !isDir(where) && isRemote(where):
			s.FrontendAttrs[attr] = where
		case isDir(where):
			local := name
			if local == "context" || local == "dockerfile" {
				local = "_" + local
			}
			abs, err := s.mount(local, where)
			if err != nil {
				return err
			}
			s.NamedDirs[name] = abs
			s.FrontendAttrs[attr] = "local:" + local
			s.FrontendAttrs["sharedkey:localdir:"+name] = sharedKey(abs)
		default:
			return &FlagError{"build-context", flag, contextError(where)}
		}
	}
	return nil
}

// ociLayout offers the image layout at PATH[:TAG][@DIGEST] to the build and returns the reference for the frontend.
func (s *Solve) ociLayout(where string) (string, error) {
	path, dgst, hasDigest := strings.Cut(where, "@")
	tag := ""
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
		path, tag = path[:i], path[i+1:]
	}
	if !isDir(path) {
		return "", contextError(path)
	}
	if !hasDigest {
		if tag == "" {
			tag = "latest"
		}
		desc, err := ociindex.NewStoreIndex(path).Get(tag)
		if err == nil && desc == nil {
			desc, err = ociindex.NewStoreIndex(path).GetSingle()
		}
		if err != nil || desc == nil {
			return "", fmt.Errorf("no image %q in the index of %s", tag, path)
		}
		dgst = desc.Digest.String()
	}
	store, err := local.NewStore(path)
	if err != nil {
		return "", fmt.Errorf("open image layout %s: %w", path, err)
	}
	id := fmt.Sprintf("layout%d", len(s.OCIStores))
	if s.OCIStores == nil {
		s.OCIStores = map[string]contentStore{}
	}
	s.OCIStores[id] = store
	return "oci-layout://" + id + "@" + dgst, nil
}

func isRemote(s string) bool {
	if u, err := url.Parse(s); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		return true
	}
	_, ok, err := dfgitutil.ParseGitRef(s)
	return ok && err == nil
}

func isGitSSH(s string) bool {
	if isDir(s) || !isRemote(s) {
		return false
	}
	return strings.HasPrefix(s, "ssh://") || strings.HasPrefix(s, "git@")
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

func isLink(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode()&fs.ModeSymlink != 0
}
