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

// checkCerts reports the first file of a certificate directory in docker's layout that is not what its name says, and
// whether there are certificates in it. Without it a CA file that is not PEM would be ignored.
func checkCerts(dir string) (found bool, err error) {
	entries, err := os.ReadDir(dir)
	if absent(err) {
		return false, nil
	} else if err != nil {
		return false, &FileError{Path: dir, Err: err}
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			found = true
			if err := checkCA(path); err != nil {
				return false, err
			}
		case ".cert":
			found = true
			if err := checkPair(path, strings.TrimSuffix(path, ".cert")+".key"); err != nil {
				return false, err
			}
		}
	}
	return found, nil
}

func checkCA(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return &FileError{Path: path, Err: pathErr(err)}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(b) {
		return &FileError{Path: path, Err: errors.New("no certificate in PEM format in it")}
	}
	return nil
}

func checkPair(cert, key string) error {
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return &FileError{Path: pe.Path, Err: pe.Err}
		}
		return &FileError{Path: cert, Err: fmt.Errorf("load with %s: %w", filepath.Base(key), err)}
	}
	return nil
}

// dockerTLS holds the certificates that docker's configuration has for a registry; nil when it has none.
func (s sources) dockerTLS(name string) (*tls.Config, error) {
	var c *tls.Config
	for _, dir := range s.certDirs(name) {
		found, err := checkCerts(dir)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		if c == nil {
			pool, err := x509.SystemCertPool()
			if err != nil {
				return nil, err
			}
			c = &tls.Config{RootCAs: pool}
		}
		cas, pairs := certFiles(dir)
		for _, ca := range cas {
			b, err := os.ReadFile(ca)
			if err != nil {
				return nil, err
			}
			c.RootCAs.AppendCertsFromPEM(b)
		}
		for cert, key := range pairs {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return nil, err
			}
			c.Certificates = append(c.Certificates, pair)
		}
	}
	return c, nil
}

// certFiles lists a directory in docker's layout: the authorities, and each client certificate with its key.
func certFiles(dir string) (cas []string, pairs map[string]string) {
	cas, _ = filepath.Glob(filepath.Join(dir, "*.crt"))
	certs, _ := filepath.Glob(filepath.Join(dir, "*.cert"))
	pairs = map[string]string{}
	for _, cert := range certs {
		pairs[cert] = strings.TrimSuffix(cert, ".cert") + ".key"
	}
	return cas, pairs
}
