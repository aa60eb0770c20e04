package nodes

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/connhelper"
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer" // docker-container://
	_ "github.com/moby/buildkit/client/connhelper/kubepod"         // kube-pod://
	_ "github.com/moby/buildkit/client/connhelper/nerdctlcontainer"
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer"
	_ "github.com/moby/buildkit/client/connhelper/ssh"
	"github.com/moby/buildkit/util/suggest"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/optbuild/optbuild/builder/request"
)

// Node is a BuildKit daemon, and what it is to build.
type Node struct {
	// Platforms are normalised, as platforms.FormatAll prints them.
	Platforms []string
	// Address is a URL of one of the schemes below.
	Address string
	// CACert, Cert and Key are files in PEM form, for tcp:// with TLS; ServerName is the name in the daemon's certificate if that is not the address's.
	CACert, Cert, Key, ServerName string
	// Timeout is how long the daemon may keep silent before it is lost.
	Timeout time.Duration
}

// silence is how long a node may keep silent if nothing else is said: BuildKit's own bound for its clients (session/grpc.go).
const silence = 30 * time.Second

// Form is how a node is written.
const Form = "PLATFORM[,PLATFORM…]=ADDRESS[,cacert=FILE,cert=FILE,key=FILE,servername=NAME,timeout=30s]"

// schemes are those that BuildKit's client has a way to. All but the first two start a program of that name, which starts `buildctl dial-stdio` at the other end.
var schemes = []string{"tcp", "unix", "ssh", "kube-pod", "docker-container", "podman-container", "nerdctl-container"}

// keys are the attributes of a node: those of `docker buildx create --driver remote --driver-opt`, and how patient to be.
var keys = []string{"cacert", "cert", "key", "servername", "timeout"}

// Parse reads a node in its Form. The files that it names are opened.
func Parse(text string) (n Node, err error) {
	names, rest, ok := strings.Cut(text, "=")
	if !ok || names == "" || rest == "" {
		return n, errors.New("is not PLATFORM=ADDRESS, as in linux/arm64=tcp://HOST:PORT")
	}
	for name := range strings.SplitSeq(names, ",") {
		p, err := request.ParsePlatform(strings.TrimSpace(name))
		if err != nil {
			return n, fmt.Errorf("platform %s %w", name, err)
		}
		if f := platforms.FormatAll(p); !slices.Contains(n.Platforms, f) {
			n.Platforms = append(n.Platforms, f)
		}
	}
	fields, err := csvvalue.Fields(rest, nil)
	if err != nil {
		return n, err
	}
	n.Address, n.Timeout = fields[0], silence
	for _, field := range fields[1:] {
		key, value, ok := strings.Cut(field, "=")
		if !ok || value == "" {
			return n, fmt.Errorf("%s is not KEY=VALUE; keys are %s", field, strings.Join(keys, ", "))
		}
		if err := n.set(key, value); err != nil {
			return n, err
		}
	}
	if err := n.checkAddress(); err != nil {
		return n, err
	}
	return n, n.checkTLS()
}

func (n *Node) set(key, value string) (err error) {
	if key == "timeout" {
		if n.Timeout, err = time.ParseDuration(value); err != nil || n.Timeout < time.Second {
			return fmt.Errorf("timeout=%s is not a time such as 30s, of a second at least", value)
		}
		return nil
	}
	to := map[string]*string{"cacert": &n.CACert, "cert": &n.Cert, "key": &n.Key, "servername": &n.ServerName}[key]
	if to == nil {
		return unknown("key", key, keys)
	}
	if *to != "" {
		return fmt.Errorf("%s is given twice", key)
	}
	*to = value
	return nil
}

// unknown is the error of a word that is none of those that there are.
func unknown(what, word string, known []string) error {
	if near, ok := suggest.Search(word, known, true); ok {
		return fmt.Errorf("%s is no %s; did you mean %s?", word, what, near)
	}
	return fmt.Errorf("%s is no %s; there are %s", word, what, strings.Join(known, ", "))
}

func (n *Node) checkAddress() error {
	scheme, rest, ok := strings.Cut(n.Address, "://")
	if !ok {
		return fmt.Errorf("address %s has no scheme: one of %s, followed by ://", n.Address, strings.Join(schemes, ", "))
	}
	if !slices.Contains(schemes, scheme) {
		return unknown("scheme of a node", scheme, schemes)
	}
	u, err := url.Parse(n.Address)
	if err != nil {
		return err
	}
	switch scheme {
	case "tcp":
		if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" || u.Hostname() == "" {
			return fmt.Errorf("address %s is not tcp://HOST:PORT", n.Address)
		}
	case "unix":
		if !filepath.IsAbs(rest) {
			return fmt.Errorf("address %s has no absolute path: unix:///PATH", n.Address)
		}
	default:
		if _, err := connhelper.GetConnectionHelper(n.Address); err != nil {
			return fmt.Errorf("address %s: %w", n.Address, err)
		}
	}
	return nil
}

// secure reports whether the node is spoken to with TLS.
func (n *Node) secure() bool {
	return n.CACert != "" || n.Cert != "" || n.Key != "" || n.ServerName != ""
}

func (n *Node) checkTLS() error {
	if !n.secure() {
		return nil
	}
	if !strings.HasPrefix(n.Address, "tcp://") {
		return errors.New("cacert, cert, key and servername are for tcp:// only")
	}
	if (n.Cert == "") != (n.Key == "") {
		return errors.New("cert and key belong together")
	}
	if n.CACert != "" {
		pem, err := os.ReadFile(n.CACert)
		if err != nil {
			return fmt.Errorf("cacert: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return fmt.Errorf("cacert: %s has no certificate in PEM form", n.CACert)
		}
	}
	if n.Cert != "" {
		if _, err := tls.LoadX509KeyPair(n.Cert, n.Key); err != nil {
			return fmt.Errorf("cert and key: %w", err)
		}
	}
	return nil
}

// Open reports whether the solve would go over a network that anybody on it can read: context, secrets and credentials go with it.
func (n *Node) Open() bool {
	u, err := url.Parse(n.Address)
	if err != nil || u.Scheme != "tcp" || n.secure() || u.Hostname() == "localhost" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip == nil || !ip.IsLoopback()
}
