// Command demo builds a Dockerfile that was written naively, cold, again without a change, and after an edit of one source
// file, and prints what each build took and gave.
//
// It brings a base image, made from this machine's apt sources, and a registry on loopback. All that it makes, but for the
// base image in the user's cache directory, is in a temporary directory that it removes.
package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/tree"
)

//go:embed all:app
var app embed.FS

func main() {
	log.SetFlags(0)
	log.SetPrefix("demo: ")
	binary := flag.String("optbuild", "bin/optbuild", "the binary to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, binary string) (err error) {
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	// Not below TMPDIR, which may be a tmpfs: the state directory wants a real file system.
	dir, err := os.MkdirTemp("/var/tmp", "optbuild-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Remove(dir)) }()
	addr, stop, err := serve()
	if err != nil {
		return err
	}
	defer stop()
	fmt.Println("Making the base image (once; it is kept in the cache directory) ...")
	if err := offerBase(ctx, addr); err != nil {
		return err
	}
	d := demo{binary: binary, dir: dir, registry: addr}
	if err := d.writeApp(); err != nil {
		return err
	}
	return d.show(ctx)
}

// serve starts an empty registry on a free port of loopback.
func serve() (addr string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	go s.Serve(l)
	return l.Addr().String(), func() { s.Close() }, nil
}

func offerBase(ctx context.Context, addr string) error {
	cache, err := bases.CacheDir()
	if err != nil {
		return err
	}
	base, err := bases.Debian(ctx, cache)
	if err != nil {
		return err
	}
	return base.Push(ctx, addr)
}

// demo is one run.
type demo struct {
	binary, dir, registry string
}

func (d demo) context() string { return filepath.Join(d.dir, "app") }

// writeApp writes the application to the temporary directory, with the registry's address in its Dockerfile.
func (d demo) writeApp() error {
	return fs.WalkDir(app, "app", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := app.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(d.dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, bytes.ReplaceAll(b, []byte("FROM REGISTRY"), []byte("FROM "+d.registry)), 0o644)
	})
}

// show runs the builds and prints the table.
func (d demo) show(ctx context.Context) error {
	dockerfile, err := os.ReadFile(filepath.Join(d.context(), "Dockerfile"))
	if err != nil {
		return err
	}
	fmt.Printf("The Dockerfile:\n\n%s\n", indent(string(dockerfile)))
	var rows []row
	for _, b := range []struct {
		name string
		edit func() error
	}{
		{"cold", func() error { return nil }},
		{"again, nothing changed", func() error { return nil }},
		{"one source file edited", d.edit},
	} {
		if err := b.edit(); err != nil {
			return err
		}
		r, err := d.build(ctx, b.name)
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	fmt.Print("\n" + table(rows))
	return nil
}

// edit changes a file that no install step reads.
func (d demo) edit() error {
	path := filepath.Join(d.context(), "menu.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, "  - {name: Apple pie, price: 4.10}\n"...), 0o644)
}

func (d demo) build(ctx context.Context, title string) (row, error) {
	tag := d.registry + "/app:latest"
	fmt.Printf("\n--- %s: optbuild build -t %s --push app\n", title, tag)
	c := exec.CommandContext(ctx, d.binary, "--root", filepath.Join(d.dir, "state"), "build", "--progress", "plain", "-t", tag, "--push", d.context())
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	// Its whole output is long; what each step came to is enough.
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	begin := time.Now()
	err := c.Run()
	seconds := time.Since(begin).Seconds()
	if err != nil {
		return row{}, fmt.Errorf("%s: %w\n%s", title, err, out.String())
	}
	fmt.Print(steps(out.String()))
	layers, size, err := measure(ctx, tag)
	return row{Title: title, Seconds: seconds, Layers: layers, Bytes: size}, err
}

// measure returns the number of layers of an image and their compressed size.
func measure(ctx context.Context, tag string) (layers int, size int64, err error) {
	ref, err := name.ParseReference(tag, name.Insecure)
	if err != nil {
		return 0, 0, err
	}
	img, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return 0, 0, err
	}
	m, err := img.Manifest()
	if err != nil {
		return 0, 0, err
	}
	for _, l := range m.Layers {
		size += l.Size
	}
	return len(m.Layers), size, nil
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") + "\n"
}
