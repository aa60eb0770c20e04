package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// certDirs are the directories with a registry's certificates in docker's layout.
func (c Config) certDirs(name string) []string {
	var roots []string
	if c.DockerDir != "" {
		roots = append(roots, filepath.Join(c.DockerDir, "certs.d"))
	}
	for _, dir := range c.dirs() {
		roots = append(roots, filepath.Join(dir, "docker", "certs.d"), filepath.Join(dir, "containerd", "certs.d"))
	}
	names := []string{name}
	if name == hub {
		names = append(names, hubHost)
	}
	if host, port, err := net.SplitHostPort(name); err == nil {
		names = append(names, host+"_"+port+"_") // containerd's spelling
	}
	var out []string
	for _, root := range roots {
		for _, n := range names {
			out = append(out, filepath.Join(root, n))
		}
	}
	return out
}

// certs is what a directory in docker's layout has.
type certs struct {
	authorities [][]byte // in PEM format
	pairs       []tls.Certificate
}

func (c certs) none() bool { return len(c.authorities)+len(c.pairs) == 0 }

// readCerts reads a directory in docker's layout; one that does not exist is empty. A file that is not what its name says is
// an error: BuildKit and containerd would ignore it.
func readCerts(dir string) (c certs, err error) {
	entries, err := os.ReadDir(dir)
	if absent(err) {
		return c, nil
	} else if err != nil {
		return c, &FileError{Path: dir, Err: err}
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			ca, err := readCA(path)
			if err != nil {
				return c, err
			}
			c.authorities = append(c.authorities, ca)
		case ".cert":
			pair, err := readPair(path, strings.TrimSuffix(path, ".cert")+".key")
			if err != nil {
				return c, err
			}
			c.pairs = append(c.pairs, pair)
		}
	}
	return c, nil
}

func readCA(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, &FileError{Path: path, Err: pathErr(err)}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(b) {
		return nil, &FileError{Path: path, Err: errors.New("no certificate in PEM format in it")}
	}
	return b, nil
}

func readPair(cert, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	var pe *fs.PathError
	switch {
	case errors.As(err, &pe):
		err = &FileError{Path: pe.Path, Err: pe.Err}
	case err != nil:
		err = &FileError{Path: cert, Err: fmt.Errorf("load with %s: %w", filepath.Base(key), err)}
	}
	return pair, err
}

// dockerTLS holds the certificates that docker's configuration has for a registry; nil when it has none.
func (s sources) dockerTLS(name string) (*tls.Config, error) {
	var c *tls.Config
	for _, dir := range s.certDirs(name) {
		found, err := readCerts(dir)
		if err != nil {
			return nil, err
		}
		if found.none() {
			continue
		}
		if c == nil {
			pool, err := x509.SystemCertPool()
			if err != nil {
				return nil, err
			}
			c = &tls.Config{RootCAs: pool}
		}
		for _, ca := range found.authorities {
			c.RootCAs.AppendCertsFromPEM(ca)
		}
		c.Certificates = append(c.Certificates, found.pairs...)
	}
	return c, nil
}
