package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// guarded is a registry that wants user "me" with password "secret", directly or in exchange for a token.
type guarded struct {
	*httptest.Server
	tokens  bool
	refresh string // given with each token, as password for the next

	mu  sync.Mutex
	log []string // of requests for tokens: method, who asks
}

func newGuarded(t *testing.T, tokens bool) *guarded {
	t.Helper()
	g := &guarded{tokens: tokens}
	images := newRegistry()
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/token":
			g.token(w, r)
		case tokens && r.Header.Get("Authorization") != "Bearer t0ken":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.URL+`/token",service="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
		case !tokens && (user != "me" || password != "secret"):
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
		default:
			images.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *guarded) token(w http.ResponseWriter, r *http.Request) {
	who, password, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		who, password = r.FormValue("username"), r.FormValue("password")
		if token := r.FormValue("refresh_token"); token != "" {
			who, password = "refresh", token
		}
	}
	g.mu.Lock()
	g.log = append(g.log, r.Method+" "+who)
	g.mu.Unlock()
	if !(who == "me" && password == "secret" || g.refresh != "" && password == g.refresh) {
		http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token": "t0ken", "access_token": "t0ken", "refresh_token": g.refresh, "expires_in": 300})
}

func (g *guarded) tokenLog() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.log, "\n")
}

func dockerAuth(host, user, password string) string {
	return fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

// resolve asks for an image that does not exist: "not found" means that the registry let us in.
func resolve(t *testing.T, hosts docker.RegistryHosts, ref string) string {
	t.Helper()
	_, desc, err := docker.NewResolver(docker.ResolverOptions{Hosts: hosts}).Resolve(t.Context(), ref)
	switch {
	case err == nil:
		return desc.Digest.String()
	case strings.HasSuffix(err.Error(), "not found"):
		return "not found"
	}
	return err.Error()
}

func TestClientHosts(t *testing.T) {
	for _, tokens := range []bool{false, true} {
		g := newGuarded(t, tokens)
		host := hostOf(g.Server)
		for _, tt := range []struct{ config, want string }{
			{dockerAuth(host, "me", "secret"), "not found"},
			{dockerAuth("http://"+host, "me", "secret"), "not found"}, // as old versions of docker wrote it
			{dockerAuth(host, "me", "wrong"), "unauthorized"},
			{`{}`, "unauthorized"},
		} {
			c := testConfig(t, map[string]string{"docker/config.json": tt.config})
			got := resolve(t, ClientHosts(c), host+"/app:1")
			if message, _ := Explain(errors.New("pull " + host + "/app:1: " + got)); strings.Contains(message, "unauthorized") {
				got = "unauthorized"
			}
			if got != tt.want {
				t.Errorf("tokens %v, config %s: %s, want %s", tokens, tt.config, got, tt.want)
			}
		}
	}
}

// engineSide serves what Auth returns as a build's session does, and returns the engine's side.
func engineSide(t *testing.T, c Config) auth.AuthClient {
	t.Helper()
	old := dockerconfig.Dir() // BuildKit's provider keeps its seeds there
	dockerconfig.SetDir(c.DockerDir)
	t.Cleanup(func() { dockerconfig.SetDir(old) })
	f, err := c.LoadDocker()
	if err != nil {
		t.Fatal(err)
	}
	a, err := Auth(c, f)
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	a.Register(s)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	cc, err := grpc.NewClient("passthrough:///", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return auth.NewAuthClient(cc)
}

func TestAuth(t *testing.T) {
	g := newGuarded(t, true)
	host := hostOf(g.Server)
	request := &auth.FetchTokenRequest{Host: host, Realm: g.URL + "/token", Service: "test", Scopes: []string{"repository:app:pull"}}

	client := engineSide(t, testConfig(t, map[string]string{"docker/config.json": dockerAuth(host, "me", "secret")}))
	token, err := client.FetchToken(t.Context(), request)
	if err != nil || token.Token != "t0ken" || token.ExpiresIn != 300 {
		t.Errorf("token %v, error %v", token, err)
	}
	if got := g.tokenLog(); got != "POST me" {
		t.Errorf("requests for tokens:\n%s", got)
	}
	creds, err := client.Credentials(t.Context(), &auth.CredentialsRequest{Host: host})
	if err != nil || creds.Username != "me" || creds.Secret != "secret" {
		t.Errorf("credentials %v, error %v", creds, err)
	}

	client = engineSide(t, testConfig(t, map[string]string{"docker/config.json": dockerAuth(host, "me", "wrong")}))
	_, err = client.FetchToken(t.Context(), request)
	if want := "fetch token for " + host + ": unknown: incorrect username or password"; status.Convert(err).Message() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// A configuration directory that can't be written must not stop builds: the engine then fetches its own tokens.
func TestAuthWithoutHome(t *testing.T) {
	c := Config{DockerDir: "/sys/docker"} // where root can't make directories either
	client := engineSide(t, c)
	_, err := client.GetTokenAuthority(t.Context(), &auth.GetTokenAuthorityRequest{Host: "r.example", Salt: make([]byte, 32)})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("error %v, want code %v", err, codes.Unavailable)
	}
}

func TestMirrorFallsBack(t *testing.T) {
	upstream := httptest.NewServer(newRegistry())
	defer upstream.Close()
	asked := 0
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer mirror.Close()
	ref, err := name.ParseReference(hostOf(upstream) + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(1, 1)
	if err == nil {
		err = remote.Write(ref, image)
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range []map[string]string{
		{"user/buildkit/buildkitd.toml": fmt.Sprintf("[registry.%q]\n  mirrors = [%q]\n", hostOf(upstream), hostOf(mirror))},
		{"etc/containerd/certs.d/" + hostOf(upstream) + "/hosts.toml": fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", upstream.URL, mirror.URL)},
	} {
		asked = 0
		if got := resolve(t, Hosts(testConfig(t, files)), ref.Name()); got != want.String() {
			t.Errorf("%v: %s, want %s", files, got, want)
		}
		if asked != 1 {
			t.Errorf("%v: the mirror was asked %d times, want once", files, asked)
		}
	}
}

func TestLogin(t *testing.T) {
	for _, tt := range []struct {
		name     string
		tokens   bool
		refresh  string
		password string
		want     string // the error, or the file that is written
	}{
		{name: "basic", password: "secret", want: `{"auths":{"$HOST":{"auth":"bWU6c2VjcmV0"}}}`},
		{name: "basic, wrong", password: "x", want: "log in to $HOST: the registry does not accept this user name and password: unauthorized: who are you"},
		{name: "token", tokens: true, password: "secret", want: `{"auths":{"$HOST":{"auth":"bWU6c2VjcmV0"}}}`},
		{name: "token, wrong", tokens: true, password: "x", want: "log in to $HOST: the registry does not accept this user name and password: unknown: incorrect username or password"},
		{name: "identity token", tokens: true, refresh: "r3fresh", password: "secret", want: `{"auths":{"$HOST":{"auth":"bWU6","identitytoken":"r3fresh"}}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGuarded(t, tt.tokens)
			g.refresh = tt.refresh
			host := hostOf(g.Server)
			c := testConfig(t, map[string]string{"docker/other": ""})
			want := strings.ReplaceAll(tt.want, "$HOST", host)
			path := filepath.Join(c.DockerDir, "config.json")
			asked, err := Login(t.Context(), c, "http://"+host+"/v2/", "me", tt.password)
			if err != nil {
				if err.Error() != want || !errors.Is(err, ErrCredentials) {
					t.Errorf("error %v\nwant  %s", err, want)
				}
				if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("something was stored all the same")
				}
				return
			}
			b, err := os.ReadFile(path)
			if got := strings.Join(strings.Fields(string(b)), ""); err != nil || got != want || !asked {
				t.Errorf("asked %v, error %v, stored\n%s\nwant\n%s", asked, err, got, want)
			}
			// What was stored must be of use to a pull.
			if got := resolve(t, ClientHosts(c), host+"/app:1"); got != "not found" {
				t.Errorf("pull with what was stored: %s", got)
			}
			if user, err := LoginStored(t.Context(), c, host); user == "" || err != nil {
				t.Errorf("stored credentials: user %q, error %v", user, err)
			}
			if found, err := Logout(c, host); !found || err != nil {
				t.Errorf("logout: found %v, error %v", found, err)
			}
			if found, err := Logout(c, host); found || err != nil {
				t.Errorf("second logout: found %v, error %v", found, err)
			}
		})
	}
}

func TestHostAndKey(t *testing.T) {
	for _, tt := range [][3]string{
		{"", "docker.io", "https://index.docker.io/v1/"},
		{"https://index.docker.io/v1/", "docker.io", "https://index.docker.io/v1/"},
		{"registry-1.docker.io", "docker.io", "https://index.docker.io/v1/"},
		{"https://r.example:5000/v2/", "r.example:5000", "r.example:5000"},
		{"r.example", "r.example", "r.example"},
	} {
		if host, key := Host(tt[0]), Key(tt[0]); host != tt[1] || key != tt[2] {
			t.Errorf("%q: host %q, key %q; want %q, %q", tt[0], host, key, tt[1], tt[2])
		}
	}
}

func TestLocal(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", "/home/me/.config")
	c, err := Local("http://r.example:5000", "r.example:5000", "10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Insecure, " ", c.UserDir, " ", c.SystemDir); got != "[r.example:5000 10.0.0.0/8] /home/me/.config /etc" {
		t.Error(got)
	}
	if got := fmt.Sprint(c.Lacks(Config{Insecure: []string{"x", "10.0.0.0/8"}})); got != "[x]" {
		t.Errorf("lacks %s, want [x]", got)
	}
	for _, bad := range []string{"", "r.example?x", "a b"} {
		if _, err := Local(bad); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}
