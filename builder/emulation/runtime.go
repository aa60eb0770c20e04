package emulation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/optbuild/optbuild/builder/runtime/standin"
)

// The runtime's stand-in has the name of this binary; what it stands for, and the namespace, are beside it.
const (
	runtimeName   = "optbuild-emulating"
	realName      = "runtime"
	namespaceName = "namespace"
)

// Runtime makes, in dir, a runtime that runs the containers of the given one in a user namespace, and returns its path. A dir has one.
func Runtime(dir, runtime, namespace string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, namespaceName), []byte(namespace), 0o600); err != nil {
		return "", err
	}
	if err := standin.Link(runtime, filepath.Join(dir, realName)); err != nil {
		return "", err
	}
	self := filepath.Join(dir, runtimeName)
	return self, standin.Link("/proc/self/exe", self) // of the engine, which starts it: there may be a newer binary at its path by now
}

// IsRuntime reports whether this process was started as the runtime that Runtime returned.
func IsRuntime() bool {
	return len(os.Args) > 0 && filepath.IsAbs(os.Args[0]) && filepath.Base(os.Args[0]) == runtimeName
}

// RunRuntime is the main function of that process; it does not return.
func RunRuntime() {
	dir := filepath.Dir(os.Args[0])
	runtime, err := os.Readlink(filepath.Join(dir, realName)) // the name that it was given by: it may be a stand-in itself
	if err == nil {
		err = standin.Become(runtime, joinNamespace(filepath.Join(dir, namespaceName)))
	}
	fmt.Fprintln(os.Stderr, "run container with an emulator:", err)
	os.Exit(1)
}

// joinNamespace has a container join the namespace that a file names. A fresh sysfs can't be mounted there with the machine's network: the machine's stands in.
func joinNamespace(file string) func(*specs.Spec) error {
	return func(s *specs.Spec) error {
		if s.Linux == nil {
			return errors.New("it has no part for Linux")
		}
		namespace, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: string(namespace)})
		for i, m := range s.Mounts {
			if m.Type == "sysfs" {
				s.Mounts[i] = specs.Mount{Destination: m.Destination, Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "rro"}}
			}
		}
		return nil
	}
}
