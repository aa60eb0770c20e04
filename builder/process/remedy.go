package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
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
func Remedy(err error) string { return machine{}.remedy(err) }

// machine is where the facts come from that a remedy depends on.
type machine struct{ root string }

func (m machine) remedy(err error) string {
	var ne *NamespaceError
	var de *DirError
	var le *LostError
	switch {
	case errors.As(err, &ne):
		return m.namespaceRemedy(ne)
	case errors.As(err, &le):
		return "if nobody ended it, the kernel may have for want of memory: dmesg | grep -i oom; the next build goes on from what is cached"
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

// Remedies that `optbuild doctor` gives, too.
const (
	RemedyUserNamespacesOff  = "as root: sysctl -w user.max_user_namespaces=15000   # and a file in /etc/sysctl.d, or it is lost at the next boot"
	RemedyUnprivilegedUserNS = "as root: sysctl -w kernel.unprivileged_userns_clone=1   # and a file in /etc/sysctl.d, or it is lost at the next boot"
	remedyLimit              = "the kernel's limit of namespaces is used up; as root: sysctl -w user.max_user_namespaces=15000 user.max_mnt_namespaces=15000 user.max_pid_namespaces=15000"
	remedyPolicy             = "a seccomp or LSM policy forbids namespaces here; in a container: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined (Kubernetes: seccompProfile Unconfined)"
	remedyWeakRoot           = "root without capabilities may not map ids: run optbuild as an ordinary user (docker run --user 1000), or add CAP_SETUID, CAP_SETGID and CAP_SETFCAP"
)

func (m machine) namespaceRemedy(e *NamespaceError) string {
	denied := errors.Is(e.Err, syscall.EPERM) || errors.Is(e.Err, syscall.EACCES)
	switch user := e.Kind == SubIDs || e.Kind == SingleID; {
	case readInt(m.root+"/proc/sys/user/max_user_namespaces") == 0 && errors.Is(e.Err, syscall.ENOSPC):
		return RemedyUserNamespacesOff
	case errors.Is(e.Err, syscall.ENOSPC), errors.Is(e.Err, syscall.EUSERS):
		return remedyLimit
	case user && readInt(m.root+"/proc/sys/kernel/unprivileged_userns_clone") == 0:
		return RemedyUnprivilegedUserNS
	case user && readInt(m.root+"/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1:
		binary, err := os.Executable()
		if err != nil {
			binary = "/usr/local/bin/optbuild"
		}
		return "AppArmor forbids user namespaces to unknown programs; as root:\n" + AppArmorCommands(binary)
	case e.Kind == WeakRoot && denied && !m.mayMapIDs():
		return remedyWeakRoot
	case e.Op == opPrivate && errors.Is(e.Err, syscall.EINVAL):
		return "the root directory is not a mount point, as in a chroot: before `chroot DIR`, mount --bind DIR DIR"
	case errors.Is(e.Err, syscall.EROFS):
		return "mount a tmpfs on /run (docker run --tmpfs /run): the runtime's state is there"
	case denied:
		return remedyPolicy
	}
	return ""
}

func (m machine) mayMapIDs() bool {
	for _, bit := range []int{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETFCAP} {
		if has, err := hasCapability(m.root+"/proc/self/status", bit); err == nil && !has {
			return false
		}
	}
	return true
}

// SubIDCommand is the line, for root, that gives the user subordinate ids. taken is the content of /etc/subuid and
// /etc/subgid: the ids must be nobody else's.
func SubIDCommand(name, taken string) string {
	const count = 65536
	first := 100000
	for line := range strings.Lines(taken) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		start, err1 := strconv.Atoi(f[1])
		n, err2 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil && start < 1<<31 {
			first = max(first, start+n)
		}
	}
	return fmt.Sprintf("usermod --add-subuids %d-%d --add-subgids %d-%d %s", first, first+count-1, first, first+count-1, name)
}

// AppArmorProfile is the text of a profile that allows a binary to make user namespaces.
func AppArmorProfile(binary string) string {
	return fmt.Sprintf("abi <abi/4.0>,\ninclude <tunables/global>\nprofile optbuild %q flags=(unconfined) {\n  userns,\n}\n", binary)
}

// AppArmorCommands are the lines, for root, that install the profile.
func AppArmorCommands(binary string) string {
	return "cat > /etc/apparmor.d/optbuild <<'END'\n" + AppArmorProfile(binary) + "END\napparmor_parser -r /etc/apparmor.d/optbuild"
}

// readInt reads a number from a file of /proc; -1 when it is not there.
func readInt(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return n
}
