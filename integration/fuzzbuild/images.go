package fuzzbuild

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/optbuild/optbuild/integration/bases"
)

// imagesVersion is raised when a recipe changes.
const imagesVersion = "1"

// recipe makes the files of a base image with real tools in the directory root; busybox lies below.
type recipe struct {
	name string // in a Dockerfile
	make func(ctx context.Context, tmp, root string) error
	env  []string
}

// goEnv keeps go to what is in the image.
var goEnv = []string{"GOFLAGS=-buildvcs=false", "CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOPROXY=off", "GOROOT=/usr/local/go"}

// Go does without its index of packages, which says other things of files that are younger than two seconds.
var recipes = []recipe{
	{name: "test/c", make: cTools},
	{name: "test/python", make: pythonTools, env: []string{"PYTHONHASHSEED=0"}},
	{name: "test/go", make: goTools, env: append([]string{"GODEBUG=goindex=0"}, goEnv...)},
}

// PushImages makes the base images with a real compiler, Python and Go, once, below the directory cache, and puts them into a registry on
// loopback. It returns for each name why it is not there, or nil.
func PushImages(ctx context.Context, cache, registry string, busybox bases.Base) map[string]error {
	out := map[string]error{}
	for _, r := range recipes {
		out[r.name] = r.push(ctx, cache, registry, busybox)
	}
	return out
}

func (r recipe) push(ctx context.Context, cache, registry string, busybox bases.Base) error {
	file := filepath.Join(cache, "fuzz-"+strings.ReplaceAll(r.name, "/", "-")+"-"+imagesVersion+".tar.gz")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := r.archive(ctx, cache, file); err != nil {
			return fmt.Errorf("make the base image %s: %w", r.name, err)
		}
	}
	layer, err := tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return err
	}
	img, err := busybox.Image()
	if err != nil {
		return err
	}
	if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "tools"}}); err != nil {
		return err
	}
	f, err := img.ConfigFile()
	if err != nil {
		return err
	}
	f = f.DeepCopy()
	f.Config.Env = append(f.Config.Env, r.env...)
	if r.name == "test/go" {
		f.Config.Env[0] += ":/usr/local/go/bin"
	}
	if img, err = mutate.ConfigFile(img, f); err != nil {
		return err
	}
	ref, err := name.ParseReference(registry+"/"+r.name, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, remote.WithContext(ctx))
}

// archive writes the layer of a recipe.
func (r recipe) archive(ctx context.Context, cache, file string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(cache, ".making-")
	if err != nil {
		return err
	}
	defer func() {
		exec.Command("chmod", "-R", "u+w", tmp).Run()
		os.RemoveAll(tmp)
	}()
	root := filepath.Join(tmp, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := r.make(ctx, tmp, root); err != nil {
		return err
	}
	made := filepath.Join(tmp, "layer.tar.gz")
	// In the future, because go removes what is old from its build cache.
	if err := run(ctx, root, "tar", "--sort=name", "--mtime=2099-01-01", "--owner=0", "--group=0", "--numeric-owner", "-czf", made, "."); err != nil {
		return err
	}
	return os.Rename(made, file)
}

func run(ctx context.Context, dir, command string, args ...string) error {
	c := exec.CommandContext(ctx, command, args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, tail(string(out)))
	}
	return nil
}

// unpack downloads Debian packages and takes their files, without installing anything.
func unpack(ctx context.Context, tmp, root string, packages ...string) error {
	dir := filepath.Join(tmp, "deb")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := run(ctx, dir, "apt-get", append([]string{"download", "-q"}, packages...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := run(ctx, dir, "dpkg-deb", "-x", file, root); err != nil {
			return err
		}
	}
	// What nothing here reads.
	for _, pattern := range []string{"usr/share", "etc", "usr/lib/*/gconv", "usr/lib/*/*.a", "usr/lib/python3*/lib2to3", "usr/lib/python3*/test"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if strings.HasSuffix(path, "/libc_nonshared.a") {
				continue
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// cTools are make and a small C compiler.
func cTools(ctx context.Context, tmp, root string) error {
	if err := unpack(ctx, tmp, root, "make", "tcc", "libc6", "libc6-dev"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(root, "bin")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink("tcc", filepath.Join(root, "usr", "bin", "cc"))
}

// pythonTools are the Python that Debian's python3 stands for.
func pythonTools(ctx context.Context, tmp, root string) error {
	c := exec.CommandContext(ctx, "apt-cache", "depends", "--important", "python3-minimal")
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("apt-cache depends python3-minimal: %w", err)
	}
	version := ""
	for _, word := range strings.Fields(string(out)) {
		if v, ok := strings.CutPrefix(word, "python3."); ok && strings.HasSuffix(v, "-minimal") {
			version = "python3." + strings.TrimSuffix(v, "-minimal")
		}
	}
	if version == "" {
		return fmt.Errorf("which python3 there is: %q does not tell", out)
	}
	if err := unpack(ctx, tmp, root, "libc6", "libexpat1", "zlib1g", version+"-minimal", "lib"+version+"-minimal", "lib"+version+"-stdlib"); err != nil {
		return err
	}
	for _, link := range []string{"python3", "python"} {
		if err := os.Symlink(version, filepath.Join(root, "usr", "bin", link)); err != nil {
			return err
		}
	}
	return nil
}

// goTools is as much of this machine's Go as a small program without network needs, with a build cache that has the standard library
// compiled: a build takes a fraction of a second.
func goTools(ctx context.Context, tmp, root string) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	goroot := strings.TrimSpace(string(out))
	to := filepath.Join(root, "usr", "local", "go")
	c := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{.Dir}}", "runtime", "embed", "errors", "strconv", "strings", "os")
	c.Env = append(os.Environ(), "GOTOOLCHAIN=local", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	c.Dir = tmp
	list, err := c.Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	paths := strings.Fields(string(list))
	for _, path := range []string{"VERSION", "go.env", "bin/go", "pkg/include"} {
		paths = append(paths, filepath.Join(goroot, path))
	}
	tools, err := filepath.Glob(filepath.Join(goroot, "pkg", "tool", "*"))
	if err != nil {
		return err
	}
	for _, dir := range tools {
		for _, tool := range []string{"compile", "link", "asm", "vet", "buildid"} {
			paths = append(paths, filepath.Join(dir, tool))
		}
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			continue // tools that go builds when they are needed
		}
		rel, err := filepath.Rel(goroot, path)
		if err != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("%s is not below %s", path, goroot)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o755); err != nil {
			return err
		}
		if err := run(ctx, tmp, "cp", "-rn", path, filepath.Dir(filepath.Join(to, rel))); err != nil {
			return err
		}
	}
	if err := run(ctx, to, "find", "src", "(", "-name", "*_test.go", "-o", "-path", "*/testdata/*", "-type", "f", ")", "-delete"); err != nil {
		return err
	}
	// In the image the build runs below the same path, so that what was compiled here is found there.
	program := filepath.Join(tmp, "program")
	if err := os.MkdirAll(program, 0o755); err != nil {
		return err
	}
	const source = "package main\n\nimport (\n\t_ \"embed\"\n\t_ \"errors\"\n\t_ \"os\"\n\t_ \"strconv\"\n\t_ \"strings\"\n)\n\nfunc main() {}\n"
	if err := os.WriteFile(filepath.Join(program, "main.go"), []byte(source), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(program, "go.mod"), []byte("module program\n\ngo 1.21\n"), 0o644); err != nil {
		return err
	}
	for _, dir := range []string{"root/.cache/go-build", "tmp", "work", "dev", "proc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := run(ctx, tmp, "cp", "-r", program, filepath.Join(root, "work")); err != nil {
		return err
	}
	return warm(ctx, root)
}

// warm compiles the program in the image's own root, and removes it.
func warm(ctx context.Context, root string) error {
	for _, args := range [][]string{{"build", "-trimpath", "-o", "/tmp/program", "."}, {"vet", "-trimpath", "."}} {
		const enter = `mount --rbind /dev "$1/dev" && mount --rbind /proc "$1/proc" && exec chroot "$@"`
		command := append([]string{"--mount", "sh", "-c", enter, "sh", root, "/usr/local/go/bin/go", "-C", "/work/program"}, args...)
		c := exec.CommandContext(ctx, "unshare", command...)
		c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root"}, goEnv...)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("compile the standard library: %w: %s", err, tail(string(out)))
		}
	}
	for _, mountpoint := range []string{"dev", "proc"} { // nothing is mounted there outside of the namespace; if it is, this fails
		if err := os.Remove(filepath.Join(root, mountpoint)); err != nil {
			return err
		}
	}
	// Counters of usage would be another file in every build.
	telemetry := filepath.Join(root, "root", ".config", "go", "telemetry")
	return errors.Join(os.RemoveAll(filepath.Join(root, "work")), os.RemoveAll(filepath.Join(root, "tmp")), os.RemoveAll(telemetry),
		os.MkdirAll(telemetry, 0o755), os.WriteFile(filepath.Join(telemetry, "mode"), []byte("off"), 0o644))
}
