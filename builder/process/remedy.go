package process

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// NamespaceError says that the kernel, or a policy on top of it, refused the engine its namespaces.
type NamespaceError struct {
	Kind Kind
	Op   string
	Err  error
}

func newNamespaceError(s Shape, op string, err error) *NamespaceError {
	return &NamespaceError{Kind: s.Kind, Op: op, Err: err}
}

func (e *NamespaceError) Error() string {
	return fmt.Sprintf("start the engine as %s: %s: %v", e.Kind, e.Op, e.Err)
}

func (e *NamespaceError) Unwrap() error { return e.Err }

// Remedy is the line that tells a person what to do about an error of this package, "" when there is nothing to say.
func Remedy(err error) string {
	var ne *NamespaceError
	var de *DirError
	switch {
	case errors.As(err, &ne):
		return namespaceRemedy(ne)
	case errors.Is(err, ErrForeignDir):
		return "give this user a state directory of its own: optbuild --root DIR, or OPTBUILD_ROOT"
	case errors.Is(err, ErrNewerLayout):
		return "use the newer optbuild, another --root, or delete the directory (only caches and local images are lost)"
	case errors.Is(err, ErrBadDir):
		return "choose another state directory (optbuild --root DIR, or OPTBUILD_ROOT), or delete this one"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free some space on the disk of the state directory, or choose another: optbuild --root DIR; `optbuild prune` empties the cache"
	case errors.As(err, &de), errors.Is(err, syscall.EROFS):
		return "choose a writable state directory: optbuild --root DIR, or OPTBUILD_ROOT"
	case errors.Is(err, ErrBusy):
		return "end the process named in the message, or choose another state directory: optbuild --root DIR"
	}
	return ""
}

func namespaceRemedy(e *NamespaceError) string {
	switch {
	case errors.Is(e.Err, syscall.ENOSPC):
		return "the kernel's limit of namespaces is used up: sysctl -w user.max_user_namespaces=15000 user.max_mnt_namespaces=15000 user.max_pid_namespaces=15000"
	case readInt("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1:
		return "AppArmor forbids user namespaces to unknown programs; as root:\n" + AppArmorCommands()
	case readInt("/proc/sys/kernel/unprivileged_userns_clone") == 0:
		return "user namespaces are switched off for users: sysctl -w kernel.unprivileged_userns_clone=1"
	case readInt("/proc/sys/user/max_user_namespaces") == 0:
		return "user namespaces are switched off: sysctl -w user.max_user_namespaces=15000"
	case errors.Is(e.Err, syscall.EPERM), errors.Is(e.Err, syscall.EACCES):
		return "a seccomp or LSM policy forbids namespaces here; in a container: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined (Kubernetes: seccompProfile Unconfined)"
	case e.Op == "map ids":
		return "give the user subordinate ids, as root: " + SubIDCommand(currentUser())
	}
	return ""
}

// SubIDCommand is the line, for root, that gives the user subordinate ids.
func SubIDCommand(name string) string {
	return "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + name
}

// AppArmorProfile is the text of a profile that allows this very binary to make user namespaces.
func AppArmorProfile(binary string) string {
	return fmt.Sprintf("abi <abi/4.0>,\ninclude <tunables/global>\nprofile optbuild %s flags=(unconfined) {\n  userns,\n}\n", binary)
}

// AppArmorCommands are the lines, for root, that install the profile.
func AppArmorCommands() string {
	binary, err := os.Executable()
	if err != nil {
		binary = "/usr/local/bin/optbuild"
	}
	return "cat > /etc/apparmor.d/optbuild <<'END'\n" + AppArmorProfile(binary) + "END\napparmor_parser -r /etc/apparmor.d/optbuild"
}

func currentUser() string {
	if u := os.Getenv("USER"); u != "" {
		return u
	}
	return fmt.Sprint(os.Geteuid())
}

// readInt reads a number from a file of /proc; -1 when it is not there.
func readInt(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n := -1
	if _, err := fmt.Sscan(strings.TrimSpace(string(b)), &n); err != nil {
		return -1
	}
	return n
}
