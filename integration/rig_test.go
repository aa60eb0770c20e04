package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/tonistiigi/fsutil"

	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/fakes"
	"github.com/optbuild/optbuild/integration/oracle"
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
	dir, err := os.MkdirTemp(g.Dir, "rig-")
	if err != nil {
		t.Fatal(err)
	}
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
		"--addr", "unix://"+address, "--oci-worker-gc=false")
	serve.Stdout, serve.Stderr = log, log
	serve.Env = append(os.Environ(), "HOME="+dir)
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { serve.Wait(); close(ended) }()
	t.Cleanup(func() {
		serve.Process.Signal(os.Interrupt)
		<-ended
		if t.Failed() {
			t.Logf("the engine's log:\n%s", log)
		}
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

// build is one build on a rig.
type build struct {
	dir        string // of the context
	dockerfile string // directory of the Dockerfile, the context's if empty
	attrs      map[string]string
	contexts   map[string]string // named contexts that are directories
	frontend   gateway.BuildFunc
}

// errSkipped is returned by a frontend that finds that there is nothing to build.
var errSkipped = errors.New("skipped")

// build returns the images that a build makes, by platform.
func (r *rig) build(ctx context.Context, b build) (map[string]*oracle.Image, error) {
	mounts := map[string]fsutil.FS{}
	for name, dir := range b.contexts {
		f, err := fsutil.NewFS(dir)
		if err != nil {
			return nil, err
		}
		mounts[name] = f
	}
	for name, dir := range map[string]string{"context": b.dir, "dockerfile": b.dockerfile} {
		if dir == "" {
			dir = b.dir
		}
		f, err := fsutil.NewFS(dir)
		if err != nil {
			return nil, err
		}
		mounts[name] = f
	}
	attrs := map[string]string{"build-arg:SOURCE_DATE_EPOCH": "1000000000"}
	for k, v := range b.attrs {
		attrs[k] = v
	}
	var mu sync.Mutex
	var log strings.Builder
	statuses, done := make(chan *client.SolveStatus), make(chan struct{})
	go func() {
		defer close(done)
		for s := range statuses {
			mu.Lock()
			for _, v := range s.Vertexes {
				if v.Started != nil && v.Completed == nil || v.Error != "" {
					fmt.Fprintf(&log, "%s %s\n", v.Name, v.Error)
				}
			}
			for _, l := range s.Logs {
				log.Write(l.Data)
			}
			mu.Unlock()
		}
	}()
	resp, err := r.client.Build(ctx, client.SolveOpt{
		FrontendAttrs: attrs,
		LocalMounts:   mounts,
		Exports: []client.ExportEntry{{Type: client.ExporterOCI, OutputStore: r.blobs, Attrs: map[string]string{
			"tar": "false", "compression": "uncompressed", "rewrite-timestamp": "true", "attest:provenance": "disabled=true"}}},
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

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.log }
func (e *buildError) Unwrap() error { return e.err }
