package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// In a user namespace with a single id a stock container can't start: its devpts wants group 5, its process may want
// another user. BuildKit's executor has no hook between writing a container's specification and starting the runtime, so
// there the runtime is this binary under another name, which corrects the specification and becomes the real runtime.
const singleIDSuffix = ".single-id"

// apt makes sure that it has really become another user, which it can't here. Its configuration comes from a file that
// APT_CONFIG names (apt.conf(5)); it is mounted where no layer sees it.
const (
	aptConf     = "APT::Sandbox::User \"root\";\n"
	aptConfName = "apt-single-id.conf"
	aptConfPath = "/dev/optbuild-apt.conf"
)

// SingleID returns the path of a runtime that runs containers of the given one in a user namespace with a single id. It is
// made in dir.
func SingleID(dir, runtime string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	name := filepath.Join(dir, filepath.Base(runtime))
	if name != runtime {
		if err := link(runtime, name); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, aptConfName), []byte(aptConf), 0o644); err != nil {
		return "", err
	}
	return name + singleIDSuffix, link(self, name+singleIDSuffix)
}

func link(target, name string) error {
	if old, err := os.Readlink(name); err == nil && old == target {
		return nil
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(target, name)
}

// IsSingleID reports whether this process was started as the runtime that SingleID returned.
func IsSingleID() bool {
	return len(os.Args) > 0 && filepath.IsAbs(os.Args[0]) && strings.HasSuffix(os.Args[0], singleIDSuffix)
}

// RunSingleID is the main function of that process; it does not return.
func RunSingleID() {
	runtime := strings.TrimSuffix(os.Args[0], singleIDSuffix)
	err := fixBundle(os.Args[1:], filepath.Join(filepath.Dir(runtime), aptConfName))
	if err == nil {
		err = syscall.Exec(runtime, append([]string{runtime}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, "run container with a single id:", err)
	os.Exit(1)
}

// fixBundle corrects the specification in the bundle that a runtime's arguments name, if they name one.
func fixBundle(args []string, apt string) error {
	for i, a := range args {
		if a != "--bundle" || i+1 == len(args) {
			continue
		}
		path := filepath.Join(args[i+1], "config.json")
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if b, err = fixSpec(b, apt); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		return os.WriteFile(path, b, 0o600)
	}
	return nil
}

// fixSpec makes root of the container's user and of the owners of its mounts, and tells apt so.
func fixSpec(b []byte, apt string) ([]byte, error) {
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	if s.Process != nil {
		s.Process.User.UID, s.Process.User.GID, s.Process.User.AdditionalGids = 0, 0, nil
	}
	for i, m := range s.Mounts {
		var options []string
		for _, o := range m.Options {
			if !strings.HasPrefix(o, "uid=") && !strings.HasPrefix(o, "gid=") {
				options = append(options, o)
			}
		}
		s.Mounts[i].Options = options
	}
	if s.Process != nil && !slices.ContainsFunc(s.Process.Env, func(kv string) bool { return strings.HasPrefix(kv, "APT_CONFIG=") }) {
		s.Process.Env = append(s.Process.Env, "APT_CONFIG="+aptConfPath)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: aptConfPath, Type: "bind", Source: apt, Options: []string{"bind", "ro"}})
	}
	return json.Marshal(s)
}
