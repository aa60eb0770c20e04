package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/worker"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/builder/outcome"
)

// An image for one platform whose program is for another is made by a stage on the build platform that was not told what to compile for, or by a base image of the wrong
// platform. It is told, or refused, before it leaves.

// checking is a worker whose exporters of images look at the programs that the images start.
type checking struct{ worker.Worker }

func (w checking) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	e, err := w.Worker.Exporter(name, sm)
	if err != nil {
		return nil, err
	}
	switch name {
	case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
		return checkingExporter{e}, nil
	case client.ExporterLocal, client.ExporterTar:
		return sharingExporter{e}, nil
	}
	return e, nil
}

// sharingExporter writes files, of which only those of shared stages are looked at.
type sharingExporter struct{ exporter.Exporter }

func (e sharingExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	i, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	return sharingInstance{i}, nil
}

type sharingInstance struct{ exporter.ExporterInstance }

func (i sharingInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	if err := sharedCode(ctx, src, session.NewGroup(info.SessionID)); err != nil {
		return nil, nil, nil, err
	}
	return i.ExporterInstance.Export(ctx, src, info)
}

type checkingExporter struct{ exporter.Exporter }

func (e checkingExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	strict, _ := strconv.ParseBool(attrs[outcome.AttrStrict])
	delete(attrs, outcome.AttrStrict) // BuildKit's exporter would take it for metadata of the image
	i, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	return checkingInstance{i, strict}, nil
}

type checkingInstance struct {
	exporter.ExporterInstance
	strict bool
}

func (i checkingInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	if err := sharedCode(ctx, src, session.NewGroup(info.SessionID)); err != nil {
		return nil, nil, nil, err
	}
	wrong, err := foreignPrograms(ctx, src, i.strict, session.NewGroup(info.SessionID))
	switch {
	case err != nil && i.strict:
		return nil, nil, nil, err
	case err != nil:
		logrus.WithError(err).Debug("look for programs of other platforms")
	case len(wrong) > 0 && i.strict:
		return nil, nil, nil, fmt.Errorf("%s", wrong[0])
	}
	same, serr := sameCopies(ctx, src, session.NewGroup(info.SessionID))
	if serr != nil {
		logrus.WithError(serr).Debug("compare what platforms take from stages")
	}
	resp, finalize, ref, err := i.ExporterInstance.Export(ctx, src, info)
	if err == nil && len(same) > 0 && resp != nil {
		outcome.SetSame(resp, same)
	}
	if err == nil && len(wrong) > 0 && resp != nil {
		if b, merr := json.Marshal(wrong); merr == nil {
			resp[outcome.ForeignKey] = base64.StdEncoding.EncodeToString(b)
		}
	}
	return resp, finalize, ref, err
}

// foreignPrograms looks at what each platform's image starts, and, where it is for another platform than this machine's, or all is wanted, at what its steps made. What can't be read
// without fetching it is not looked at, unless all is wanted.
func foreignPrograms(ctx context.Context, src *exporter.Source, all bool, s session.Group) (wrong []outcome.ForeignProgram, err error) {
	ps, perr := exptypes.ParsePlatforms(src.Metadata)
	if perr != nil {
		return nil, nil //nolint:nilerr // the exporter says what is wrong with it
	}
	for _, p := range ps.Platforms {
		var img, base dockerspec.DockerOCIImage
		ref, ok := src.FindRef(p.ID)
		if !ok || ref == nil || json.Unmarshal(exptypes.ParseKey(src.Metadata, exptypes.ExporterImageConfigKey, &p), &img) != nil {
			continue
		}
		if b := exptypes.ParseKey(src.Metadata, exptypes.ExporterImageBaseConfigKey, &p); len(b) > 0 && json.Unmarshal(b, &base) != nil {
			continue
		}
		if lazypull.Partial(ref) {
			if !all {
				continue
			}
			if xerr := lazy.Unwrap(ref).Extract(ctx, s); xerr != nil {
				err = errors.Join(err, fmt.Errorf("look for programs of other platforms in the image for %s: %w", p.ID, xerr))
				continue
			}
		}
		list, ferr := foreignIn(ctx, ref, img, len(base.RootFS.DiffIDs), all || foreignHere(img), s)
		if ferr != nil && !errors.Is(ferr, errNoDirectories) { // then what the image starts has been looked at
			err = errors.Join(err, fmt.Errorf("look for programs of other platforms in the image for %s: %w", p.ID, ferr))
		}
		for _, f := range list {
			f.Platform = p.ID
			wrong = append(wrong, f)
		}
	}
	return wrong, err
}

// foreignIn is foreignPrograms for one image. What it starts comes first.
func foreignIn(ctx context.Context, ref cache.ImmutableRef, img dockerspec.DockerOCIImage, baseLayers int, files bool, s session.Group) (wrong []outcome.ForeignProgram, err error) {
	args := slices.Concat(img.Config.Entrypoint, img.Config.Cmd)
	if img.OS != "linux" || len(args) == 0 && !files {
		return nil, nil
	}
	question := startQuestion(img, args)
	if !files && ref.GetString(startsOwnKey) == question {
		return nil, nil
	}
	mountable, err := ref.Mount(ctx, true, s)
	if err != nil {
		return nil, err
	}
	view, release, err := mountable.Mount()
	if err != nil {
		return nil, err
	}
	if release != nil {
		defer func() { err = errors.Join(err, release()) }()
	}
	path, arch, err := started(ctx, view, img, args)
	if err != nil {
		return nil, err
	}
	if arch != "" && !runs(img.Architecture, arch) {
		wrong = append(wrong, outcome.ForeignProgram{Path: path, Architecture: arch})
	}
	if !files {
		if len(wrong) == 0 {
			err = ref.SetString(startsOwnKey, question, "")
		}
		return wrong, err
	}
	made, err := foreignFiles(ctx, ref, view, img, baseLayers)
	for _, f := range made {
		if len(wrong) > 0 && f.More == 0 && slices.Equal(f.Paths, []string{wrong[0].Path}) {
			continue // it was said
		}
		wrong = append(wrong, f)
	}
	return wrong, err
}

// startsOwnKey is what is kept with files that never change: the question, if the answer was that the image starts no program of another architecture. To ask again they
// would be mounted, for which 4 of the 8 to 10 database transactions of an unchanged export were.
const startsOwnKey = "optbuild.starts-own"

// startQuestion is all that the answer depends on, but for the files: the architecture, and where the program is looked for.
func startQuestion(img dockerspec.DockerOCIImage, args []string) string {
	q, _ := json.Marshal([]any{1, img.Architecture, args, img.Config.Env, img.Config.WorkingDir}) // strings can be marshalled
	return digest.FromBytes(q).String()
}

// started finds the program that an image starts; arch is empty if it has none, or one that is no ELF file.
func started(ctx context.Context, view []mount.Mount, img dockerspec.DockerOCIImage, args []string) (path, arch string, err error) {
	if len(args) == 0 {
		return "", "", nil
	}
	err = mount.WithTempMount(ctx, view, func(dir string) error {
		for _, name := range candidates(executor.Meta{Args: args, Env: img.Config.Env, Cwd: img.Config.WorkingDir}) {
			file, err := fs.RootPath(dir, name)
			if err != nil {
				continue
			}
			if a, err := emulation.Architecture(file); err == nil {
				path, arch = name, a
				return nil
			}
		}
		return nil
	})
	return path, arch, err
}
