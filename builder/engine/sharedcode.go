package engine

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	continuity "github.com/containerd/continuity/fs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/builder/outcome"
)

// A stage that ran once for all platforms has its code, if it compiled any, for this machine. Where the frontend does not know all of what such a stage runs, the images for other machines
// are looked through before they leave: not only for programs, as others are, but for libraries and archives of object files as well, whatever their mode.

// sharedCode is an error if an image for another machine has machine code for this one from a shared stage. What can't be looked at is an error, too: nobody but this check stands
// between a wrong guess and a wrong image.
func sharedCode(ctx context.Context, src *exporter.Source, s session.Group) error {
	stages, err := outcome.ReadShared(src.Metadata[outcome.SharedKey])
	if err != nil || len(stages) == 0 {
		return err
	}
	ps, perr := exptypes.ParsePlatforms(src.Metadata)
	if perr != nil {
		return nil //nolint:nilerr // the exporter says what is wrong with it
	}
	for _, p := range ps.Platforms {
		var img, base dockerspec.DockerOCIImage
		ref, ok := src.FindRef(p.ID)
		if !ok || ref == nil || json.Unmarshal(exptypes.ParseKey(src.Metadata, exptypes.ExporterImageConfigKey, &p), &img) != nil || !foreignHere(img) {
			continue
		}
		if b := exptypes.ParseKey(src.Metadata, exptypes.ExporterImageBaseConfigKey, &p); len(b) > 0 && json.Unmarshal(b, &base) != nil {
			continue
		}
		question, err := json.Marshal([]any{1, platforms.DefaultSpec().Architecture, img.Architecture, len(base.RootFS.DiffIDs), madeBy(img), stages})
		if err != nil {
			return err
		}
		asked := digest.FromBytes(question).String()
		if ref.GetString(noSharedCodeKey) == asked {
			continue
		}
		if lazypull.Partial(ref) {
			if err := lazy.Unwrap(ref).Extract(ctx, s); err != nil {
				return fmt.Errorf("look for code of shared stages in the image for %s: %w", p.ID, err)
			}
		}
		mountable, err := ref.Mount(ctx, true, s)
		if err != nil {
			return err
		}
		view, release, err := mountable.Mount()
		if err != nil {
			return err
		}
		dirs, err := layerDirs(ctx, ref, view)
		switch {
		case errors.Is(err, errNoDirectories):
			err = sharedCodeIn(ctx, view, nil, nil, img, p.ID, stages)
		case err == nil && len(base.RootFS.DiffIDs) <= len(dirs):
			err = sharedCodeIn(ctx, view, dirs[:len(dirs)-len(base.RootFS.DiffIDs)], madeBy(img), img, p.ID, stages)
		default:
			if err == nil {
				err = errors.New("the image has fewer layers than its base image")
			}
		}
		if release != nil {
			err = errors.Join(err, release())
		}
		if err == nil {
			err = ref.SetString(noSharedCodeKey, asked, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// noSharedCodeKey is what is kept with files that never change: the question, if the answer was that there is no such code in them.
const noSharedCodeKey = "optbuild.no-shared-code"

// sharedCodeIn looks through the layers of an image that shared stages had a part in, the topmost first; without directories of layers through all of the image.
func sharedCodeIn(ctx context.Context, view []mount.Mount, dirs, steps []string, img dockerspec.DockerOCIImage, platform string, stages []outcome.SharedStage) error {
	here := platforms.DefaultSpec().Architecture
	return mount.WithTempMount(ctx, view, func(root string) error {
		whole := dirs == nil
		if whole {
			dirs = []string{root}
		}
		for i, dir := range dirs {
			step := ""
			if at := len(steps) - 1 - i; at >= 0 {
				step = steps[at]
			}
			by := slices.IndexFunc(stages, func(s outcome.SharedStage) bool { return s.Made(step) })
			if by < 0 {
				continue
			}
			found, more, err := codeFor(ctx, dir, root, here, img.Architecture)
			if err != nil {
				return fmt.Errorf("look for code of shared stages in the image for %s: %w", platform, err)
			}
			if len(found) > 0 {
				return &outcome.SharedCodeError{Stage: stages[by], Program: outcome.ForeignProgram{Platform: platform, Architecture: here, Paths: found, More: more, Step: step}}
			}
		}
		return nil
	})
}

// codeFor finds the files of a layer that are still in the image and have code for an architecture, with none beside them for the image's.
func codeFor(ctx context.Context, dir, root, arch, wanted string) (found []string, more int, err error) {
	err = filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !d.Type().IsRegular() {
			return nil
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(file, dir), "/")
		if got, err := codeOf(file); err != nil || got != arch {
			return err
		}
		now, err := continuity.RootPath(root, name)
		if err != nil {
			return nil // gone
		}
		if got, err := codeOf(now); err != nil || got != arch || hasSibling(root, name, arch, wanted) {
			return nil //nolint:nilerr // gone as well
		}
		if len(found) < mostNamed {
			found = append(found, name)
		} else {
			more++
		}
		return nil
	})
	return found, more, err
}

// codeOf is the architecture that a file has code for: an ELF file, or an archive of which a member is one; "" if it has none.
func codeOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var magic [8]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil {
		return "", nil // too short
	}
	switch {
	case string(magic[:]) == "!<arch>\n":
		return codeOfArchive(f), nil
	case string(magic[:len(elf.ELFMAG)]) != elf.ELFMAG:
		return "", nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	arch, err := emulation.ReadArchitecture(f)
	if err != nil {
		return "", nil // cut off
	}
	return arch, nil
}

// codeOfArchive looks at the members of an ar archive, behind its magic: headers of 60 bytes, of which 10 at 48 are the member's size in decimal; members begin at even offsets.
func codeOfArchive(f *os.File) string {
	for at := int64(8); ; {
		var head [60]byte
		if _, err := f.ReadAt(head[:], at); err != nil {
			return ""
		}
		var size int64
		if _, err := fmt.Sscanf(strings.TrimSpace(string(head[48:58])), "%d", &size); err != nil || size < 0 {
			return ""
		}
		if arch, err := emulation.ReadArchitecture(io.NewSectionReader(f, at+60, size)); err == nil && arch != "" {
			return arch
		}
		at += 60 + size + size%2
	}
}

// hasSibling reports whether a file that says in its path what it is for has one for the image's architecture beside it: prebuilds/linux-x64/a.node and prebuilds/linux-arm64/a.node. Then it came so.
func hasSibling(root, name, arch, wanted string) bool {
	for _, from := range spelled(arch) {
		for at := strings.Index(name, from); at >= 0; at = next(name, from, at) {
			dir, rest := name[:at], name[at+len(from):]
			for _, to := range spelled(wanted) {
				if p, err := continuity.RootPath(root, dir+to+rest); err == nil {
					if got, err := codeOf(p); err == nil && runs(wanted, got) {
						return true
					}
				}
			}
		}
	}
	return false
}

func next(s, sub string, at int) int {
	if i := strings.Index(s[at+1:], sub); i >= 0 {
		return at + 1 + i
	}
	return -1
}
