package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/connhelper"
)

// tlsFiles are the files of a TLS client; the zero value is no TLS.
type tlsFiles struct {
	use           bool
	ca, cert, key string // may be missing, but for the use
	skipVerify    bool
}

func tlsIn(dir string) tlsFiles {
	return tlsFiles{
		use: true, ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"),
	}
}

// tlsFromEnv is what docker's variables say for DOCKER_HOST.
func (o Options) tlsFromEnv() tlsFiles {
	if o.Getenv("DOCKER_TLS") == "" && o.Getenv("DOCKER_TLS_VERIFY") == "" {
		return tlsFiles{}
	}
	dir := o.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = o.DockerConfig
	}
	t := tlsIn(dir)
	t.skipVerify = o.Getenv("DOCKER_TLS_VERIFY") == ""
	return t
}

func (t tlsFiles) config() (*tls.Config, error) {
	if !t.use {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.skipVerify} //nolint:gosec // the user's own choice
	ca, err := os.ReadFile(t.ca)
	switch {
	case err == nil:
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s has no certificate", t.ca)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(t.cert, t.key)
	switch {
	case err == nil:
		c.Certificates = []tls.Certificate{pair}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return c, nil
}

// dockerContext is one of the contexts of docker's command line.
type dockerContext struct {
	host string
	tls  tlsFiles
}

// readContext reads contexts/meta/SHA256-OF-NAME/meta.json in docker's configuration (documented in docker/cli's package
// cli/context/store; that package needs two modules more than this file).
func readContext(dir, name string) (c dockerContext, err error) {
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	b, err := os.ReadFile(filepath.Join(dir, "contexts", "meta", id, "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, errors.New("there is no such context")
	}
	if err != nil {
		return c, err
	}
	var meta struct {
		Endpoints map[string]struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return c, err
	}
	endpoint := meta.Endpoints["docker"]
	if c.host = endpoint.Host; c.host == "" {
		return c, errors.New("it names no Docker engine")
	}
	files := filepath.Join(dir, "contexts", "tls", id, "docker")
	if _, err := os.Stat(files); err == nil || endpoint.SkipTLSVerify {
		c.tls = tlsIn(files)
		c.tls.skipVerify = endpoint.SkipTLSVerify
	}
	return c, nil
}

// dockerClient speaks Docker's API.
type dockerClient struct {
	http http.Client
	base string
}

func newDockerClient(address string, t tlsFiles) (*dockerClient, error) {
	helper, err := connhelper.GetConnectionHelper(address) // ssh://
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	c := &dockerClient{http: http.Client{Transport: transport}, base: "http://docker"}
	if helper != nil {
		transport.DialContext = helper.Dialer
		return c, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "unix":
		path := strings.TrimPrefix(address, "unix://")
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialUnix(ctx, path) }
	case "tcp", "http", "https":
		if transport.TLSClientConfig, err = t.config(); err != nil {
			return nil, err
		}
		transport.Proxy = http.ProxyFromEnvironment
		scheme := "http"
		if transport.TLSClientConfig != nil || u.Scheme == "https" {
			scheme = "https"
		}
		c.base = scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/")
	default:
		return nil, fmt.Errorf("address %q is not unix://, tcp://, http://, https:// or ssh://", address)
	}
	return c, nil
}

// connectDocker returns the engine at an address if it answers. kind is what it is taken for.
func connectDocker(ctx context.Context, kind, address string, t tlsFiles) (*Engine, error) {
	c, err := newDockerClient(address, t)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/_ping", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.Header.Get("Libpod-Api-Version") != "" { // it stands in for Docker
		kind = "Podman"
	}
	return &Engine{Kind: kind, Address: address, load: c.load}, nil
}

// do sends a request and makes errors of answers that are none.
func (c *dockerClient) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // its URL says nothing: the host of a socket is made up
			err = ue.Err
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var said struct{ Message string }
	if json.Unmarshal(text, &said) == nil && said.Message != "" {
		return nil, errors.New(said.Message)
	}
	return nil, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(text))
}

// load sends an archive. That something went wrong can come in the middle of a good answer.
func (c *dockerClient) load(ctx context.Context, archive io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/images/load?quiet=1", io.NopCloser(archive))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	messages := json.NewDecoder(resp.Body)
	for {
		var m struct {
			Error       string
			ErrorDetail struct{ Message string }
		}
		switch err := messages.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the answer: %w", err)
		case m.ErrorDetail.Message != "":
			return errors.New(m.ErrorDetail.Message)
		case m.Error != "":
			return errors.New(m.Error)
		}
	}
}
