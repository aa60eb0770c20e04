// Package doctor examines a machine for what builds need and says what to do about what is missing.
//
// What comes in is a [Machine], a view of the computer that tests can fake; what goes out is a list of results, one for each
// row of the table [checks]. A check looks at one thing and returns one line of what it found, and the exact commands that
// cure it. The remedies of errors that builds run into, too, are those of package process, so that `optbuild doctor` and a
// failing build say the same.
//
// To add a check: write a function, add its row, add a fake machine for each of its outcomes to the test.
package doctor

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/optbuild/optbuild/builder/emulation"
)

// Status says how bad it is.
type Status string

const (
	// OK: nothing to do.
	OK Status = "ok"
	// Warn: builds work, with the limits that the result names.
	Warn Status = "warn"
	// Fail: builds don't work.
	Fail Status = "fail"
)

// Result is what one check found.
type Result struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Found is one line.
	Found string `json:"found"`
	// Remedy are the lines that tell what to do about it; commands stand on lines of their own.
	Remedy []string `json:"remedy,omitempty"`
}

// Engine is what starting a real engine showed.
type Engine struct {
	Kind        string // how it came to be root
	Snapshotter string
	Notices     []string
	// Err is why it did not start; Remedy is what process.Remedy says about it.
	Err    error
	Remedy string
}

// Disk is what statfs(2) says about a file system.
type Disk struct {
	Type         string // "" when it has no special meaning for us
	Free         uint64 // bytes that this user may still write
	Files, Inode uint64 // free inodes, and all; both 0 where the file system does not count them
}

// Machine is what the checks look at.
type Machine struct {
	// Root is put before absolute paths below /proc, /sys, /dev and /etc; "" on a real machine.
	Root string
	// UID and User are who runs builds.
	UID  int
	User string
	// Binary is the path of this program.
	Binary string
	// StateDir is the state directory.
	StateDir string
	// DockerConfig is docker's config.json.
	DockerConfig string
	// Registries are hosts to try; none by default.
	Registries []string

	LookPath func(name string) (string, error)
	// FindEmulator returns the path of a qemu for programs of an architecture, as Go calls it.
	FindEmulator func(arch string) (string, error)
	Disk         func(path string) (Disk, error)
	StartEngine  func(ctx context.Context) Engine
	// Ping asks a registry for its API's root.
	Ping func(ctx context.Context, host string) (*http.Response, error)
}

// This returns the machine that we run on, without StateDir, StartEngine and Ping.
func This() *Machine {
	m := &Machine{UID: os.Geteuid(), Binary: "/usr/local/bin/optbuild", LookPath: exec.LookPath, Disk: statfs}
	m.FindEmulator = func(arch string) (string, error) { return emulation.Find(arch, exec.LookPath) }
	m.User = strconv.Itoa(m.UID)
	if u, err := user.LookupId(m.User); err == nil {
		m.User = u.Username
	}
	if b, err := os.Executable(); err == nil {
		m.Binary = b
	}
	dir := os.Getenv("DOCKER_CONFIG")
	if home, err := os.UserHomeDir(); dir == "" && err == nil {
		dir = filepath.Join(home, ".docker")
	}
	m.DockerConfig = filepath.Join(dir, "config.json")
	return m
}

// check looks at one thing. It returns nil when there is nothing to say, such as when it is only for some users.
type check struct {
	name string
	run  func(ctx context.Context, m *Machine) *Result
}

// checks are in the order in which they are shown: what others rest on comes first.
var checks = []check{
	{"state directory", stateDirectory},
	{"disk space", diskSpace},
	{"user namespaces", userNamespaces},
	{"subordinate ids", subordinateIDs},
	{"apparmor", appArmor},
	{"seccomp", seccompFilter},
	{"/proc", maskedProc},
	{"engine", engine}, // starts one: the proof of what was found above
	{"cgroups", cgroups},
	{"/dev/fuse", devFuse},
	{"platforms", platforms},
	{"git", gitBinary},
	{"credential helpers", credentialHelpers},
}

// Run examines the machine. It calls show, if that is not nil, with each result as it comes.
func Run(ctx context.Context, m *Machine, show func(Result)) []Result {
	var results []Result
	add := func(name string, r *Result) {
		if r == nil {
			return
		}
		r.Name = name
		r.Remedy = slices.DeleteFunc(r.Remedy, func(line string) bool { return line == "" })
		results = append(results, *r)
		if show != nil {
			show(*r)
		}
	}
	for _, c := range checks {
		add(c.name, c.run(ctx, m))
	}
	for _, host := range m.Registries {
		add("registry "+host, registry(ctx, m, host))
	}
	return results
}

func ok(found string) *Result { return &Result{Status: OK, Found: found} }

func warn(found string, remedy ...string) *Result {
	return &Result{Status: Warn, Found: found, Remedy: remedy}
}

func fail(found string, remedy ...string) *Result {
	return &Result{Status: Fail, Found: found, Remedy: remedy}
}

// read returns the content of a system file, "" when it can't be read.
func (m *Machine) read(path string) string {
	b, err := os.ReadFile(m.Root + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// field returns the value of a line such as "Seccomp:	2" of a file of /proc.
func (m *Machine) field(path, name string) string {
	for line := range strings.Lines(m.read(path)) {
		if k, v, found := strings.Cut(line, ":"); found && k == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Names of file systems whose magic numbers (statfs(2)) we know, because they are trouble below an overlay.
var fileSystems = map[int64]string{
	0x794c7630: "overlay",
	0x6969:     "nfs",
	0xff534d42: "cifs",
	0xfe534d42: "smb2",
	0x01021997: "9p",
	0x65735546: "fuse",
	0xf15f:     "ecryptfs",
}

func statfs(path string) (Disk, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return Disk{}, err
	}
	return Disk{Type: fileSystems[int64(s.Type)], Free: s.Bavail * uint64(s.Bsize), Files: s.Ffree, Inode: s.Files}, nil
}
