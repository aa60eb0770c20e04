package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	v1tar "github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/optbuild/optbuild/builder/emulation"
)

// platformsCases build for two platforms: what has to be emulated, and what need not be.
func (b *bench) platformsCases() []*one {
	return append([]*one{b.platformsCase()}, b.serviceCases()...)
}

// platformsCase builds for two platforms, of which one is emulated, after an edit.
func (b *bench) platformsCase() *one {
	const name = "S6"
	s := oneEdit
	s.name, s.what, s.bound, s.floor = name, "two platforms, one emulated, one source file changed", 1, false
	w := &workload{name: "platforms", what: "a step that reads what was edited, and one that does not", platforms: "linux/amd64,linux/arm64", onlyNaive: true}
	w.generate = func(_ context.Context, b *bench) (*project, error) {
		files := docs(200)
		files["main.txt"] = marked + "\n"
		p, err := b.newProject("platforms", files, map[string]string{
			"naive": "FROM " + twoPlatforms + "\nWORKDIR /app\nCOPY . .\nRUN i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; cat docs/0/1.md > /slow\nRUN cat main.txt > /made\n"})
		if err == nil {
			p.edit = "main.txt"
		}
		return p, err
	}
	c := b.cell(s, w, name)
	generated := c.prepare
	c.prepare = func(ctx context.Context) error {
		if err := emulated(); err != nil {
			return err
		}
		if err := generated(ctx); err != nil {
			return err
		}
		return b.pushPlatforms(ctx)
	}
	return c
}

// twoPlatforms is the name of the base image, which stands in for an official one.
const twoPlatforms = "busybox:1"

// emulated is an error if nobody can run programs of the other platform.
func emulated() error {
	if runtime.GOARCH != "amd64" {
		return skipped("it is made for amd64, with arm64 as the other platform")
	}
	err := registered()
	if err == nil {
		return nil
	}
	if _, ferr := emulation.Find("arm64", exec.LookPath); ferr != nil { // optbuild needs no more than that
		return err
	}
	return nil
}

// registered is an error if the kernel has no emulator for the other platform, without which stock BuildKit runs none of its programs.
func registered() error {
	entries, err := filepath.Glob("/proc/sys/fs/binfmt_misc/*")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if text, err := os.ReadFile(e); err == nil && strings.Contains(filepath.Base(e), "aarch64") && strings.HasPrefix(string(text), "enabled") {
			return nil
		}
	}
	return skipped("binfmt_misc has nothing that runs arm64 programs: install qemu-user-static and binfmt-support, mount /proc/sys/fs/binfmt_misc")
}

// pushPlatforms pushes an image with busybox for both platforms.
func (b *bench) pushPlatforms(ctx context.Context) error {
	var addenda []mutate.IndexAddendum
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := b.foreignBusybox(ctx, arch)
		if err != nil {
			return err
		}
		addenda = append(addenda, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ref, err := name.ParseReference(b.registry+"/library/"+twoPlatforms, name.Insecure)
	if err != nil {
		return err
	}
	return remote.WriteIndex(ref, mutate.AppendManifests(empty.Index, addenda...), remote.WithContext(ctx))
}

// foreignBusybox unpacks Debian's package of another architecture, without running anything of it, and adds the links that steps need.
func (b *bench) foreignBusybox(ctx context.Context, arch string) (v1.Image, error) {
	file, err := b.kept("busybox-" + arch + "-1.tar")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(file); err != nil {
		codename, err := output("sh", "-c", `. /etc/os-release && echo "$VERSION_CODENAME"`)
		if err != nil {
			return nil, err
		}
		part := file + ".part" // of which mmdebstrap is told the format
		c := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--architectures="+arch, "--variant=extract", "--skip=check/qemu", "--format=tar",
			"--include=busybox-static", codename, part)
		if err := execute(c); err != nil {
			return nil, skipped(fmt.Sprintf("its base image can't be made for %s: %v", arch, err))
		}
		if err := os.Rename(part, file); err != nil {
			return nil, err
		}
	}
	files, err := v1tar.LayerFromFile(file)
	if err != nil {
		return nil, err
	}
	var links bytes.Buffer
	w := tar.NewWriter(&links)
	for _, applet := range []string{"sh", "cat", "echo", "ls"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	linked, err := v1tar.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(links.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, files, linked)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Env = "linux", arch, []string{"PATH=/usr/bin:/bin"}
	return mutate.ConfigFile(img, config)
}

// diskUse is what the files below a directory take, each once.
func diskUse(root string) (bytes int64, err error) {
	type inode struct{ device, number uint64 }
	seen := map[inode]bool{}
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return nil
		}
		if s, ok := i.Sys().(*syscall.Stat_t); ok && !seen[inode{s.Dev, s.Ino}] {
			seen[inode{s.Dev, s.Ino}] = true
			bytes += s.Blocks * 512
		}
		return nil
	})
	return bytes, err
}
