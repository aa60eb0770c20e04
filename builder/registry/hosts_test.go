package registry

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/sirupsen/logrus"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// testConfig is a configuration whose files are all below a temporary directory.
func testConfig(t *testing.T, files map[string]string) Config {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "$DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Config{DockerDir: filepath.Join(dir, "docker"), UserDir: filepath.Join(dir, "user"), SystemDir: filepath.Join(dir, "etc")}
}

// describe prints hosts, one a line, with what may be done there.
func describe(hosts []docker.RegistryHost) string {
	var b strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&b, "%s://%s%s", h.Scheme, h.Host, h.Path)
		for _, c := range []struct {
			name string
			has  docker.HostCapabilities
		}{{"pull", docker.HostCapabilityPull}, {"resolve", docker.HostCapabilityResolve}, {"push", docker.HostCapabilityPush}} {
			if h.Capabilities.Has(c.has) {
				b.WriteString(" " + c.name)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestWhichHosts(t *testing.T) {
	for _, tt := range []struct {
		name     string
		files    map[string]string
		insecure []string
		host     string
		want     string
	}{
		{name: "nothing configured", host: "r.example", want: "https://r.example/v2 pull resolve push\n"},
		{name: "Docker Hub", host: "docker.io", want: "https://registry-1.docker.io/v2 pull resolve push\n"},
		{
			name: "daemon.json's mirrors are Docker Hub's", host: "docker.io",
			files: map[string]string{"etc/docker/daemon.json": `{"registry-mirrors": ["http://mirror.example:5000", "https://m2.example"]}`},
			want: "http://mirror.example:5000/v2 pull resolve\n" +
				"https://m2.example/v2 pull resolve\n" +
				"https://registry-1.docker.io/v2 pull resolve push\n",
		},
		{
			name: "daemon.json's mirrors are nobody else's", host: "r.example",
			files: map[string]string{"etc/docker/daemon.json": `{"registry-mirrors": ["http://mirror.example:5000"]}`},
			want:  "https://r.example/v2 pull resolve push\n",
		},
		{
			name: "buildkitd.toml before hosts.toml and daemon.json", host: "docker.io",
			files: map[string]string{
				"etc/docker/daemon.json":                      `{"registry-mirrors": ["https://docker.example"]}`,
				"etc/containerd/certs.d/docker.io/hosts.toml": "[host.\"https://containerd.example\"]\n  capabilities = [\"pull\"]\n",
				"user/buildkit/buildkitd.toml":                "[registry.\"docker.io\"]\n  mirrors = [\"buildkit.example/hub\"]\n[registry.\"buildkit.example\"]\n  http = true\n",
			},
			want: "http://buildkit.example/v2/hub pull resolve\n" + "https://registry-1.docker.io/v2 pull resolve push\n",
		},
		{
			name: "the user's buildkitd.toml before the system's", host: "r.example",
			files: map[string]string{
				"user/buildkit/buildkitd.toml": "[registry.\"r.example\"]\n  http = true\n",
				"etc/buildkit/buildkitd.toml":  "[registry.\"r.example\"]\n  mirrors = [\"m.example\"]\n",
			},
			want: "http://r.example/v2 pull resolve push\n",
		},
		{
			name: "hosts.toml before daemon.json", host: "docker.io",
			files: map[string]string{
				"etc/docker/daemon.json":                      `{"registry-mirrors": ["https://docker.example"]}`,
				"etc/containerd/certs.d/docker.io/hosts.toml": "[host.\"http://containerd.example:80\"]\n  capabilities = [\"pull\"]\n",
			},
			want: "http://containerd.example:80/v2 pull\n" + "https://registry-1.docker.io/v2 pull resolve push\n",
		},
		{
			name: "hosts.toml for every registry, and with a port in containerd's spelling", host: "r.example:5000",
			files: map[string]string{
				"user/containerd/certs.d/_default/hosts.toml":        "[host.\"https://all.example\"]\n",
				"user/containerd/certs.d/r.example_5000_/hosts.toml": "server = \"https://other.example\"\n",
			},
			want: "https://other.example/v2 pull resolve push\n",
		},
		{name: "http only where it is asked for", host: "r.example", insecure: []string{"r.example:5000"}, want: "https://r.example/v2 pull resolve push\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testConfig(t, tt.files)
			c.Insecure = tt.insecure
			hosts, err := Hosts(c)(tt.host)
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(hosts); got != tt.want {
				t.Errorf("hosts of %s:\n%swant:\n%s", tt.host, got, tt.want)
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	for _, tt := range []struct{ name, file, text, want string }{
		{"daemon.json", "etc/docker/daemon.json", "{\n  \"registry-mirrors\": [,]\n}", "$DIR/etc/docker/daemon.json:2: invalid character ',' looking for beginning of value"},
		{"daemon.json's types", "etc/docker/daemon.json", "{\n\n  \"registry-mirrors\": true\n}", "$DIR/etc/docker/daemon.json:3: json: cannot unmarshal bool into Go struct field daemonJSON.registry-mirrors of type []string"},
		{"buildkitd.toml", "user/buildkit/buildkitd.toml", "debug = true\n[registry.\"x\"]\n  http = maybe\n", "$DIR/user/buildkit/buildkitd.toml:3: "},
		{"hosts.toml", "etc/containerd/certs.d/r.example/hosts.toml", "server = \n", "$DIR/etc/containerd/certs.d/r.example/hosts.toml:1: "},
		{"hosts.toml's values", "etc/containerd/certs.d/r.example/hosts.toml", "capabilities = [\"fly\"]\n", "$DIR/etc/containerd/certs.d/r.example/hosts.toml: unknown capability fly"},
		{"an authority", "docker/certs.d/r.example/ca.crt", "hello", "$DIR/docker/certs.d/r.example/ca.crt: no certificate in PEM format in it"},
		{"a client certificate without its key", "docker/certs.d/r.example/me.cert", "hello", "$DIR/docker/certs.d/r.example/me.key: no such file or directory"},
		{"an authority in buildkitd.toml", "etc/buildkit/buildkitd.toml", "[registry.\"r.example\"]\n  ca = [\"$DIR/none.pem\"]\n", "$DIR/none.pem: no such file or directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testConfig(t, map[string]string{tt.file: tt.text})
			hosts, err := Hosts(c)("r.example")
			if err == nil {
				t.Fatalf("no error, but hosts:\n%s", describe(hosts))
			}
			want := strings.ReplaceAll(tt.want, "$DIR", filepath.Dir(c.DockerDir))
			if got := err.Error(); got != want && !(strings.HasSuffix(want, ": ") && strings.HasPrefix(got, want)) {
				t.Errorf("error:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func newRegistry() http.Handler { return ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))) }

func certOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func hostOf(s *httptest.Server) string { _, host, _ := strings.Cut(s.URL, "://"); return host }

// ping asks the last of a registry's hosts for its API's root and returns the status and the protocol.
func ping(t *testing.T, hosts docker.RegistryHosts, name string) string {
	t.Helper()
	h, err := hosts(name)
	if err != nil {
		return err.Error()
	}
	last := h[len(h)-1]
	resp, err := last.Client.Get(last.Scheme + "://" + last.Host + last.Path + "/")
	if err != nil {
		switch text := err.Error(); {
		case strings.Contains(text, "x509"):
			return "x509"
		default:
			return text
		}
	}
	resp.Body.Close()
	protocol := "http"
	if resp.TLS != nil {
		protocol = "https"
	}
	return fmt.Sprint(resp.StatusCode, " ", protocol)
}

func TestTrust(t *testing.T) {
	secure := httptest.NewTLSServer(newRegistry())
	defer secure.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	plain := httptest.NewServer(newRegistry())
	defer plain.Close()
	host := hostOf(secure)
	for _, tt := range []struct {
		name     string
		files    map[string]string
		insecure []string
		host     string
		want     string
	}{
		{name: "loopback, https", host: host, want: "200 https"},
		{name: "loopback, http", host: hostOf(plain), want: "200 http"},
		{name: "loopback with an authority of its own is checked", host: host, files: map[string]string{"docker/certs.d/" + host + "/ca.crt": certOf(secure)}, want: "200 https"},
		{name: "loopback with another authority", host: host, files: map[string]string{"docker/certs.d/" + host + "/ca.crt": otherCert}, want: "x509"},
		{name: "system's authority", host: host, files: map[string]string{"etc/docker/certs.d/" + host + "/ca.crt": certOf(secure)}, want: "200 https"},
		{name: "containerd's authority", host: host, files: map[string]string{"etc/containerd/certs.d/" + strings.Replace(host, ":", "_", 1) + "_/ca.crt": certOf(secure)}, want: "200 https"},
		{name: "hosts.toml's authority", host: "r.example", files: map[string]string{
			"etc/ca.pem": certOf(secure),
			"etc/containerd/certs.d/r.example/hosts.toml": "server = \"https://" + host + "\"\nca = \"$DIR/etc/ca.pem\"\n"}, want: "200 https"},
		{name: "hosts.toml without one", host: "r.example", files: map[string]string{
			"etc/containerd/certs.d/r.example/hosts.toml": "server = \"https://" + host + "\"\n"}, want: "x509"},
		{name: "hosts.toml with docker's authority", host: "r.example", files: map[string]string{
			"docker/certs.d/r.example/ca.crt":             certOf(secure),
			"etc/containerd/certs.d/r.example/hosts.toml": "server = \"https://" + host + "\"\n"}, want: "200 https"},
		{name: "hosts.toml and the flag for its server", host: "r.example", insecure: []string{host}, files: map[string]string{
			"etc/containerd/certs.d/r.example/hosts.toml": "server = \"https://" + host + "\"\n"}, want: "200 https"},
		{name: "buildkitd.toml's authority", host: host, files: map[string]string{
			"etc/ca.pem":                  certOf(secure),
			"etc/buildkit/buildkitd.toml": "[registry.\"" + host + "\"]\n  ca = [\"$DIR/etc/ca.pem\"]\n"}, want: "200 https"},
		{name: "the flag beats a wrong authority", host: host, insecure: []string{host}, files: map[string]string{"docker/certs.d/" + host + "/ca.crt": otherCert}, want: "200 https"},
		{name: "a block of addresses", host: host, insecure: []string{"127.0.0.0/8"}, files: map[string]string{"docker/certs.d/" + host + "/ca.crt": otherCert}, want: "200 https"},
		{name: "daemon.json's insecure registries", host: host, files: map[string]string{
			"etc/docker/daemon.json":             `{"insecure-registries": ["` + host + `"]}`,
			"docker/certs.d/" + host + "/ca.crt": otherCert}, want: "200 https"},
		{name: "the flag allows http", host: hostOf(plain), insecure: []string{hostOf(plain)}, files: map[string]string{"docker/certs.d/" + hostOf(plain) + "/ca.crt": otherCert}, want: "200 http"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testConfig(t, tt.files)
			c.Insecure = tt.insecure
			if got := ping(t, Hosts(c), tt.host); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// otherCert is an authority that signed nothing.
const otherCert = `-----BEGIN CERTIFICATE-----
MIIBWzCCAQGgAwIBAgIBATAKBggqhkjOPQQDAjAcMRowGAYDVQQDExFhbm90aGVy
IGF1dGhvcml0eTAgFw03MDAxMDEwMDAwMDBaGA8yMTI2MDEwMTAwMDAwMFowHDEa
MBgGA1UEAxMRYW5vdGhlciBhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMB
BwNCAASNt5qIYFrbSLmRyp+a2lrdDBviKGSc7ZdIhh8LpHMN2fYZXdkZqqBUWvfQ
ohYibanWaBSu34sqn8D1wyhl3QOzozIwMDAPBgNVHRMBAf8EBTADAQH/MB0GA1Ud
DgQWBBQllspOwvUJhdXx1l/N1ArTg1mR5zAKBggqhkjOPQQDAgNIADBFAiAsxJAc
rOWgrl+9BZC87EcafX3acuJkItc86UC9ptIy8AIhAOB6kk4cZ90rrr++YhRC+Pcg
94exRYnOwWMiMb8bp4aX
-----END CERTIFICATE-----
`
