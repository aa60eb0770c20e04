package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	containerdconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/log"
	"github.com/moby/buildkit/util/resolver"
	resolverconfig "github.com/moby/buildkit/util/resolver/config"
	"github.com/pelletier/go-toml/v2"
	"github.com/sirupsen/logrus"
)

// hub is the name of Docker Hub in references, hubHost the host that serves it.
const (
	hub     = "docker.io"
	hubHost = "registry-1.docker.io"
)

// Hosts returns the hosts of each registry, in the order in which they are to be tried, without credentials. A registry's
// configuration is read when it is first asked for and kept, with its connections, for as long as the function is.
// It may be called concurrently.
func Hosts(c Config) docker.RegistryHosts {
	var mu sync.Mutex
	known := map[string][]docker.RegistryHost{}
	return func(name string) ([]docker.RegistryHost, error) {
		mu.Lock()
		defer mu.Unlock()
		if hosts, ok := known[name]; ok {
			return slices.Clone(hosts), nil
		}
		s, err := c.load()
		if err != nil {
			return nil, err
		}
		hosts, err := s.hosts(name)
		if err != nil {
			return nil, err
		}
		for i := range hosts {
			var t http.RoundTripper = newChecked(&mounts{&ranges{&readableErrors{hosts[i].Client.Transport}}})
			// A mirror that fails is not asked again: there is another host to turn to.
			if i == len(hosts)-1 {
				t = newRetry(t)
			}
			client := *hosts[i].Client
			client.Transport = t
			hosts[i].Client = &client
		}
		known[name] = hosts
		return slices.Clone(hosts), nil
	}
}

// sources is the content of all configuration files that name registries.
type sources struct {
	Config
	buildkitd map[string]resolverconfig.RegistryConfig
	mirrors   []string // of Docker Hub
	insecure  []string
}

// load reads the files that are not specific to one registry.
func (c Config) load() (s sources, err error) {
	s = sources{Config: c, buildkitd: map[string]resolverconfig.RegistryConfig{}, insecure: slices.Clone(c.Insecure)}
	for _, dir := range c.dirs() { // the user's first
		registries, err := readBuildkitd(filepath.Join(dir, "buildkit", "buildkitd.toml"))
		if err != nil {
			return s, err
		}
		for name, r := range registries {
			if _, ok := s.buildkitd[name]; !ok {
				s.buildkitd[name] = r
			}
		}
		d, err := readDaemonJSON(filepath.Join(dir, "docker", "daemon.json"))
		if err != nil {
			return s, err
		}
		if len(s.mirrors) == 0 {
			s.mirrors = d.Mirrors
		}
		s.insecure = append(s.insecure, d.Insecure...)
	}
	return s, nil
}

// dirs are the configuration directories that exist, the user's first.
func (c Config) dirs() []string {
	return slices.DeleteFunc([]string{c.UserDir, c.SystemDir}, func(dir string) bool { return dir == "" })
}

// hosts decides which of the sources speaks for a registry.
func (s sources) hosts(name string) ([]docker.RegistryHost, error) {
	if _, ok := s.buildkitd[name]; !ok {
		for _, dir := range s.dirs() {
			hosts, err := s.containerdHosts(name, filepath.Join(dir, "containerd", "certs.d"))
			if hosts != nil || err != nil {
				return hosts, err
			}
		}
	}
	return s.buildkitHosts(name)
}

// buildkitHosts has BuildKit make the hosts from buildkitd.toml's tables, into which docker's configuration is merged.
func (s sources) buildkitHosts(name string) ([]docker.RegistryHost, error) {
	r, err := s.registry(name)
	if err != nil {
		return nil, err
	}
	m := map[string]resolverconfig.RegistryConfig{}
	if name == hub && len(r.Mirrors) == 0 {
		r.Mirrors = s.mirrors
	}
	for _, mirror := range r.Mirrors {
		scheme, _, hasScheme := strings.Cut(mirror, "://")
		host := mirrorHost(mirror)
		mr, err := s.registry(host)
		if err != nil {
			return nil, err
		}
		if plain := scheme == "http"; hasScheme && s.buildkitd[host].PlainHTTP == nil {
			mr.PlainHTTP = &plain
			if plain {
				mr.Insecure = nil
			}
		}
		m[host] = mr
	}
	m[name] = r
	hosts, err := resolver.NewRegistryConfig(m)(name)
	if err == nil && len(hosts) > 0 {
		hosts[len(hosts)-1].Capabilities |= docker.HostCapabilityReferrers
	}
	return hosts, err
}

// registry is the configuration of one host: buildkitd.toml's, docker's certificates, and whether it is insecure.
func (s sources) registry(name string) (resolverconfig.RegistryConfig, error) {
	r := s.buildkitd[name]
	for _, ca := range r.RootCAs {
		if _, err := readCA(ca); err != nil {
			return r, err
		}
	}
	for _, p := range r.KeyPairs {
		if _, err := readPair(p.Certificate, p.Key); err != nil {
			return r, err
		}
	}
	r.TLSConfigDir = slices.Clone(r.TLSConfigDir)
	trusted := len(r.RootCAs)+len(r.KeyPairs) > 0
	for _, dir := range append(s.certDirs(name), r.TLSConfigDir...) {
		found, err := readCerts(dir)
		if err != nil {
			return r, err
		}
		if found.none() {
			continue
		}
		trusted = true
		if !slices.Contains(r.TLSConfigDir, dir) {
			r.TLSConfigDir = append(r.TLSConfigDir, dir)
		}
	}
	yes, no := true, false
	loopback, _ := docker.MatchLocalhost(name)
	switch {
	case s.isInsecure(name):
		r.Insecure, r.PlainHTTP = &yes, &yes
	case !loopback || r.Insecure != nil || r.PlainHTTP != nil:
	case trusted: // it has a certificate of its own, so it speaks https
		r.PlainHTTP = &no
	default: // as docker does: https, unchecked, else http
		r.Insecure, r.PlainHTTP = &yes, &yes
	}
	return r, nil
}

// isInsecure tells whether a flag or daemon.json lists the host, by name or by a block that its address is in.
func (s sources) isInsecure(name string) bool {
	var addresses []net.IP
	for _, entry := range s.insecure {
		_, block, err := net.ParseCIDR(entry)
		if err != nil {
			if Host(entry) == name {
				return true
			}
			continue
		}
		if addresses == nil {
			addresses = addressesOf(name)
		}
		if slices.ContainsFunc(addresses, block.Contains) {
			return true
		}
	}
	return false
}

func addressesOf(name string) []net.IP {
	host, _, err := net.SplitHostPort(name)
	if err != nil {
		host = name
	}
	if ip := net.ParseIP(host); ip != nil {
		return []net.IP{ip}
	}
	ips, _ := net.LookupIP(host)
	return append([]net.IP{}, ips...)
}

func mirrorHost(mirror string) string {
	if _, rest, ok := strings.Cut(mirror, "://"); ok {
		mirror = rest
	}
	host, _, _ := strings.Cut(mirror, "/")
	return host
}

// containerdHosts has containerd make the hosts from the registry's hosts.toml below root; nil without an error when there
// is none.
func (s sources) containerdHosts(name, root string) ([]docker.RegistryHost, error) {
	dir, err := containerdconfig.HostDirFromRoot(root)(name)
	if err != nil {
		return nil, nil
	}
	path := filepath.Join(dir, "hosts.toml")
	b, err := readFile(path)
	if len(b) == 0 || err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(b, &map[string]any{}); err != nil {
		return nil, tomlError(path, err)
	}
	o := containerdconfig.HostOptions{HostDir: func(string) (string, error) { return dir, nil }}
	if o.DefaultTLS, err = s.dockerTLS(name); err != nil {
		return nil, err
	}
	// containerd logs what is wrong with a hosts.toml and goes on without it.
	var logged loggedError
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	logger.AddHook(&logged)
	ctx := log.WithLogger(context.Background(), logrus.NewEntry(logger))
	hosts, err := containerdconfig.ConfigureHosts(ctx, o)(name)
	if err = errors.Join(logged.err, err); err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	for i, h := range hosts {
		if s.isInsecure(h.Host) || s.isInsecure(name) && (h.Host == name || name == hub && h.Host == hubHost) {
			yes := true
			r := map[string]resolverconfig.RegistryConfig{h.Host: {Insecure: &yes, PlainHTTP: &yes}}
			insecure, err := resolver.NewRegistryConfig(r)(h.Host)
			if err != nil {
				return nil, err
			}
			hosts[i].Client, hosts[i].Scheme = insecure[0].Client, insecure[0].Scheme
		}
	}
	return hosts, nil
}

// loggedError keeps the first error that a logger was given.
type loggedError struct{ err error }

func (*loggedError) Levels() []logrus.Level { return []logrus.Level{logrus.ErrorLevel} }

func (l *loggedError) Fire(e *logrus.Entry) error {
	if err, ok := e.Data[logrus.ErrorKey].(error); ok && l.err == nil {
		l.err = err
	}
	return nil
}
