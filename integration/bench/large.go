package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"
)

// largeCase exports a layer of 5 GiB in each format and measures the memory of optbuild's processes: their peak, above that of the same build without an
// image. It takes minutes, and 20 GB of disk.
func (b *bench) largeCase() *one {
	const name = "export-5g"
	dir, root := filepath.Join(b.Dir, "large"), filepath.Join(b.Dir, "large-state")
	var target string // registry
	build := func(output string) (took time.Duration, peak float64, err error) {
		took, _, bytes, err := timed(side{command: func() *exec.Cmd {
			return b.optbuildAs("", root, "build", "--progress=plain", "-o", output, dir)
		}}, true)
		if err != nil {
			return 0, 0, err
		}
		_, err = orphansTime(b.daemon.Process.Pid)
		return took, float64(bytes) / (1 << 20), err
	}
	return &one{
		name: name, asked: true,
		prepare: func(ctx context.Context) (err error) {
			var s unix.Statfs_t
			if err := unix.Statfs(b.Dir, &s); err != nil {
				return err
			}
			if free := s.Bavail * uint64(s.Bsize) >> 30; free < 24 {
				return skipped(fmt.Sprintf("it takes 20 GB of disk, and %s has %d", b.Dir, free))
			}
			if target, err = b.registryOnDisk(); err != nil {
				return err
			}
			if err := writeFiles(dir, map[string]string{"Dockerfile": "FROM " + b.registry + "/debian\nCOPY words /\nRUN " + large + "\n", "words": words(64 << 20)}); err != nil {
				return err
			}
			_, _, err = build("type=cacheonly")
			return err
		},
		rows: func(ctx context.Context, _ int) (rows []Result, err error) {
			defer os.RemoveAll(root)
			for _, format := range []string{"gzip", "zstd", "estargz"} {
				_, idle, err := build("type=cacheonly")
				if err != nil {
					return nil, err
				}
				ref := target + "/large:" + format
				took, peak, err := build("type=image,push=true,force-compression=false,name=" + ref + ",compression=" + format)
				if err != nil {
					return nil, err
				}
				bytes, err := ownBytes(ref)
				if err != nil {
					return nil, err
				}
				single := func(what, unit string, v, bound float64) Result {
					return summarise(name+" "+format+", "+what, unit, []float64{v}, nil, bound)
				}
				rows = append(rows, single("peak memory above idle", "MiB", peak-idle, 300), single("time", "s", took.Seconds(), 0), single("bytes", "MB", float64(bytes)/1e6, 0))
			}
			return rows, nil
		},
	}
}

// large writes a file of 4 GiB and 64 of 16 MiB. Each time that the words are written they are other ones, though of the same length.
const large = `mkdir /large; a=abcdefghijklmnopqrstuvwxyz; ` +
	`for i in $(seq 80); do a=${a#?}${a%"${a#?}"}; ` +
	`if [ $i -le 64 ]; then tr abcdefghijklmnopqrstuvwxyz $a < /words >> /large/one; ` +
	`else for k in 0 1 2 3; do tail -c +$((k*16777216+1)) /words | head -c 16777216 | tr abcdefghijklmnopqrstuvwxyz $a > /large/$i.$k; done; fi; done`

// words is text that gzip makes about a third of: words of a vocabulary of 20,000, as often as words are in a language.
func words(size int) string {
	r := rand.New(rand.NewPCG(1, 2))
	vocabulary := make([]string, 20_000)
	for i := range vocabulary {
		w := make([]byte, 3+r.IntN(8))
		for k := range w {
			w[k] = byte('a' + r.IntN(26))
		}
		vocabulary[i] = string(w) + " "
	}
	often := rand.NewZipf(r, 1.1, 10, uint64(len(vocabulary)-1))
	b := make([]byte, 0, size+16)
	for len(b) < size {
		b = append(b, vocabulary[often.Uint64()]...)
	}
	return string(b[:size])
}

// registryOnDisk is one for images that are too large for memory.
func (b *bench) registryOnDisk() (address string, err error) {
	dir := filepath.Join(b.Dir, "registry")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: quiet(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)))}
	go s.Serve(ln)
	b.undo = append(b.undo, func() { s.Close() })
	return ln.Addr().String(), nil
}
