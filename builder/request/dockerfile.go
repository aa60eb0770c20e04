package request

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dockerfile finds the Dockerfile and offers it to the build. content is not nil when it came with the context.
func (r *Request) dockerfile(ctx context.Context, s *Solve, content []byte) error {
	s.FrontendAttrs["filename"] = "Dockerfile"
	var err error
	switch {
	case content != nil:
	case r.File == "-":
		if content, err = readAll("-", r.Stdin); err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		if len(content) == 0 {
			return &InputError{Path: "-", Err: errEmptyStdin, Hint: "pipe a Dockerfile into optbuild build -f - ."}
		}
	case strings.HasPrefix(r.File, "http://"), strings.HasPrefix(r.File, "https://"):
		if content, err = download(ctx, r.File); err != nil {
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
	s.offerDockerfile("Dockerfile", content, nil)
	return nil
}

// offerDockerfile offers a Dockerfile's text, and that of its own ignore file if it has one.
//
// They are sent from memory, with times that are made of their content. BuildKit knows its copy of a Dockerfile by the key of
// the *context*, and compares size and time only: two Dockerfiles of one context that have the same size and time (a
// checkout with normalised times) would be taken for one another.
func (s *Solve) offerDockerfile(name string, content, ignore []byte) {
	f := memory{name: {content, contentTime(content)}}
	if ignore != nil {
		f[name+".dockerignore"] = memoryFile{ignore, contentTime(ignore)}
	}
	s.FrontendAttrs["filename"] = name
	s.LocalMounts["dockerfile"] = f
	if s.ContextDir == "" {
		s.FrontendAttrs["dockerfilekey"] = "dockerfile" // not the one in the context
	}
}

// dockerfileText is the text of the Dockerfile, nil if it is remote.
func (s *Solve) dockerfileText() []byte {
	f, _ := s.LocalMounts["dockerfile"].(memory)
	return f[s.FrontendAttrs["filename"]].content
}

// contentTime is a time between 1970 and 2038 that stands for a content.
func contentTime(content []byte) int64 {
	sum := sha256.Sum256(content)
	seconds := binary.LittleEndian.Uint32(sum[:]) >> 1
	nanoseconds := binary.LittleEndian.Uint32(sum[4:]) % 1e9
	return int64(seconds)*1e9 + int64(nanoseconds)
}

func (r *Request) localDockerfile(s *Solve) error {
	path := r.File
	if path == "" {
		path = filepath.Join(s.ContextDir, "Dockerfile")
	}
	if filepath.Base(path) == "Dockerfile" {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if lower := filepath.Join(filepath.Dir(path), "dockerfile"); isFile(lower) {
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
		return &InputError{Path: path, Err: errNoDockerfile, Hint: dockerfileHint(path, r.File)}
	case err != nil:
		return contextError(path)
	case fi.IsDir():
		return &InputError{Path: path, Err: syscall.EISDIR, Hint: "-f names the Dockerfile itself, not its directory: -f " + filepath.Join(path, "Dockerfile")}
	}
	s.Dockerfile = path
	read := ReadText
	if r.File != "" {
		read = readNamed
	}
	content, err := read(path)
	if err != nil {
		return &InputError{Path: path, Err: cause(err)}
	}
	ignore, err := ReadText(path + ".dockerignore")
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR): // BuildKit takes no notice of a directory either
		ignore = nil
	case err != nil: // without it, files would be sent that the user wants to keep
		return &InputError{Path: path + ".dockerignore", Err: cause(err)}
	case ignore == nil:
		ignore = []byte{}
	}
	s.offerDockerfile(filepath.Base(path), content, ignore)
	return nil
}

// dockerfileHint looks for what the user may have meant.
func dockerfileHint(path, flag string) string {
	dir := filepath.Dir(path)
	for _, pattern := range []string{"[Dd]ockerfile*", "*.[Dd]ockerfile", "Containerfile", "*/[Dd]ockerfile"} {
		found, _ := fs.Glob(os.DirFS(dir), pattern)
		for _, f := range found {
			if f = filepath.Join(dir, f); isFile(f) && !strings.HasSuffix(f, ".dockerignore") {
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

func download(ctx context.Context, u string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, &InputError{Path: u, Err: err}
	}
	resp, err := http.DefaultClient.Do(req)
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
