package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/optbuild/optbuild/builder/engine/actionscache/actionstest"
	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/wan"
)

// server is one script's network: a registry, and what else builds fetch from or report to.
//
//	/v2/            the registry
//	/files/         the script's directory
//	/kept/          the same, of which clients may keep what they get
//	/git/           the git repositories in it
//	/arrive/NAME    a step says that it has come to this point
//	/hold/NAME      the same, and waits there until the script releases it
//	/actions/       the cache service of GitHub Actions
//	/azure/, /s3/   blob storages
type server struct {
	Addr string

	http    *http.Server
	link    *wan.Link  // all connections go over it
	far     *wan.Proxy // the registry behind it
	actions *actionstest.Service
	// registry is what answers: at first one that shows each blob in all repositories.
	registry atomic.Value // of type http.HandlerFunc
	mu       sync.Mutex
	points   map[string]*point
	// user and password, if set, are asked for by the registry.
	user, password string
	refused        []refusal
	held           []hold
}

// point is a place in a build that a script waits for.
type point struct {
	arrived, released         chan struct{}
	arrivedOnce, releasedOnce sync.Once
}

// refusal makes the registry answer requests that match with an error.
type refusal struct {
	request *regexp.Regexp // matched against "METHOD /path"
	status  int
	message string
}

// hold makes the registry wait with its answer to requests that match until the script releases a point.
type hold struct {
	request *regexp.Regexp
	point   string
}

func newServer(g *ground, dir string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{Addr: l.Addr().String(), link: wan.NewLink(wan.Profile{}), points: map[string]*point{}}
	mux := http.NewServeMux()
	s.registry.Store(registry.New(
		registry.WithBlobHandler(&blobs{dir: filepath.Join(g.Dir, "bases"), BlobHandler: registry.NewInMemoryBlobHandler()}),
		registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))).(http.HandlerFunc))
	s.far = wan.NewProxy(s.guard(withRanges(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.registry.Load().(http.HandlerFunc)(w, r) }))))
	mux.Handle("/v2/", s.far)
	mux.Handle("/token", s.far)
	mux.Handle("/files/", http.StripPrefix("/files/", http.FileServer(http.Dir(dir))))
	mux.Handle("/kept/", http.StripPrefix("/kept/", keptForEver(http.FileServer(http.Dir(dir)))))
	mux.Handle("/git/", gitBackend(dir))
	mux.HandleFunc("/arrive/{name}", func(_ http.ResponseWriter, r *http.Request) { s.point(r.PathValue("name")).arrive() })
	mux.HandleFunc("/hold/{name}", func(_ http.ResponseWriter, r *http.Request) {
		s.point(r.PathValue("name")).wait(r)
	})
	var actions http.Handler
	s.actions, actions = newActions(s.Addr)
	mux.Handle("/actions/", actions)
	mux.Handle("/azure/", http.StripPrefix("/azure", azureBlobs()))
	mux.Handle("/s3/", http.StripPrefix("/s3", newS3Bucket()))
	s.http = &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	go s.http.Serve(s.link.Listen(l))
	for _, b := range g.bases() {
		if err := s.offer(g, b); err != nil {
			s.Close()
			return nil, err
		}
	}
	s.link.Reset()
	s.far.Reset()
	return s, nil
}

func (s *server) offer(g *ground, base string) error {
	if err := (bases.Base{Name: base, Dir: filepath.Join(g.Dir, "bases", base)}).Push(context.Background(), s.Addr); err != nil {
		return fmt.Errorf("offer the base image %s: %w", base, err)
	}
	return nil
}

func (s *server) Close() { s.http.Close() }

func (s *server) point(name string) *point {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.points[name]
	if p == nil {
		p = &point{arrived: make(chan struct{}), released: make(chan struct{})}
		s.points[name] = p
	}
	return p
}

func (p *point) arrive() { p.arrivedOnce.Do(func() { close(p.arrived) }) }

// wait arrives, and returns when the point is released or nobody waits for the answer any more.
func (p *point) wait(r *http.Request) {
	p.arrive()
	select {
	case <-p.released:
	case <-r.Context().Done():
	}
}

func (p *point) release() { p.releasedOnce.Do(func() { close(p.released) }) }

// guard asks for the password, refuses what the script wants to be refused, and holds what it wants to be held.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		user, password, refused, held := s.user, s.password, s.refused, s.held
		s.mu.Unlock()
		if user != "" {
			if u, p, _ := r.BasicAuth(); u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				regError(w, http.StatusUnauthorized, "UNAUTHORIZED", "the test registry does not know you")
				return
			}
		}
		for _, f := range refused {
			if f.request.MatchString(r.Method + " " + r.URL.Path) {
				regError(w, f.status, "DENIED", f.message)
				return
			}
		}
		for _, h := range held {
			if h.request.MatchString(r.Method + " " + r.URL.Path) {
				s.point(h.point).wait(r)
			}
		}
		next.ServeHTTP(w, r)
	})
}

func regError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// blobs is a registry's store whose base layers are files that all registries share.
type blobs struct {
	dir string // of the base images
	registry.BlobHandler
}

func (b *blobs) base(h v1.Hash) string {
	found, _ := filepath.Glob(filepath.Join(b.dir, "*", "blobs", h.Algorithm, h.Hex))
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

func (b *blobs) Get(ctx context.Context, repo string, h v1.Hash) (io.ReadCloser, error) {
	if path := b.base(h); path != "" {
		return os.Open(path)
	}
	return b.BlobHandler.Get(ctx, repo, h)
}

func (b *blobs) Stat(ctx context.Context, repo string, h v1.Hash) (int64, error) {
	if path := b.base(h); path != "" {
		fi, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		return fi.Size(), nil
	}
	return b.BlobHandler.(registry.BlobStatHandler).Stat(ctx, repo, h)
}

func (b *blobs) Put(ctx context.Context, repo string, h v1.Hash, r io.ReadCloser) error {
	return b.BlobHandler.(registry.BlobPutHandler).Put(ctx, repo, h, r)
}

// keptForEver tells clients that what they get never changes, as the registries of packages do of their files.
func keptForEver(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=31536000, immutable, public")
		h.ServeHTTP(w, r)
	})
}

// gitBackend serves the git repositories below dir over git's smart protocol.
func gitBackend(dir string) http.Handler {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return http.NotFoundHandler()
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Root: "/git",
		Env:  []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1"},
	}
}

var errNoArrival = errors.New("the build ended without coming there")
