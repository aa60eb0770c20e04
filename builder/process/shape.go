package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// Kind is how the engine comes to be root.
type Kind string

const (
	// HostRoot: the command is root and has CAP_SYS_ADMIN. No user namespace.
	HostRoot Kind = "root"
	// InsideRoot: the same, inside a user namespace that somebody else made (rootlesskit, a rootless container).
	InsideRoot Kind = "root in a user namespace"
	// WeakRoot: root without CAP_SYS_ADMIN, as in a container with default privileges. A user namespace with the same ids.
	WeakRoot Kind = "root without CAP_SYS_ADMIN"
	// SubIDs: an ordinary user with subordinate ids. A user namespace that newuidmap and newgidmap fill.
	SubIDs Kind = "subordinate ids"
	// SingleID: an ordinary user without. A user namespace with one user and one group.
	SingleID Kind = "single id"
)

// Shape is the kind of namespaces that an engine gets.
type Shape struct {
	Kind Kind `json:"kind"`
	// NoPIDNamespace is set where a fresh /proc can't be mounted.
	NoPIDNamespace bool `json:"noPIDNamespace,omitempty"`
	// UIDs and GIDs are the mappings of the user namespace, for the kinds that make one.
	UIDs []syscall.SysProcIDMap `json:"uids,omitempty"`
	GIDs []syscall.SysProcIDMap `json:"gids,omitempty"`
	// SingleMap is set where the user namespace that we are in, and that is not ours, has just one user or one group.
	SingleMap bool `json:"singleMap,omitempty"`
	// Why says why a better kind was passed over.
	Why string `json:"why,omitempty"`
}

// Rootless reports whether the engine is not root of the host's user namespace.
func (s Shape) Rootless() bool { return s.Kind != HostRoot }

// OneID reports whether there is just one id to give to files and processes.
func (s Shape) OneID() bool { return s.Kind == SingleID || s.SingleMap }

// ownUserNS reports whether the engine gets a user namespace of its own.
func (s Shape) ownUserNS() bool { return s.Kind != HostRoot && s.Kind != InsideRoot }

func (s Shape) notices() []string {
	if !s.OneID() {
		return nil
	}
	return []string{"single-id mode (" + s.Why + "): every file that a step makes or COPY --chown names belongs to root in the image, USER changes nothing; see `optbuild doctor`"}
}

func (s Shape) attr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}
	if !s.NoPIDNamespace {
		a.Cloneflags |= unix.CLONE_NEWPID
	}
	switch s.Kind {
	case HostRoot, InsideRoot:
	case SubIDs: // the starter has the mappings written while the child waits
		a.Cloneflags |= unix.CLONE_NEWUSER
	default:
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings, a.GidMappings = s.UIDs, s.GIDs
		a.GidMappingsEnableSetgroups = s.Kind == WeakRoot
	}
	return a
}

// shapesHere returns the shapes that this process could give an engine, best first.
func shapesHere(single bool) ([]Shape, error) {
	uid, gid := os.Geteuid(), os.Getegid()
	if single {
		return []Shape{singleShape(uid, gid, "asked for")}, nil
	}
	if uid == 0 {
		return rootShapes()
	}
	s, err := subIDShape(uid, gid)
	if err != nil {
		return []Shape{singleShape(uid, gid, err.Error())}, nil
	}
	return []Shape{s, singleShape(uid, gid, "newuidmap did not work")}, nil
}

func rootShapes() ([]Shape, error) {
	uids, err := ownIDs("/proc/self/uid_map")
	if err != nil {
		return nil, err
	}
	gids, err := ownIDs("/proc/self/gid_map")
	if err != nil {
		return nil, err
	}
	one, why := oneIDOnly(uids) || oneIDOnly(gids), ""
	if one {
		why = "the user namespace that optbuild runs in has a single id"
	}
	admin, err := hasCapability("/proc/self/status", unix.CAP_SYS_ADMIN)
	switch {
	case err != nil:
		return nil, err
	case admin && userns.RunningInUserNS():
		return []Shape{{Kind: InsideRoot, SingleMap: one, Why: why}}, nil
	case admin:
		return []Shape{{Kind: HostRoot}}, nil
	case one:
		return []Shape{singleShape(0, 0, why)}, nil
	}
	return []Shape{{Kind: WeakRoot, UIDs: uids, GIDs: gids}, singleShape(0, 0, "root here may not map ids")}, nil
}

func singleShape(uid, gid int, why string) Shape {
	return Shape{
		Kind: SingleID, Why: why,
		UIDs: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GIDs: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
	}
}

// Why subordinate ids can't be used; the texts are shown to the user.
var (
	errNoNewPrivs = errors.New("no_new_privs is set, so newuidmap can't gain privileges")
	errNoNewUIDs  = errors.New("newuidmap or newgidmap is not installed")
)

// subIDShape returns the mapping root -> the user, 1 and up -> the user's subordinate ids.
func subIDShape(uid, gid int) (Shape, error) {
	if nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && nnp == 1 {
		return Shape{}, errNoNewPrivs
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return Shape{}, errNoNewUIDs
		}
	}
	subuids, err := user.CurrentUserSubUIDs()
	if err != nil || len(subuids) == 0 {
		return Shape{}, fmt.Errorf("no entry for this user in /etc/subuid")
	}
	subgids, err := user.CurrentUserSubGIDs()
	if err != nil || len(subgids) == 0 {
		return Shape{}, fmt.Errorf("no entry for this user in /etc/subgid")
	}
	return Shape{Kind: SubIDs, UIDs: withSubIDs(uid, subuids), GIDs: withSubIDs(gid, subgids)}, nil
}

func withSubIDs(id int, sub []user.SubID) []syscall.SysProcIDMap {
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	next := 1
	for _, s := range sub {
		m = append(m, syscall.SysProcIDMap{ContainerID: next, HostID: int(s.SubID), Size: int(s.Count)})
		next += int(s.Count)
	}
	return m
}

// writeMappings fills the user namespace of the process with the setuid helpers.
func writeMappings(pid int, s Shape) error {
	for _, h := range []struct {
		tool string
		ids  []syscall.SysProcIDMap
	}{{"newuidmap", s.UIDs}, {"newgidmap", s.GIDs}} {
		if out, err := exec.Command(h.tool, mapArgs(pid, h.ids)...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", h.tool, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

func mapArgs(pid int, ids []syscall.SysProcIDMap) []string {
	args := []string{strconv.Itoa(pid)}
	for _, m := range ids {
		args = append(args, strconv.Itoa(m.ContainerID), strconv.Itoa(m.HostID), strconv.Itoa(m.Size))
	}
	return args
}

// allIDs is the size of the initial user namespace's mapping. A user namespace with the same mapping can't be told from it,
// and runc and containerd would take us for the host's root; so ours have one id less.
const allIDs = 1<<32 - 1

// ownIDs maps all ids that exist in this user namespace to themselves.
func ownIDs(file string) ([]syscall.SysProcIDMap, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := parseIDMap(string(b))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return m, nil
}

func parseIDMap(s string) ([]syscall.SysProcIDMap, error) {
	var m []syscall.SysProcIDMap
	for line := range strings.Lines(s) {
		var inside, outside, size int
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err != nil {
			return nil, err
		}
		m = append(m, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: min(size, allIDs-1)})
	}
	return m, nil
}

func oneIDOnly(m []syscall.SysProcIDMap) bool { return len(m) == 1 && m[0].Size == 1 }

// hasCapability reads the effective capabilities from a process's status file.
func hasCapability(status string, bit int) (bool, error) {
	b, err := os.ReadFile(status)
	if err != nil {
		return false, err
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return set&(1<<bit) != 0, err
		}
	}
	return false, fmt.Errorf("%s has no line CapEff", status)
}
