package emulation

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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
	if err := link(runtime, filepath.Join(dir, realName)); err != nil {
		return "", err
	}
	self := filepath.Join(dir, runtimeName)
	return self, link("/proc/self/exe", self) // of the engine, which starts it: there may be a newer binary at its path by now
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

// IsRuntime reports whether this process was started as the runtime that Runtime returned.
func IsRuntime() bool {
	return len(os.Args) > 0 && filepath.IsAbs(os.Args[0]) && filepath.Base(os.Args[0]) == runtimeName
}

// RunRuntime is the main function of that process; it does not return.
func RunRuntime() {
	dir := filepath.Dir(os.Args[0])
	runtime, err := os.Readlink(filepath.Join(dir, realName)) // the name that it was given by: it may be a stand-in itself
	if err == nil {
		err = joinNamespace(os.Args[1:], filepath.Join(dir, namespaceName))
	}
	if err == nil {
		err = syscall.Exec(runtime, append([]string{runtime}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, "run container with an emulator:", err)
	os.Exit(1)
}

// joinNamespace corrects the specification in the bundle that a runtime's arguments name, if they name one.
func joinNamespace(args []string, file string) error {
	for i, a := range args {
		if a != "--bundle" || i+1 == len(args) {
			continue
		}
		namespace, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		path := filepath.Join(args[i+1], "config.json")
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if b, err = fixSpec(b, string(namespace)); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		return os.WriteFile(path, b, 0o600)
	}
	return nil
}

// fixSpec has a container join the namespace. A fresh sysfs can't be mounted there with the machine's network: the machine's stands in.
func fixSpec(b []byte, namespace string) ([]byte, error) {
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	if s.Linux == nil {
		return nil, errors.New("it has no part for Linux")
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: namespace})
	for i, m := range s.Mounts {
		if m.Type == "sysfs" {
			s.Mounts[i] = specs.Mount{Destination: m.Destination, Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "rro"}}
		}
	}
	return json.Marshal(s)
}
