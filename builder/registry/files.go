package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	bkconfig "github.com/moby/buildkit/cmd/buildkitd/config"
	resolverconfig "github.com/moby/buildkit/util/resolver/config"
	"github.com/pelletier/go-toml/v2"
)

// FileError is an error in a configuration file.
type FileError struct {
	Path string
	Line int // 0 when unknown
	Err  error
}

func (e *FileError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Path, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// readFile returns nil for a file that does not exist, or that this user may not read: the system's configuration can hold
// files for root only.
func readFile(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	var pe *fs.PathError
	switch {
	case err == nil:
		return b, nil
	case absent(err):
		return nil, nil
	case errors.As(err, &pe):
		return nil, &FileError{Path: path, Err: pe.Err}
	}
	return nil, &FileError{Path: path, Err: err}
}

func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// daemonJSON is what docker's daemon.json says about registries.
type daemonJSON struct {
	Mirrors  []string `json:"registry-mirrors"`
	Insecure []string `json:"insecure-registries"`
}

func readDaemonJSON(path string) (d daemonJSON, err error) {
	b, err := readFile(path)
	if len(bytes.TrimSpace(b)) == 0 || err != nil {
		return d, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return daemonJSON{}, jsonError(path, b, err)
	}
	return d, nil
}

func jsonError(path string, b []byte, err error) error {
	offset := int64(0)
	var se *json.SyntaxError
	var te *json.UnmarshalTypeError
	if errors.As(err, &se) {
		offset = se.Offset
	} else if errors.As(err, &te) {
		offset = te.Offset
	}
	return &FileError{Path: path, Line: 1 + bytes.Count(b[:min(int(offset), len(b))], []byte{'\n'}), Err: err}
}

// readBuildkitd returns the [registry] tables of a buildkitd.toml.
func readBuildkitd(path string) (map[string]resolverconfig.RegistryConfig, error) {
	b, err := readFile(path)
	if b == nil || err != nil {
		return nil, err
	}
	c, err := bkconfig.Load(bytes.NewReader(b))
	if err != nil {
		return nil, tomlError(path, err)
	}
	return c.Registries, nil
}

func tomlError(path string, err error) error {
	var de *toml.DecodeError
	if errors.As(err, &de) {
		line, _ := de.Position()
		return &FileError{Path: path, Line: line, Err: errors.New(strings.TrimPrefix(de.Error(), "toml: "))}
	}
	return &FileError{Path: path, Err: err}
}

func pathErr(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
