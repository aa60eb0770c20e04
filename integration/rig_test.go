package integration

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/tonistiigi/fsutil"

	"github.com/optbuild/optbuild/builder/export"
	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/fakes"
	"github.com/optbuild/optbuild/integration/oracle"
	"github.com/optbuild/optbuild/integration/tree"
)

// rig is what many builds share: one engine, one registry with the images of package fakes under the names of official ones, one
// store of blobs that results go to, and the layers that were read of it. A build costs its RUN steps and some milliseconds.
type rig struct {
	dir    string
	server *server
	client *client.Client
	blobs  content.Store
	reader oracle.Reader
}

// newRig starts the engine that OPTBUILD_BIN names, as a buildkitd.
func newRig(t *testing.T) *rig {
	t.Helper()
	g := prepare(t)
	if os.Geteuid() != 0 {
		skipped.skip(t, "not root, which devices and owners of the cases need")
	}
	dir, err := os.MkdirTemp(rigParent(g), "optbuild-rig-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("OPTBUILD_TEST_KEEP") != "" {
			fmt.Println("kept:", dir)
		} else if err := tree.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	r := &rig{dir: dir}
	if r.server, err = newServer(g, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.server.Close)
	if err := fakes.Push(t.Context(), r.server.Addr, bases.Base{Name: "busybox", Dir: filepath.Join(g.Dir, "bases", "busybox")}); err != nil {
		t.Fatal(err)
	}
	if r.blobs, err = contentlocal.NewStore(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "buildkitd.toml")
	mirror := fmt.Sprintf(`[registry."docker.io"]
  mirrors = ["%[1]s"]
[registry."mcr.microsoft.com"]
  mirrors = ["%[1]s"]
[registry."%[1]s"]
  http = true
`, r.server.Addr)
	if err := os.WriteFile(config, []byte(mirror), 0o644); err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(dir, "s")
	log := &bytes.Buffer{}
	serve := exec.Command(filepath.Join(g.Dir, "bin", "optbuild"), "serve", "--config", config, "--root", filepath.Join(dir, "state"),
		"--addr", "unix://"+address, "--oci-worker-gc=false", "--log-level", "fatal")
	serve.Stdout, serve.Stderr = log, log
	serve.Env = append(os.Environ(), "HOME="+dir, "GOGC=400") // it lives for minutes, and memory is there
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	asked := make(chan struct{})
	go func() {
		serve.Wait()
		close(ended)
		select {
		case <-asked:
		default:
			t.Errorf("the engine ended by itself:\n%s", log)
		}
	}()
	t.Cleanup(func() {
		close(asked)
		serve.Process.Signal(os.Interrupt)
		<-ended
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { // an engine that does not start is not waited for
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	// The context of the dialer ends with newRig, the connection does not.
	if r.client, err = client.New(context.Background(), "unix://"+address, client.WithContextDialer(dialWhenUp)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.client.Close() })
	if _, err := r.client.ListWorkers(ctx); err != nil {
		t.Fatalf("start engine: %v", err)
	}
	return r
}

// rigParent is where a rig puts its files: in memory where there is room, which halves the time of a build.
func rigParent(g *ground) string {
	const memory, room = "/dev/shm", 3 << 30
	var fs syscall.Statfs_t
	if os.Getenv("OPTBUILD_TEST_DIR") == "" && syscall.Statfs(memory, &fs) == nil && fs.Bavail*uint64(fs.Bsize) > room {
		return memory
	}
	return g.Dir
}

// build is one build on a rig.
type build struct {
	attrs    map[string]string
	dirs     map[string]string // local directories by name: "context", "dockerfile", named contexts
	frontend gateway.BuildFunc
	merged   bool // layers of adjacent RUNs
}

// build returns the images that a build makes, by platform.
func (r *rig) build(ctx context.Context, b build) (map[string]*oracle.Image, error) {
	mounts := map[string]fsutil.FS{}
	for name, dir := range b.dirs {
		f, err := fsutil.NewFS(dir)
		if err != nil {
			return nil, err
		}
		mounts[name] = f
	}
	// The epoch makes what stock calls "created" the same, and layers comparable.
	attrs := map[string]string{"build-arg:SOURCE_DATE_EPOCH": "1000000000"}
	maps.Copy(attrs, b.attrs)
	var log strings.Builder
	statuses, done := make(chan *client.SolveStatus), make(chan struct{})
	go func() {
		defer close(done)
		for s := range statuses {
			for _, v := range s.Vertexes {
				if v.Started != nil && v.Completed == nil || v.Error != "" {
					fmt.Fprintf(&log, "%s %s\n", v.Name, v.Error)
				}
			}
			for _, l := range s.Logs {
				log.Write(l.Data)
			}
		}
	}()
	exporter := map[string]string{"tar": "false", "compression": "uncompressed", "rewrite-timestamp": "true", "attest:provenance": "disabled=true"}
	if b.merged {
		exporter[export.AttrSquash], exporter[export.AttrStrip] = string(export.SquashRuns), "off"
	}
	resp, err := r.client.Build(ctx, client.SolveOpt{
		FrontendAttrs: attrs,
		LocalMounts:   mounts,
		Exports:       []client.ExportEntry{{Type: client.ExporterOCI, OutputStore: r.blobs, Attrs: exporter}},
	}, "", b.frontend, statuses)
	<-done
	if err != nil {
		return nil, &buildError{err, log.String()}
	}
	digest := resp.ExporterResponse[exptypes.ExporterImageDigestKey]
	images, err := oracle.Open(filepath.Join(r.dir, "blobs"), digest)
	if err != nil {
		return nil, err
	}
	out := map[string]*oracle.Image{}
	for platform, img := range images {
		if out[platform], err = r.reader.Read(img); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// buildError is a build that failed, with what it printed.
type buildError struct {
	err error
	log string
}

func (e *buildError) Error() string {
	lines := strings.Split(strings.TrimSpace(e.log), "\n")
	return e.err.Error() + "\n  " + strings.Join(lines[max(0, len(lines)-5):], "\n  ")
}
func (e *buildError) Unwrap() error { return e.err }
