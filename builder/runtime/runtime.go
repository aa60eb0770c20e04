// Package runtime carries the OCI runtime inside the binary.
//
// What comes in is a state directory; what goes out is the path of a runc that was built from the module pinned in
// runc/go.mod. Runtimes found in PATH are not used: BuildKit needs a recent runc, and what distributions ship often fails
// every RUN. A user who insists names one with --oci-runtime.
package runtime

import (
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// embedded holds runc and runc.version when the binary was built by `make build`, and only a note otherwise.
//
//go:embed all:embedded
var embedded embed.FS

// ErrNotEmbedded means that the binary was built without its runtime.
var ErrNotEmbedded = errors.New("this optbuild was built without runc: build it with `make build`, or name one with --oci-runtime")

// Version returns the version of the embedded runc, such as "1.5.2", and "" if there is none.
func Version() string {
	b, err := embedded.ReadFile("embedded/runc.version")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Extract writes the embedded runc below dir, unless it is there already, and returns its path. The file's name holds the
// digest of its content, so several versions of optbuild can share dir.
func Extract(dir string) (string, error) {
	path, data, err := locate(dir)
	if err != nil {
		return "", err
	}
	defer data.Close()
	want, err := data.Stat()
	if err != nil {
		return "", err
	}
	if fi, err := os.Stat(path); err == nil && fi.Size() == want.Size() {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, ".runc-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	if _, err = io.Copy(f, data); err == nil {
		err = f.Chmod(0o755)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("extract runc: %w", err)
	}
	return path, os.Rename(f.Name(), path)
}

// locate opens the embedded runc, without reading it: it is 10 MB and this is part of each start.
func locate(dir string) (string, fs.File, error) {
	id, err := embedded.ReadFile("embedded/runc.sha256")
	if err != nil || len(id) < sha256.Size*2 {
		return "", nil, ErrNotEmbedded
	}
	f, err := embedded.Open("embedded/runc")
	if err != nil {
		return "", nil, ErrNotEmbedded
	}
	return filepath.Join(dir, "runc-"+string(id[:16])), f, nil
}
