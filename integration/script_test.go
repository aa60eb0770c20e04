package integration

import (
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/integration/bases"
)

// maxParallel bounds how many scripts, and builds of other tests, run at a time: one more than there are processors, because each waits now and then
// for a registry, a disk, or an engine that starts or ends; and not many, because builds are heavy.
var maxParallel = min(runtime.NumCPU()+1, 4)

func TestMain(m *testing.M) {
	if emulation.IsMaker() { // see foreignBase
		emulation.RunMaker()
	}
	flag.Parse()
	flag.Set("test.parallel", strconv.Itoa(maxParallel))
	code := m.Run()
	cleanGround()
	skipped.print()
	os.Exit(code)
}

// TestRoot runs the scripts as root.
func TestRoot(t *testing.T) {
	g := prepare(t)
	if os.Geteuid() != 0 {
		skipped.skip(t, "not root")
	}
	runScripts(t, g, "root")
}

// TestUser runs the scripts as an ordinary user: ours, or, when we are root, one that is made for it.
func TestUser(t *testing.T) {
	g := prepare(t)
	if os.Geteuid() == 0 {
		runAsUser(t, g)
		return
	}
	runScripts(t, g, "user")
}

// TestVerify runs the scripts as root once more, with engines that run each step that they would replay, fail when it makes anything else than
// the stored layer, and then go on with that. What the scripts expect is the same. Where TestRoot has seen that nothing is replayed, such an
// engine does what any does, and the script is not run again.
func TestVerify(t *testing.T) {
	g := prepare(t)
	if os.Geteuid() != 0 {
		skipped.skip(t, "not root")
	}
	runScripts(t, g, "verify")
}

// runScripts runs the scripts that do not opt out of being run as who ("root", "user" or "verify").
func runScripts(t *testing.T, g *ground, who string) {
	files, err := filepath.Glob(filepath.Join(g.Scripts, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s (%v)", g.Scripts, err)
	}
	run := slices.DeleteFunc(files, func(file string) bool {
		reason, err := optOut(file, who)
		if err != nil {
			t.Fatal(err)
		}
		if reason != "" {
			skipped.add(t.Name()+"/"+scriptName(file), reason)
		}
		return reason != ""
	})
	if who == "verify" {
		all := len(run)
		run = slices.DeleteFunc(run, func(file string) bool { return plain.has(scriptName(file)) })
		if n := all - len(run); n > 0 {
			skipped.add(t.Name(), fmt.Sprintf("%d scripts in which TestRoot has seen nothing replayed", n))
		}
	}
	work, err := os.MkdirTemp(g.Dir, who[:1]+"-") // short: there are sockets below
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files:       run,
		WorkdirRoot: work,
		Setup: func(e *testscript.Env) error {
			switch who {
			case "root":
				if err := plain.watch(g, e); err != nil {
					return err
				}
			case "verify":
				e.Setenv("OPTBUILD_DEBUG", "verify")
			}
			return setup(g, e)
		},
		Cmds:                commands,
		Condition:           func(cond string) (bool, error) { return condition(g, cond) },
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "" && g.Scripts == scriptDir,
	})
}

var optOutLine = regexp.MustCompile(`(?m)^# (root|rootless|verify): no, because (.*)$`)

// optOutNames says which lines speak to a run as who.
var optOutNames = map[string][]string{"root": {"root"}, "user": {"rootless"}, "verify": {"root", "verify"}}

// optOut returns why a script does not want to be run as who; "" if it does.
func optOut(file, who string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for _, m := range optOutLine.FindAllStringSubmatch(string(b), -1) {
		if slices.Contains(optOutNames[who], m[1]) {
			return m[2], nil
		}
	}
	return "", nil
}

func scriptName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".txtar") }

// condition knows [root], [debian] (there is a Debian base image), [emulator] (there is one for arm64, which can run here) [tools]
// (it has a C compiler and dpkg), [python], [golang], [rust] (there is a base image with the language's tools), [fuse] (this user may open /dev/fuse) and [s3]
// (optbuild was built with that kind of cache).
func condition(g *ground, cond string) (bool, error) {
	switch cond {
	case "root":
		return os.Geteuid() == 0, nil
	case "debian":
		return slices.Contains(g.bases(), "debian"), nil
	case "emulator":
		return slices.Contains(g.bases(), "busybox-"+foreignArch), nil
	case "tools":
		return slices.Contains(g.bases(), "tools-"+foreignArch), nil
	case "s3":
		info, err := buildinfo.ReadFile(filepath.Join(g.Dir, "bin", "optbuild"))
		return err == nil && strings.Contains(tagsOf(info), "optbuild_s3"), err
	case "fuse":
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err == nil, nil
	}
	if slices.Contains(bases.Toolchains(), cond) {
		return slices.Contains(g.bases(), cond), nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// skips collects what was not run, and why: go test prints reasons only with -v, and CI's log should always have them.
type skips struct {
	mu    sync.Mutex
	lines []string
}

var skipped skips

const skipPrefix = "skipped: "

func (s *skips) add(name, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, skipPrefix+name+": "+reason)
}

func (s *skips) skip(t *testing.T, reason string) {
	t.Helper()
	s.add(t.Name(), reason)
	t.Skip(reason)
}

func (s *skips) print() {
	for _, l := range s.lines {
		fmt.Println(l)
	}
}
