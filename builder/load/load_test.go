package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestMain makes the test's binary stand in for ssh: it connects its standard streams to a socket, as
// `ssh HOST docker system dial-stdio` does.
func TestMain(m *testing.M) {
	socket := os.Getenv("LOAD_TEST_SSH")
	if socket == "" {
		os.Exit(m.Run())
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		io.Copy(conn, os.Stdin)
		conn.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(os.Stdout, conn)
}

func TestSSH(t *testing.T) {
	data, _ := archive(t)
	dir := shortDir(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "ssh")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("LOAD_TEST_SSH", filepath.Join(dir, "d.sock"))
	f := &fakeDocker{}
	serve(t, f, filepath.Join(dir, "d.sock"))
	e, err := Find(t.Context(), Options{Getenv: env("DOCKER_HOST=ssh://far.example")})
	if err != nil {
		t.Fatal(err)
	}
	if err := send(t, e, data); err != nil || !bytes.Equal(f.got, data) {
		t.Errorf("the engine got %d bytes of %d, or other ones: %v", len(f.got), len(data), err)
	}
}

// archive is one of docker's, with an image named app:1.
func archive(t *testing.T) ([]byte, v1.Image) {
	t.Helper()
	image, err := random.Image(200_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("app:1")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(tag, image, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), image
}

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "load")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fakeDocker speaks as much of Docker's API as is needed.
type fakeDocker struct {
	podman bool
	status int    // of load; 0 is 200
	answer string // of load

	got    []byte
	whole  error // of reading the archive
	loaded chan struct{}
}

func (f *fakeDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.podman {
		w.Header().Set("Libpod-Api-Version", "4.3.1")
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /_ping":
		fmt.Fprint(w, "OK")
	case "POST /images/load":
		if f.status != 0 {
			http.Error(w, f.answer, f.status)
			return
		}
		f.got, f.whole = io.ReadAll(r.Body)
		fmt.Fprint(w, f.answer)
		if f.loaded != nil {
			close(f.loaded)
		}
	default:
		http.NotFound(w, r)
	}
}

func serve(t *testing.T, f *fakeDocker, path string) {
	t.Helper()
	s := &http.Server{Handler: f}
	go s.Serve(listen(t, path))
	t.Cleanup(func() { s.Close() })
}

func env(pairs ...string) func(string) string {
	m := map[string]string{}
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return func(k string) string { return m[k] }
}

func send(t *testing.T, e *Engine, data []byte) error {
	t.Helper()
	w := e.Open(t.Context())
	for len(data) > 0 { // in pieces, as it comes from the exporter
		n := min(len(data), 32<<10)
		if _, err := w.Write(data[:n]); err != nil {
			w.Close()
			return err
		}
		data = data[n:]
	}
	return w.Close()
}

func TestDocker(t *testing.T) {
	data, _ := archive(t)
	for _, c := range []struct {
		name string
		fake fakeDocker
		data []byte
		want string // the error; S stands for the socket
	}{
		{"good", fakeDocker{answer: `{"stream":"Loaded image: app:1\n"}`}, data, ""},
		{"silent", fakeDocker{}, data, ""},
		{
			"error in a good answer",
			fakeDocker{answer: `{"status":"Loading"}` + "\n" + `{"errorDetail":{"message":"no space left on device"},"error":"no space"}`},
			data, "load into Docker at unix://S: no space left on device",
		},
		{"old error", fakeDocker{answer: `{"error":"bad layer"}`}, data, "load into Docker at unix://S: bad layer"},
		{"refused", fakeDocker{status: 500, answer: `{"message":"not today"}`}, data, "load into Docker at unix://S: not today"},
		{"podman", fakeDocker{podman: true, status: 500, answer: `{"cause":"x","message":"no","response":500}`}, data, "load into Podman at unix://S: no"},
		{"no JSON", fakeDocker{status: 502, answer: "<html>"}, data, "load into Docker at unix://S: 502 Bad Gateway: <html>"},
		{"cut short", fakeDocker{}, data[:len(data)-700], "load into Docker at unix://S: unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := filepath.Join(shortDir(t), "d.sock")
			f := c.fake
			serve(t, &f, socket)
			e, err := Find(t.Context(), Options{Getenv: env("DOCKER_HOST=unix://" + socket)})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := send(t, e, c.data); err != nil {
				got = strings.ReplaceAll(err.Error(), socket, "S")
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if c.want == "" && !bytes.Equal(f.got, data) {
				t.Errorf("the engine got %d bytes of %d, or other ones", len(f.got), len(data))
			}
		})
	}
}

// TestCancelled: what an engine was sent of a build that is cancelled does not look whole to it.
func TestCancelled(t *testing.T) {
	data, _ := archive(t)
	socket := filepath.Join(shortDir(t), "d.sock")
	f := &fakeDocker{loaded: make(chan struct{})}
	serve(t, f, socket)
	e, err := Find(t.Context(), Options{Getenv: env("DOCKER_HOST=unix://" + socket)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := e.Open(ctx)
	if _, err := w.Write(data); err != nil { // the pipe has no memory: the engine is reading
		t.Fatal(err)
	}
	cancel()
	if err := w.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-f.loaded
	if f.whole == nil {
		t.Error("the engine was sent the archive's end")
	}
}

// TestFindOrder takes the sockets away one by one.
func TestFindOrder(t *testing.T) {
	root := shortDir(t)
	run := filepath.Join(root, "user")
	all := []struct{ path, want string }{
		{"var/run/docker.sock", "Docker at unix://ROOT/var/run/docker.sock"},
		{"user/docker.sock", "Docker at unix://ROOT/user/docker.sock"},
		{"user/podman/podman.sock", "Podman at unix://ROOT/user/podman/podman.sock"},
		{"run/podman/podman.sock", "Podman at unix://ROOT/run/podman/podman.sock"},
		{"run/containerd/containerd.sock", "containerd at unix://ROOT/run/containerd/containerd.sock, namespace k8s.io"},
	}
	for _, s := range all[:4] {
		serve(t, &fakeDocker{}, filepath.Join(root, s.path))
	}
	l := listen(t, filepath.Join(root, all[4].path))
	defer l.Close()
	o := Options{Root: root, Getenv: env("XDG_RUNTIME_DIR="+run, "CONTAINERD_NAMESPACE=k8s.io"), CurrentContext: "default"}
	for _, s := range all {
		e, err := Find(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(e.String(), root, "ROOT"); got != s.want {
			t.Errorf("found %s, want %s", got, s.want)
		}
		if err := os.Remove(filepath.Join(root, s.path)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Find(t.Context(), o)
	const none = "(no such file or directory)"
	want := "no Docker, Podman or containerd engine is running here; looked for ROOT/var/run/docker.sock " + none +
		", ROOT/user/docker.sock " + none + ", ROOT/user/podman/podman.sock " + none + ", ROOT/run/podman/podman.sock " + none +
		", ROOT/run/containerd/containerd.sock " + none
	if !errors.Is(err, ErrNoEngine) || strings.ReplaceAll(err.Error(), root, "ROOT") != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestChosen: what the user has named is taken or fails; nothing else is tried.
func TestChosen(t *testing.T) {
	root, config := shortDir(t), t.TempDir()
	serve(t, &fakeDocker{}, filepath.Join(root, "var/run/docker.sock"))
	other := filepath.Join(root, "other.sock")
	serve(t, &fakeDocker{}, other)
	writeContext(t, config, "good", `{"Name":"good","Endpoints":{"docker":{"Host":"unix://`+other+`"}}}`)
	writeContext(t, config, "none", `{"Name":"none","Endpoints":{"kubernetes":{"Host":"x"}}}`)
	for _, c := range []struct {
		name    string
		getenv  func(string) string
		current string
		want    string // the engine or the error
	}{
		{"context", env(), "good", "Docker at unix://ROOT/other.sock"},
		{"variable before file", env("DOCKER_CONTEXT=good"), "missing", "Docker at unix://ROOT/other.sock"},
		{"default context", env("DOCKER_CONTEXT=default"), "good", "Docker at unix://ROOT/var/run/docker.sock"},
		{"host before context", env("DOCKER_HOST=unix://"+other, "DOCKER_CONTEXT=missing"), "", "Docker at unix://ROOT/other.sock"},
		{"no context", env(), "missing", "read docker's context missing (currentContext in docker's config.json): there is no such context"},
		{"context without docker", env("DOCKER_CONTEXT=none"), "", "read docker's context none (DOCKER_CONTEXT): it names no Docker engine"},
		{
			"nobody there", env("DOCKER_HOST=unix://" + root + "/x.sock"), "",
			"connect to Docker at unix://ROOT/x.sock (DOCKER_HOST): dial unix ROOT/x.sock: connect: no such file or directory",
		},
		{
			"no address", env("DOCKER_HOST=npipe:////./pipe/docker"), "",
			`connect to Docker at npipe:////./pipe/docker (DOCKER_HOST): address "npipe:////./pipe/docker" is not unix://, tcp://, http://, https:// or ssh://`,
		},
	} {
		e, err := Find(t.Context(), Options{Root: root, Getenv: c.getenv, DockerConfig: config, CurrentContext: c.current})
		got := fmt.Sprint(e)
		if err != nil {
			got = err.Error()
		}
		if got = strings.ReplaceAll(got, root, "ROOT"); got != c.want {
			t.Errorf("%s: got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func writeContext(t *testing.T, config, name, meta string) (id string) {
	t.Helper()
	id = fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	dir := filepath.Join(config, "contexts", "meta", id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(meta), 0o600); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTLS(t *testing.T) {
	f := &fakeDocker{}
	s := httptest.NewUnstartedServer(f)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes that fail
	s.StartTLS()
	defer s.Close()
	host := "tcp://" + s.Listener.Addr().String()
	certs, config := t.TempDir(), t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(certs, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	id := writeContext(t, config, "remote", `{"Endpoints":{"docker":{"Host":"`+host+`"}}}`)
	files := filepath.Join(config, "contexts", "tls", id, "docker")
	if err := os.MkdirAll(filepath.Dir(files), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(certs, files); err != nil {
		t.Fatal(err)
	}
	data, _ := archive(t)
	for _, c := range []struct {
		name string
		o    Options
		good bool
	}{
		{"verified", Options{Getenv: env("DOCKER_HOST="+host, "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH="+certs)}, true},
		{"context", Options{Getenv: env(), DockerConfig: config, CurrentContext: "remote"}, true},
		{"unknown authority", Options{Getenv: env("DOCKER_HOST="+host, "DOCKER_TLS_VERIFY=1"), DockerConfig: t.TempDir()}, false},
		{"not verified", Options{Getenv: env("DOCKER_HOST="+host, "DOCKER_TLS=1"), DockerConfig: t.TempDir()}, true},
		{"no TLS", Options{Getenv: env("DOCKER_HOST=" + host)}, false},
	} {
		f.got = nil
		e, err := Find(t.Context(), c.o)
		if err == nil {
			err = send(t, e, data)
		}
		if (err == nil) != c.good || c.good && !bytes.Equal(f.got, data) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}
