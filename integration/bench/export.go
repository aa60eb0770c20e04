package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// exportCases are about what happens after the last step: one layer of the programs, libraries and texts of a Debian is compressed and pushed, once as they are and
// once (1g) copied until they take 1 GiB. Each run measures time, processor time and bytes. The steps were made before, by a build without an image, which compresses
// nothing.
func (b *bench) exportCases() (list []*one) {
	for _, c := range []struct {
		size, format, against, stockFormat string
		processor, bytes, wall             float64
	}{
		{"", "gzip", "stock", "gzip", 0.333, 1.025, 0},
		{"", "zstd", "stock gzip", "gzip", 0.2, 1, 0.15},
		{"", "estargz", "stock", "estargz", 0.2, 1.02, 0},
		{"1g-", "uncompressed", "stock", "uncompressed", 0, 0, 0},
		{"1g-", "gzip", "stock", "gzip", 0.333, 1.025, 0},
		{"1g-", "zstd", "stock", "zstd", 0, 0, 0},
		{"1g-", "estargz", "stock", "estargz", 0.2, 1.02, 0},
	} {
		e := &exportCase{bench: b, format: c.format, stockFormat: c.stockFormat, step: "cp -a /usr /copy"}
		if c.size != "" {
			e.step = "mkdir /copy && while [ $(du -sm /copy | cut -f1) -lt 1024 ]; do i=$((i+1)); cp -a /usr /copy/$i; done"
		}
		name := "export-" + c.size + c.format
		list = append(list, &one{name: name, scenario: "S7", prepare: e.make, rows: func(ctx context.Context, runs int) ([]Result, error) {
			var figures [2][]exportFigures
			for i := range max(3, runs/3) {
				order := []int{0, 1}
				if i%2 == 0 {
					slices.Reverse(order)
				}
				for _, k := range order {
					f, err := []func(context.Context) (exportFigures, error){e.ours, e.stock}[k](ctx)
					if err != nil {
						return nil, err
					}
					figures[k] = append(figures[k], f)
				}
			}
			row := func(what, unit string, bound float64, of func(exportFigures) float64) Result {
				var values [2][]float64
				for k := range figures {
					for _, f := range figures[k] {
						values[k] = append(values[k], of(f))
					}
				}
				r := summarise(name+what, unit, values[0], values[1], bound)
				r.Against = c.against
				return r
			}
			return []Result{
				row(", processor time", "ms of CPU", c.processor, func(f exportFigures) float64 { return milliseconds(f.used) }),
				row(", bytes", "MB", c.bytes, func(f exportFigures) float64 { return float64(f.bytes) / 1e6 }),
				row(", time", "ms", c.wall, func(f exportFigures) float64 { return milliseconds(f.took) }),
			}, nil
		}})
	}
	return list
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// exportFigures are those of one export.
type exportFigures struct {
	took, used time.Duration
	bytes      int64 // of the layers that lie on the base image
}

type exportCase struct {
	*bench
	format, stockFormat string
	step                string // makes the layer
	dir, root           string
}

// make writes the project. Its step is known to no rule and no pass.
func (e *exportCase) make(context.Context) error {
	e.dir, e.root = filepath.Join(e.Dir, "export"), filepath.Join(e.Dir, "export-state")
	return writeFiles(e.dir, map[string]string{"Dockerfile": "FROM " + e.registry + "/debian\nARG STAMP\nRUN echo $STAMP > /stamp && " + e.step + "\n"})
}

// ours measures optbuild's: the command's time and that of all of its processes.
func (e *exportCase) ours(context.Context) (f exportFigures, err error) {
	stamp := "STAMP=" + e.next("export")
	args := []string{"build", "--progress=plain", "--build-arg", stamp, e.dir}
	if err := execute(e.optbuildAs("", e.root, append(args, "-o", "type=cacheonly")...)); err != nil {
		return f, err
	}
	if _, err := orphansTime(e.daemon.Process.Pid); err != nil {
		return f, err
	}
	tag := e.registry + "/export:ours"
	push := side{command: func() *exec.Cmd {
		return e.optbuildAs("", e.root, append(args, "-o", "type=image,push=true,force-compression=false,name="+tag+",compression="+e.format)...)
	}}
	if f.took, f.used, _, err = timed(push, false); err != nil {
		return f, err
	}
	late, err := orphansTime(e.daemon.Process.Pid)
	if err != nil {
		return f, err
	}
	f.used += late
	f.bytes, err = ownBytes(tag)
	return f, err
}

// stock measures BuildKit's: buildctl's time, and the processor time of it and the daemon.
func (e *exportCase) stock(context.Context) (f exportFigures, err error) {
	stamp := "--opt=build-arg:STAMP=" + e.next("export")
	args := []string{"build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context=" + e.dir, "--local=dockerfile=" + e.dir, stamp}
	if err := execute(e.buildctl(args...)); err != nil {
		return f, err
	}
	tag := e.registry + "/export:stock"
	push := side{command: func() *exec.Cmd {
		return e.buildctl(append(args, "--output=type=image,push=true,name="+tag+",compression="+e.stockFormat)...)
	}}
	before, err := processorTime(e.daemon.Process.Pid)
	if err != nil {
		return f, err
	}
	if f.took, f.used, _, err = timed(push, false); err != nil {
		return f, err
	}
	after, err := processorTime(e.daemon.Process.Pid)
	if err != nil {
		return f, err
	}
	f.used += after - before
	f.bytes, err = ownBytes(tag)
	return f, err
}

// ownBytes is the size of an image's layers but for the first, the base image's.
func ownBytes(ref string) (n int64, err error) {
	r, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return 0, err
	}
	img, err := remote.Image(r)
	if err != nil {
		return 0, err
	}
	m, err := img.Manifest()
	if err != nil {
		return 0, err
	}
	for _, l := range m.Layers[1:] {
		n += l.Size
	}
	return n, nil
}
