package integration

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/tree"
)

const scriptDir = "testdata/script"

// ground is what all scripts of a run share: a directory that every user may read.
type ground struct {
	// Dir is on a real file system: overlayfs and extended attributes do not work everywhere on tmpfs.
	Dir string
	// Scripts is the directory with the scripts.
	Scripts string
	// NoDebian says why there is no Debian base image; empty if there is one.
	NoDebian string
}

// groundVariable hands the ground to the test binary that runs as another user.
const groundVariable = "OPTBUILD_TEST_GROUND"

var theGround struct {
	once sync.Once
	g    *ground
	err  error
}

// prepare makes the ground, once, or skips the test where there is nothing to test.
func prepare(t *testing.T) *ground {
	t.Helper()
	if os.Getenv("OPTBUILD_BIN") == "" {
		skipped.skip(t, "OPTBUILD_BIN does not name the binary to test; run `make test`")
	}
	s := &theGround
	s.once.Do(func() { s.g, s.err = newGround(t.Context()) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.g
}

func newGround(ctx context.Context) (*ground, error) {
	if dir := os.Getenv(groundVariable); dir != "" {
		return &ground{Dir: dir, Scripts: filepath.Join(dir, "script"), NoDebian: os.Getenv(groundVariable + "_NODEBIAN")}, nil
	}
	parent := os.Getenv("OPTBUILD_TEST_DIR")
	if parent == "" {
		parent = "/var/tmp"
	}
	dir, err := os.MkdirTemp(parent, "optbuild-test-")
	if err != nil {
		return nil, err
	}
	g := &ground{Dir: dir, Scripts: scriptDir}
	// Another user's test binary makes its working directories here.
	if err := os.Chmod(dir, 0o1777); err != nil {
		return nil, err
	}
	if err := copyFile(os.Getenv("OPTBUILD_BIN"), filepath.Join(dir, "bin", "optbuild"), 0o755); err != nil {
		return nil, err
	}
	cache, err := bases.CacheDir()
	if err != nil {
		return nil, err
	}
	busybox, err := bases.Busybox(ctx, cache)
	if err != nil {
		return nil, err
	}
	if err := copyTree(busybox.Dir, filepath.Join(dir, "bases", busybox.Name)); err != nil {
		return nil, err
	}
	if why := foreignBase(ctx, dir, cache); why != "" {
		skipped.add("scripts that run arm64 programs", why)
	}
	if why := toolchains(ctx, dir, cache); why != "" {
		skipped.add("scripts that need a base image with tools", why)
	}
	debian, err := bases.Debian(ctx, cache)
	if err != nil {
		g.NoDebian = strings.ReplaceAll(err.Error(), "\n", " ")
		skipped.add("scripts that need a Debian base image", g.NoDebian)
		return g, nil
	}
	return g, copyTree(debian.Dir, filepath.Join(dir, "bases", debian.Name))
}

// foreignArch is the architecture of the base image that is run under emulation.
const foreignArch = "arm64"

// foreignBase makes a base image of another architecture where its programs can be emulated, or says why there is none.
func foreignBase(ctx context.Context, dir, cache string) (why string) {
	if runtime.GOARCH == foreignArch {
		return "this machine is one"
	}
	if _, err := emulation.Find(foreignArch, exec.LookPath); err != nil {
		return err.Error()
	}
	e := emulation.New()
	defer e.Close()
	if err := e.Prepare(foreignArch, "linux/"+foreignArch); err != nil {
		return err.Error()
	}
	makers := []func(context.Context, string, string) (bases.Base, error){bases.BusyboxFor}
	if os.Getenv("OPTBUILD_TEST_TOOLS") != "" || bases.Made(cache, "tools-"+foreignArch) {
		makers = append(makers, bases.ToolsFor)
	}
	for _, m := range makers {
		base, err := m(ctx, cache, foreignArch)
		if err == nil {
			err = copyTree(base.Dir, filepath.Join(dir, "bases", base.Name))
		}
		if err != nil {
			return strings.ReplaceAll(err.Error(), "\n", " ")
		}
	}
	return ""
}

// toolchains makes the base images with the tools of languages, if they are wanted or were made before.
func toolchains(ctx context.Context, dir, cache string) (why string) {
	for _, name := range bases.Toolchains() {
		if os.Getenv("OPTBUILD_TEST_TOOLS") == "" && !bases.Made(cache, name) {
			continue
		}
		base, err := bases.Toolchain(ctx, cache, name)
		if err == nil {
			err = copyTree(base.Dir, filepath.Join(dir, "bases", base.Name))
		}
		if err != nil {
			return strings.ReplaceAll(err.Error(), "\n", " ")
		}
	}
	return ""
}

// cleanGround removes everything, unless OPTBUILD_TEST_KEEP is set.
func cleanGround() {
	g := theGround.g
	if g == nil || os.Getenv(groundVariable) != "" {
		return
	}
	if os.Getenv("OPTBUILD_TEST_KEEP") != "" {
		fmt.Println("kept:", g.Dir)
		return
	}
	if err := tree.Remove(g.Dir); err != nil {
		fmt.Println("not removed:", err)
	}
}

// bases lists the names of the base images that there are.
func (g *ground) bases() []string {
	entries, _ := os.ReadDir(filepath.Join(g.Dir, "bases"))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func copyFile(from, to string, mode fs.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(to, b, mode); err != nil {
		return err
	}
	return os.Chmod(to, mode) // whatever the umask says
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return copyFile(path, filepath.Join(to, rel), 0o644)
	})
}
