package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/optbuild/optbuild/builder/runtime/standin"
)

// In a user namespace with a single id a stock container can't start: its devpts wants group 5, its process may want
// another user. There the runtime is a stand-in that corrects the specification.
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
		if err := standin.Link(runtime, name); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, aptConfName), []byte(aptConf), 0o644); err != nil {
		return "", err
	}
	return name + singleIDSuffix, standin.Link(self, name+singleIDSuffix)
}

// IsSingleID reports whether this process was started as the runtime that SingleID returned.
func IsSingleID() bool {
	return len(os.Args) > 0 && filepath.IsAbs(os.Args[0]) && strings.HasSuffix(os.Args[0], singleIDSuffix)
}

// RunSingleID is the main function of that process; it does not return.
func RunSingleID() {
	runtime := strings.TrimSuffix(os.Args[0], singleIDSuffix)
	err := standin.Become(runtime, fixSpec(filepath.Join(filepath.Dir(runtime), aptConfName)))
	fmt.Fprintln(os.Stderr, "run container with a single id:", err)
	os.Exit(1)
}

// fixSpec makes root of the container's user and of the owners of its mounts, and tells apt so.
func fixSpec(apt string) func(*specs.Spec) error {
	return func(s *specs.Spec) error {
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
		return nil
	}
}
