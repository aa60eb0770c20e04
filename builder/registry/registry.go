// Package registry decides how a registry is talked to: which hosts serve a name, over http or https, with which
// certificates, how often a request is tried again, and with whose credentials.
//
// What comes in is a [Config] (flags, and where the configuration files of docker, BuildKit and containerd lie); what goes
// out is a containerd [docker.RegistryHosts], for the engine as [Hosts] without credentials (they come from each command's
// session, see [Auth]) and for the command's own pushes and pulls as [ClientHosts] with them. [Explain] turns an error,
// also one that came out of the engine as text, into a sentence and a remedy.
//
// Which file decides, and why, is in this folder's README. The package knows nothing of images, builds or the engine.
package registry

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	dockerconfig "github.com/docker/cli/cli/config"
)

// Config says where the configuration of registries lies. It travels as JSON from the command that starts an engine to
// that engine: files are read where they are used, when a registry is first used.
type Config struct {
	// Insecure lists HOST[:PORT] or CIDR blocks whose certificates are not checked, and that may speak plain http.
	Insecure []string `json:"insecure,omitempty"`
	// DockerDir is docker's client configuration, usually ~/.docker. Empty: none is read.
	DockerDir string `json:"dockerDir,omitempty"`
	// UserDir is the user's configuration directory, usually ~/.config. Empty: none is read.
	UserDir string `json:"userDir,omitempty"`
	// SystemDir is the system's configuration directory, usually /etc. Empty: none is read.
	SystemDir string `json:"systemDir,omitempty"`
}

// Local returns the configuration of this user on this machine, as the environment names it. Insecure are the values of
// --insecure-registry.
func Local(insecure ...string) (Config, error) {
	c := Config{SystemDir: "/etc"}
	for _, v := range insecure {
		host, err := insecureHost(v)
		if err != nil {
			return Config{}, err
		}
		if !slices.Contains(c.Insecure, host) {
			c.Insecure = append(c.Insecure, host)
		}
	}
	var err error
	// The engine's working directory is not the command's.
	if c.DockerDir, err = filepath.Abs(dockerconfig.Dir()); err != nil {
		return Config{}, err
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		c.UserDir = dir
	} else if home, err := os.UserHomeDir(); err == nil {
		c.UserDir = filepath.Join(home, ".config")
	}
	return c, nil
}

// insecureHost checks a value of --insecure-registry and takes a scheme off it.
func insecureHost(v string) (string, error) {
	if _, _, err := net.ParseCIDR(v); err == nil {
		return v, nil
	}
	host := Host(v)
	if v == "" || strings.ContainsAny(host, " \t/?#@") {
		return "", fmt.Errorf("bad insecure registry %q: want HOST[:PORT]", v)
	}
	return host, nil
}

// Host takes scheme and path off what people write for a registry: "https://x.example:5000/v2/" is "x.example:5000". All
// names of Docker Hub become "docker.io"; so does the empty name.
func Host(name string) string {
	for _, scheme := range []string{"https://", "http://"} {
		name = strings.TrimPrefix(name, scheme)
	}
	name, _, _ = strings.Cut(name, "/")
	switch name {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return name
}

// Lacks returns the insecure registries of want that c does not have: a command that joins an engine gets the engine's.
func (c Config) Lacks(want Config) []string {
	var out []string
	for _, host := range want.Insecure {
		if !slices.Contains(c.Insecure, host) {
			out = append(out, host)
		}
	}
	return out
}
