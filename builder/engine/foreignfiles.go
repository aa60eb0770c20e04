package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/containerd/containerd/v2/core/mount"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/util/overlay"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/snapshot"
)

// What steps made for another platform shows in their layers: executable files that are not for the image's architecture. Those of the base image are its maker's business.

const (
	// mostEntries is how many files and directories of an image's layers are looked at: about a second on a busy machine (measured: 150,000 in 1.5 s, cached, on 2 cores with a load of 11).
	mostEntries = 100_000
	// mostNamed is how many files a warning names.
	mostNamed = 3
)

// foreignFiles finds executables in the layers that lie on the base image which the image's architecture can't run, by the steps that made them. view are the mounts of the whole image.
func foreignFiles(ctx context.Context, ref cache.ImmutableRef, view []mount.Mount, img dockerspec.DockerOCIImage, baseLayers int) ([]outcome.ForeignProgram, error) {
	dirs, err := layerDirs(ctx, ref, view)
	if err != nil {
		return nil, err
	}
	if baseLayers > len(dirs) {
		return nil, errors.New("the image has fewer layers than its base image")
	}
	dirs = dirs[:len(dirs)-baseLayers]
	steps := madeBy(img)
	found, left := make([]executables, len(dirs)), mostEntries
	any := false
	for i, dir := range dirs {
		if err := found[i].find(ctx, dir, img.Architecture, &left); err != nil {
			return nil, err
		}
		any = any || len(found[i]) > 0
	}
	if left < 0 {
		logrus.Debugf("looked at %d files for programs of other platforms, and not at the rest", mostEntries)
	}
	if !any {
		return nil, nil
	}
	var list []outcome.ForeignProgram
	seen := map[string]bool{} // in a layer above
	err = mount.WithTempMount(ctx, view, func(root string) error {
		for i := range dirs {
			byArch := map[string]*outcome.ForeignProgram{}
			for _, e := range found[i] {
				// What a layer above has deleted, or put in its place, is not in the image.
				path, err := continuity.RootPath(root, e.path)
				if err != nil || seen[e.path] {
					continue
				}
				if arch, err := emulation.Architecture(path); err != nil || arch != e.arch {
					continue
				}
				seen[e.path] = true
				f := byArch[e.arch]
				if f == nil {
					f = &outcome.ForeignProgram{Architecture: e.arch}
					if at := len(steps) - 1 - i; at >= 0 {
						f.Step = steps[at]
					}
					byArch[e.arch] = f
				}
				if len(f.Paths) < mostNamed {
					f.Paths = append(f.Paths, e.path)
				} else {
					f.More++
				}
			}
			for _, arch := range emulation.Architectures() {
				if f := byArch[arch]; f != nil {
					list = append(list, *f)
				}
			}
		}
		return nil
	})
	return list, err
}

var errNoDirectories = errors.New("the snapshotter has no directory for each layer")

// layerDirs are the directories of an image's layers, the topmost first.
func layerDirs(ctx context.Context, ref cache.ImmutableRef, view []mount.Mount) (dirs []string, err error) {
	chain := ref.LayerChain()
	defer chain.Release(context.WithoutCancel(ctx))
	switch {
	case len(view) == 1 && view[0].Type == "overlay":
		if dirs, err = overlay.GetOverlayLayers(view[0]); err != nil {
			return nil, err
		}
		slices.Reverse(dirs)
	case len(view) == 1 && view[0].Type == "bind":
		dirs = []string{view[0].Source}
	}
	if len(dirs) != len(chain) {
		return nil, errNoDirectories
	}
	for i, d := range dirs {
		dirs[i] = snapshot.Files(d)
	}
	return dirs, nil
}

// madeBy are the instructions of an image that have made its layers, the lowest first.
func madeBy(img dockerspec.DockerOCIImage) (steps []string) {
	for _, h := range img.History {
		if !h.EmptyLayer {
			text := strings.TrimSuffix(h.CreatedBy, " # buildkit")
			steps = append(steps, strings.Replace(text, "RUN /bin/sh -c ", "RUN ", 1))
		}
	}
	return steps
}

// executables are foreign ones of one layer.
type executables []executable

type executable struct{ path, arch string }

// find walks through a layer. left is how many entries may be looked at yet.
func (l *executables) find(ctx context.Context, dir, arch string, left *int) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if *left--; *left < 0 {
			return fs.SkipAll
		}
		if err != nil || !d.Type().IsRegular() {
			return ctx.Err() // what can't be read is not looked at
		}
		info, err := d.Info()
		if err != nil || info.Mode()&0o111 == 0 {
			return nil
		}
		f, err := os.Open(file)
		if err != nil {
			return nil
		}
		defer f.Close()
		got, err := emulation.ReadArchitecture(f) // reads 20 bytes
		path := "/" + strings.TrimPrefix(strings.TrimPrefix(file, dir), "/")
		if err != nil || got == "" || runs(arch, got) || saysSo(path, got) {
			return nil
		}
		*l = append(*l, executable{path, got})
		return nil
	})
}

// runs reports whether processors of an architecture run programs of another one.
func runs(arch, program string) bool { return program == arch || native[program] == arch }

// spellings are other names of architectures, as they stand in paths.
var spellings = map[string][]string{
	"amd64": {"amd64", "x86_64", "x64"}, "arm64": {"arm64", "aarch64"}, "386": {"386", "i386", "i686", "ia32", "x86"}, "arm": {"arm", "armv7", "armv6", "armhf"},
}

// spelled is how an architecture is called in paths.
func spelled(arch string) []string {
	if names := spellings[arch]; names != nil {
		return names
	}
	return []string{arch, emulation.Qemu(arch)}
}

// saysSo is true of a file with its architecture in its path: packages that have programs for several (node_modules/@esbuild/linux-x64/bin/esbuild) mean it.
func saysSo(path, arch string) bool {
	names := spelled(arch)
	for word := range strings.FieldsFuncSeq(strings.ToLower(path), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' }) {
		if slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(word, name) || strings.HasSuffix(word, "_"+name) }) {
			return true
		}
	}
	return strings.Contains(path, "x86-64") && arch == "amd64"
}

// foreignHere reports whether an image is for another architecture than this machine's.
func foreignHere(img dockerspec.DockerOCIImage) bool {
	return img.OS == "linux" && img.Architecture != platforms.DefaultSpec().Architecture
}
