package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/samefile"
)

// Whether a stage gives the same to all platforms is often known only by looking. Where one ran for each, the layers that copy from it are compared, so that the user can be told that it need not have.

const (
	// mostCompared and mostComparedBytes are what of a stage is compared at most; of one that gives more nothing is said. Reading that much takes a fraction of a second, and emulating a stage longer.
	mostCompared      = 20_000
	mostComparedBytes = 128 << 20
)

// sameCopies are the stages of which the images of all platforms have the same: paths, types, modes, owners, content. Times are those of when it ran.
func sameCopies(ctx context.Context, src *exporter.Source, s session.Group) ([]string, error) {
	stages := outcome.ReadCompared(src.Metadata[outcome.CompareKey])
	ps, err := exptypes.ParsePlatforms(src.Metadata)
	if len(stages) == 0 || err != nil || len(ps.Platforms) < 2 {
		return nil, nil //nolint:nilerr // the exporter says what is wrong with it
	}
	var images []*comparedImage
	var ids []string
	for _, p := range ps.Platforms {
		var img dockerspec.DockerOCIImage
		ref, ok := src.FindRef(p.ID)
		if !ok || ref == nil || lazypull.Partial(ref) || json.Unmarshal(exptypes.ParseKey(src.Metadata, exptypes.ExporterImageConfigKey, &p), &img) != nil {
			return nil, nil
		}
		images = append(images, &comparedImage{ref: ref, steps: madeBy(img)})
		ids = append(ids, ref.ID())
	}
	question, err := json.Marshal([]any{1, ids, stages})
	if err != nil {
		return nil, err
	}
	asked := digest.FromBytes(question).String()
	if before, answer, _ := strings.Cut(images[0].ref.GetString(sameCopiesKey), " "); before == asked {
		return strings.Fields(answer), nil
	}
	for _, i := range images {
		if err := i.open(ctx, s); errors.Is(err, errNoDirectories) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		defer i.close()
	}
	var same []string
	for _, st := range stages {
		equal := true
		for _, other := range images[1:] {
			if equal {
				if equal, err = images[0].sameAs(ctx, other, st.Copies); err != nil {
					return nil, err
				}
			}
		}
		if equal {
			same = append(same, st.Stage)
		}
	}
	return same, images[0].ref.SetString(sameCopiesKey, asked+" "+strings.Join(same, " "), "")
}

// sameCopiesKey is what is kept with files that never change: the question, and the names of stages that are the answer.
const sameCopiesKey = "optbuild.same-copies"

// comparedImage is the image of one platform.
type comparedImage struct {
	ref     cache.ImmutableRef
	steps   []string // that have made its layers, the lowest first
	dirs    []string // of its layers, the topmost first
	release func() error
}

func (i *comparedImage) open(ctx context.Context, s session.Group) error {
	mountable, err := i.ref.Mount(ctx, true, s)
	if err != nil {
		return err
	}
	view, release, err := mountable.Mount()
	if err != nil {
		return err
	}
	i.release = release
	i.dirs, err = layerDirs(ctx, i.ref, view)
	return err
}

func (i *comparedImage) close() {
	if i.release != nil {
		_ = i.release() // only read
	}
}

// layer is the directory of the layer that a step has made; "" if it is not the only one of that name.
func (i *comparedImage) layer(step string) string {
	found := ""
	for n, dir := range i.dirs {
		if at := len(i.steps) - 1 - n; at >= 0 && i.steps[at] == step {
			if found != "" {
				return ""
			}
			found = dir
		}
	}
	return found
}

// sameAs reports whether two images have the same of the steps.
func (i *comparedImage) sameAs(ctx context.Context, other *comparedImage, steps []string) (bool, error) {
	left := compareLeft{mostCompared, mostComparedBytes}
	for _, step := range steps {
		a, b := i.layer(step), other.layer(step)
		if a == "" || b == "" {
			return false, nil
		}
		if a == b { // it is one layer of both
			continue
		}
		if same, err := sameTrees(ctx, a, b, &left); err != nil || !same {
			return false, err
		}
	}
	return len(steps) > 0, nil
}

type compareLeft struct {
	files int
	bytes int64
}

var errDiffers = errors.New("differs")

// sameTrees compares two directories, as far as what is left allows; what is more counts as another.
func sameTrees(ctx context.Context, a, b string, left *compareLeft) (bool, error) {
	count := 0
	err := filepath.WalkDir(a, func(file string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		count++
		if left.files--; left.files < 0 {
			return errDiffers
		}
		other := filepath.Join(b, strings.TrimPrefix(file, a))
		x, err := os.Lstat(file)
		if err != nil {
			return err
		}
		y, err := os.Lstat(other)
		if errors.Is(err, fs.ErrNotExist) {
			return errDiffers
		} else if err != nil {
			return err
		}
		if file != a && !sameStat(x, y) { // the root's own is the image's
			return errDiffers
		}
		switch {
		case x.Mode()&fs.ModeSymlink != 0:
			s, err := os.Readlink(file)
			if err != nil {
				return err
			}
			if t, err := os.Readlink(other); err != nil || s != t {
				return errors.Join(errDiffers, err)
			}
		case x.Mode().IsRegular():
			if left.bytes -= x.Size(); left.bytes < 0 {
				return errDiffers
			}
			if same, err := samefile.Content(file, other); err != nil || !same {
				return cmp.Or(err, errDiffers)
			}
		}
		return nil
	})
	if errors.Is(err, errDiffers) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("compare layers: %w", err)
	}
	more := 0
	err = filepath.WalkDir(b, func(string, fs.DirEntry, error) error {
		if more++; more > count {
			return errDiffers
		}
		return nil
	})
	return err == nil && more == count, nil
}

func sameStat(x, y fs.FileInfo) bool {
	s, ok := x.Sys().(*syscall.Stat_t)
	t, okay := y.Sys().(*syscall.Stat_t)
	return ok && okay && s.Mode == t.Mode && s.Uid == t.Uid && s.Gid == t.Gid && s.Rdev == t.Rdev && (x.IsDir() || x.Size() == y.Size())
}
