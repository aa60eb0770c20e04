// Package emulation lets steps of foreign platforms run where the machine has registered no emulator for them (binfmt_misc), with a qemu that is only installed.
//
//	step for linux/arm64 ──> the engine: does the kernel run such programs, natively or by a registered emulator?  then nothing is done here
//	                    └──> [Emulator.Prepare]: a static qemu is looked for in PATH, and registered in a user namespace of the engine's own
//	                         the step's container joins that namespace: the runtime is this binary under another name ([Runtime]), which says so in the
//	                         container's specification and becomes the real runtime
//
// Since Linux 6.7 a user namespace may have a binfmt_misc of its own; what is registered there counts for its processes only, and nothing of the machine is changed. It
// needs no privilege beyond those that the engine has, so that it is the same for root and for ordinary users. The namespace maps all ids that the engine has to
// themselves, so that files have the owners that they would have without it.
//
// Where it is weak: root in such a step is not root of the machine. It can't make device nodes, and sees /sys read-only with all that is mounted there.
//
// The package knows nothing of BuildKit; package engine chooses the executor.
package emulation

import (
	"debug/elf"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Install is how an emulator comes onto a machine.
const Install = "apt-get install qemu-user-static   # Fedora: dnf install qemu-user-static, Alpine: apk add qemu-aarch64"

// Register is how it is made known to a kernel that has no binfmt_misc for user namespaces.
const Register = "apt-get install qemu-user-static binfmt-support   # or: docker run --privileged --rm tonistiigi/binfmt --install all"

// MissingError says why a step can't run, and what to do about it.
type MissingError struct {
	Platform string
	// Why is nil if there just is no emulator.
	Why error
}

func (e *MissingError) Error() string {
	if e.Why == nil {
		return missing + e.Platform + " as it is" + remedy + Install
	}
	return fmt.Sprintf("%s%s: %v%s%s", missing, e.Platform, e.Why, remedy, Register)
}

func (e *MissingError) Unwrap() error { return e.Why }

const (
	missing = "this machine can't run programs for "
	remedy  = "; as root: "
)

// Explain takes the text of an error that a MissingError is at the end of apart; message is empty if none is.
func Explain(text string) (message, hint string) {
	i := strings.Index(text, missing)
	if i < 0 {
		return "", ""
	}
	message, hint, ok := strings.Cut(text[i:], remedy)
	if !ok {
		return "", ""
	}
	return message, "as root: " + hint + " (`optbuild doctor` says what is there)"
}

// ErrNotStatic is wrapped by errors about an emulator that would need libraries of the machine inside the container.
var ErrNotStatic = errors.New("is not static: it can't be used in a container")

// Find looks for the emulator of an architecture with lookPath, such as [exec.LookPath]. exec.ErrNotFound is wrapped if there is none.
func Find(arch string, lookPath func(string) (string, error)) (string, error) {
	a, ok := architectures[arch]
	if !ok {
		return "", fmt.Errorf("qemu for %s: %w", arch, exec.ErrNotFound)
	}
	found := fmt.Errorf("qemu-%s-static: %w", a.qemu, exec.ErrNotFound)
	for _, name := range []string{"qemu-" + a.qemu + "-static", "qemu-" + a.qemu} { // newer distributions have static ones under the plain name
		path, err := lookPath(name)
		if err != nil {
			continue
		}
		if found = checkStatic(path); found == nil {
			return path, nil
		}
	}
	return "", found
}

func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s %w", path, ErrNotStatic)
		}
	}
	return nil
}

// Platforms lists what Prepare would make runnable. It starts a process of this binary if there is an emulator at all, which has to know of [IsMaker].
func Platforms() []ocispecs.Platform {
	list := installed(exec.LookPath)
	if len(list) == 0 {
		return nil
	}
	n, err := newNamespace()
	if err != nil {
		return nil
	}
	n.close()
	return list
}

// installed lists the platforms of the emulators that are there.
func installed(lookPath func(string) (string, error)) (list []ocispecs.Platform) {
	for _, arch := range Architectures() {
		if arch == runtime.GOARCH {
			continue
		}
		if _, err := Find(arch, lookPath); err == nil {
			list = append(list, platforms.Normalize(ocispecs.Platform{OS: "linux", Architecture: arch}))
		}
	}
	return list
}

// Emulator emulates for one engine. Its methods may be called concurrently.
type Emulator struct {
	lookPath func(string) (string, error)

	mu         sync.Mutex
	namespace  *namespace // nil until something is registered
	registered map[string]bool
}

// New returns an emulator that has registered nothing yet. Close it.
func New() *Emulator { return &Emulator{lookPath: exec.LookPath, registered: map[string]bool{}} }

// Prepare makes programs of an architecture runnable in containers of [Runtime]s. The platform is for messages; errors are a *MissingError.
func (e *Emulator) Prepare(arch, platform string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.registered[arch] {
		return nil
	}
	path, err := Find(arch, e.lookPath)
	if errors.Is(err, exec.ErrNotFound) {
		return &MissingError{Platform: platform}
	}
	if err != nil {
		return &MissingError{platform, err}
	}
	if e.namespace == nil {
		if e.namespace, err = newNamespace(); err != nil {
			return &MissingError{platform, err}
		}
	}
	if err := e.namespace.register(registration(arch, path, preservesName(path))); err != nil {
		return &MissingError{platform, fmt.Errorf("register %s: %w", path, err)}
	}
	e.registered[arch] = true
	return nil
}

// Namespace is the path of the user namespace; it is empty before Prepare has succeeded.
func (e *Emulator) Namespace() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.namespace == nil {
		return ""
	}
	return e.namespace.path()
}

// Close ends the namespace, but for processes that are in it.
func (e *Emulator) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.namespace != nil {
		e.namespace.close()
		e.namespace, e.registered = nil, map[string]bool{}
	}
}
