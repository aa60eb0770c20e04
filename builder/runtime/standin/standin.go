// Package standin is for programs that stand in for an OCI runtime: this binary under another name, which corrects a container's
// specification and becomes the real runtime. BuildKit's executor has no hook between writing the specification and starting the
// runtime.
package standin

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Link makes name a symbolic link to target, whatever it was.
func Link(target, name string) error {
	if old, err := os.Readlink(name); err == nil && old == target {
		return nil
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(target, name)
}

// Become corrects the specification that the process's arguments name, with fix, and becomes the runtime. It returns when that fails.
func Become(runtime string, fix func(*specs.Spec) error) error {
	if err := FixBundle(os.Args[1:], fix); err != nil {
		return err
	}
	return syscall.Exec(runtime, append([]string{runtime}, os.Args[1:]...), os.Environ())
}

// FixBundle corrects the specification in the bundle that a runtime's arguments name, if they name one.
func FixBundle(args []string, fix func(*specs.Spec) error) error {
	for i, a := range args {
		if a != "--bundle" || i+1 == len(args) {
			continue
		}
		path := filepath.Join(args[i+1], "config.json")
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var s specs.Spec
		if err := json.Unmarshal(b, &s); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if err := fix(&s); err != nil {
			return fmt.Errorf("correct %s: %w", path, err)
		}
		if b, err = json.Marshal(s); err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o600)
	}
	return nil
}
