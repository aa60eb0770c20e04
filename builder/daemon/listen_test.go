package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestListen(t *testing.T) {
	dir := t.TempDir()
	c := load(t, fmt.Sprintf("[grpc]\naddress = ['unix://%s/run/a.sock', 'tcp://127.0.0.1:0']", dir))
	listeners, warnings, err := c.Listen()
	if err != nil {
		t.Fatal(err)
	}
	if len(listeners) != 2 || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "TLS is off for tcp://127.0.0.1:0:") {
		t.Errorf("%d listeners, warnings %q", len(listeners), warnings)
	}
	fi, err := os.Stat(filepath.Join(dir, "run/a.sock"))
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", fi, err)
	}
	// While it lives nobody else gets its address; afterwards nothing of it is left.
	want := fmt.Sprintf("listen on unix://%s/run/a.sock: another process serves there", dir)
	if _, _, err := c.Listen(); err == nil || err.Error() != want {
		t.Errorf("second: got %v, want %s", err, want)
	}
	for _, l := range listeners {
		l.Close()
	}
	if _, err := os.Stat(filepath.Join(dir, "run/a.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket's file is still there: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	dir := t.TempDir()
	writeKeyPair(t, dir)
	for text, want := range map[string]string{
		"[grpc]\naddress = ['/run/x.sock']":                     `address "/run/x.sock": it has to start with unix:// or tcp://`,
		"[grpc]\naddress = ['fd://3']":                          `address "fd://3": fd:// is not supported (unix:// or tcp://)`,
		"[grpc.tls]\ncert = '/x'":                               "grpc.tls: cert and key go together",
		"[grpc.tls]\nca = '/x'":                                 "grpc.tls.ca: it needs grpc.tls.cert and grpc.tls.key",
		"[grpc.tls]\ncert = 'DIR/x'\nkey = 'DIR/x'":             "grpc.tls: open DIR/x: no such file or directory",
		"[grpc.tls]\ncert = 'DIR/c'\nkey = 'DIR/k'\nca='DIR/k'": "grpc.tls.ca: DIR/k has no certificate",
	} {
		_, _, err := load(t, strings.ReplaceAll(text, "DIR", dir)).Listen()
		if want := strings.ReplaceAll(want, "DIR", dir); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot:  %v\nwant: %s", text, err, want)
		}
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	writeKeyPair(t, dir)
	c := load(t, strings.ReplaceAll("[grpc.tls]\ncert = 'DIR/c'\nkey = 'DIR/k'\nca='DIR/c'", "DIR", dir))
	got, err := c.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(got.ClientAuth, got.NextProtos, len(got.Certificates)); s != "RequireAndVerifyClientCert [h2] 1" {
		t.Errorf("credentials: %s", s)
	}
}

func load(t *testing.T, text string) Config {
	t.Helper()
	c, _, err := Load("/cwd", text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// writeKeyPair makes a self-signed certificate dir/c with the key dir/k.
func writeKeyPair(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{"c": {Type: "CERTIFICATE", Bytes: cert}, "k": {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
