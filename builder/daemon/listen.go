package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/sys"
)

// Listen opens the configured addresses. A unix socket's file goes away with its listener. Warnings are for the user.
func (c Config) Listen() (listeners []net.Listener, warnings []string, err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
		}
	}()
	credentials, err := c.Credentials()
	if err != nil {
		return nil, nil, err
	}
	for _, addr := range c.GRPC.Address {
		proto, rest, _ := strings.Cut(addr, "://")
		var l net.Listener
		switch {
		case rest == "":
			return listeners, nil, fmt.Errorf("address %q: it has to start with unix:// or tcp://", addr)
		case proto == "unix":
			if err := unused(rest); err != nil {
				return listeners, nil, err
			}
			l, err = sys.GetLocalListener(rest, orSelf(c.GRPC.UID, os.Getuid), orSelf(c.GRPC.GID, os.Getgid))
		case proto == "tcp":
			if l, err = net.Listen("tcp", rest); err == nil && credentials == nil {
				warnings = append(warnings, fmt.Sprintf("TLS is off for %s: who can reach it can run anything as this user; see --tlscert, --tlskey and --tlscacert", addr))
			}
		default:
			return listeners, nil, fmt.Errorf("address %q: %s:// is not supported (unix:// or tcp://)", addr, proto)
		}
		if err != nil {
			return listeners, nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, warnings, nil
}

func orSelf(id *int, self func() int) int {
	if id != nil {
		return *id
	}
	return self()
}

// unused refuses the socket of a server that lives: listening would take its clients away without a word.
func unused(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return nil
	}
	conn.Close()
	return fmt.Errorf("listen on unix://%s: another process serves there", path)
}

// Credentials returns what TCP listeners authenticate with; nil without a certificate.
func (c Config) Credentials() (*tls.Config, error) {
	f := c.GRPC.TLS
	if f.Cert == "" && f.Key == "" {
		if f.CA != "" {
			return nil, errors.New("grpc.tls.ca: it needs grpc.tls.cert and grpc.tls.key")
		}
		return nil, nil
	}
	if f.Cert == "" || f.Key == "" {
		return nil, errors.New("grpc.tls: cert and key go together")
	}
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("grpc.tls: %w", err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("grpc.tls.ca: %w", err)
		}
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("grpc.tls.ca: %s has no certificate", f.CA)
		}
		t.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return t, nil
}
