package fuzzbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/tonistiigi/fsutil"

	"github.com/optbuild/optbuild/integration/oracle"
	"github.com/optbuild/optbuild/integration/oracle/cases"
)

// Outcome is what came of a build: an image, or a failure.
type Outcome struct {
	Image *oracle.Image
	Blobs []string // digests of its layers, if the builder tells, the lowest first
	// Failed is what the build failed with, as far as both builders say it in the same words: the exit code of a step, or "error".
	Failed string
	// Log is what it printed.
	Log string
	// Steps are the RUN steps, if the builder tells.
	Steps []Step
	// Copied says that a COPY or ADD was made, and not found in the builder's cache.
	Copied bool
	// Residue are paths that the image need not have, as remarks declare.
	Residue []string
}

var exitCode = regexp.MustCompile(`exit code:? (\d+)`)

// failure is what an error's text says in both builders' words.
func failure(text string) string {
	if m := exitCode.FindStringSubmatch(text); m != nil {
		return "exit code " + m[1]
	}
	return "error"
}

// Stock is a buildkitd as it comes from BuildKit. It may be used concurrently.
type Stock struct {
	dir     string
	command *exec.Cmd
	ended   chan struct{}
	client  *client.Client
	blobs   content.Store
	reader  oracle.Reader
	builds  atomic.Int64
}

// StockOptions say what stock BuildKit is and where it works.
type StockOptions struct {
	Buildkitd, Runc string
	Dir             string // of its own, short, for the socket in it
	Config          string // buildkitd.toml
}

// StartStock starts a buildkitd in a mount namespace of its own.
func StartStock(ctx context.Context, o StockOptions) (*Stock, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	s := &Stock{dir: o.Dir, ended: make(chan struct{})}
	log := &bytes.Buffer{}
	address := "unix://" + filepath.Join(o.Dir, "s")
	s.command = exec.Command(o.Buildkitd, "--root", filepath.Join(o.Dir, "root"), "--addr", address, "--config", o.Config, "--oci-worker=true",
		"--oci-worker-gc=false", "--oci-worker-binary", o.Runc, "--containerd-worker=false")
	s.command.Stdout, s.command.Stderr = log, log
	s.command.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+o.Dir, "GOGC=400")
	s.command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("start stock buildkitd: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		s.command.Wait()
		close(s.ended)
		cancel()
	}()
	var err error
	if s.blobs, err = contentlocal.NewStore(filepath.Join(o.Dir, "blobs")); err != nil {
		return nil, err
	}
	// The connection outlives this function.
	if s.client, err = client.New(context.Background(), address, client.WithContextDialer(s.dial)); err != nil {
		return nil, err
	}
	if _, err := s.client.ListWorkers(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("start stock buildkitd: %w\n%s", err, log)
	}
	return s, nil
}

// dial connects to the daemon as soon as it listens.
func (s *Stock) dial(ctx context.Context, address string) (net.Conn, error) {
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-s.ended:
			return nil, errors.New("stock buildkitd ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// only reads the image of a build for one platform.
func only(r *oracle.Reader, images map[string]v1.Image) (*oracle.Image, error) {
	if len(images) != 1 {
		return nil, fmt.Errorf("the build made %d images, want 1", len(images))
	}
	for _, img := range images {
		return r.Read(img)
	}
	return nil, nil
}

// Close ends it.
func (s *Stock) Close() {
	s.client.Close()
	s.command.Process.Signal(syscall.SIGTERM)
	<-s.ended
}

// Builds is how many clean builds there were.
func (s *Stock) Builds() int64 { return s.builds.Load() }

// crowded is how many builds may leave their records until they are removed: a daemon with thousands of records is slower.
const crowded = 400

// Build builds a project's context without any cache. A build that fails is an outcome; an error means that stock BuildKit can't be asked.
func (s *Stock) Build(ctx context.Context, p *Project, dir string) (*Outcome, error) {
	n := s.builds.Add(1)
	if n%crowded == 0 {
		if err := s.client.Prune(ctx, nil); err != nil {
			return nil, fmt.Errorf("prune stock buildkitd: %w", err)
		}
	}
	files, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, err
	}
	attrs, _ := p.Case.Attrs(cases.Place{Dir: filepath.Dir(dir)}, false)
	maps.Copy(attrs, map[string]string{"no-cache": "", "build-arg:SOURCE_DATE_EPOCH": "1000000000", "build-arg:BUILDKIT_CACHE_MOUNT_NS": p.Name})
	secrets := map[string][]byte{}
	for id, value := range p.Secrets {
		secrets[id] = []byte(value)
	}
	var log strings.Builder
	statuses, done := make(chan *client.SolveStatus), make(chan struct{})
	go func() {
		defer close(done)
		for status := range statuses {
			for _, l := range status.Logs {
				log.Write(l.Data)
			}
		}
	}()
	resp, err := s.client.Solve(ctx, nil, client.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: attrs,
		LocalMounts:   map[string]fsutil.FS{"context": files, "dockerfile": files},
		// A context that stock has seen is only looked at by size and time stamp; under a key of its own it is read.
		SharedKey: fmt.Sprintf("build %d", n),
		Session:   []session.Attachable{secretsprovider.FromMap(secrets)},
		Exports: []client.ExportEntry{{Type: client.ExporterOCI, OutputStore: s.blobs, Attrs: map[string]string{
			"tar": "false", "compression": "uncompressed", "rewrite-timestamp": "true"}}},
	}, statuses)
	<-done
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case <-s.ended:
		return nil, errors.New("stock buildkitd ended")
	default:
	}
	if err != nil {
		return &Outcome{Failed: failure(err.Error()), Log: log.String() + err.Error()}, nil
	}
	images, err := oracle.Open(filepath.Join(s.dir, "blobs"), resp.ExporterResponse[exptypes.ExporterImageDigestKey])
	if err != nil {
		return nil, err
	}
	image, err := only(&s.reader, images)
	return &Outcome{Image: image, Log: log.String()}, err
}
