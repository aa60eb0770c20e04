package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"mvdan.cc/sh/v3/syntax"

	"github.com/optbuild/optbuild/builder/nodes"
)

const kubernetes = "../../integration/ci/kubernetes"

// object is what the test looks at of a Kubernetes object.
type object struct {
	Kind     string
	Metadata struct {
		Name   string
		Labels map[string]string
	}
	Spec struct {
		ServiceName string           `yaml:"serviceName"`
		Selector    map[string]any   // of a service; of a set it has matchLabels
		PodSelector map[string]any   `yaml:"podSelector"`
		Ports       []map[string]any // of a service
		Template    struct {
			Metadata struct{ Labels map[string]any }
			Spec     pod
		}
		Claims []struct{ Metadata struct{ Name string } } `yaml:"volumeClaimTemplates"`
	}
}

type pod struct {
	Containers []struct {
		Image        string
		Args         []string
		Ports        []map[string]any
		VolumeMounts []struct{ Name, MountPath string } `yaml:"volumeMounts"`
	}
	Volumes []struct {
		Name   string
		Secret struct {
			SecretName string `yaml:"secretName"`
		}
	}
}

// TestKubernetes: the manifest's parts fit together, and are without privileges.
func TestKubernetes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(kubernetes, "buildkitd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	yamlScripts(t, text) // no key is there twice
	for _, word := range []string{"privileged", "hostPath", "hostNetwork", "hostPID"} {
		if bytes.Contains(text, []byte(word)) {
			t.Errorf("it has %s", word)
		}
	}
	objects := map[string]object{}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		objects[o.Kind] = o
	}
	service, set, policy := objects["Service"], objects["StatefulSet"], objects["NetworkPolicy"]
	if len(objects) != 3 || set.Spec.ServiceName != service.Metadata.Name || len(set.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("there are %+v", objects)
	}
	app := set.Spec.Template.Metadata.Labels["app"]
	for what, selector := range map[string]any{"service": service.Spec.Selector, "set": set.Spec.Selector["matchLabels"], "policy": policy.Spec.PodSelector["matchLabels"]} {
		if labels, _ := selector.(map[string]any); len(labels) != 1 || labels["app"] != app {
			t.Errorf("the %s selects %v, pods have %v", what, selector, app)
		}
	}
	c := set.Spec.Template.Spec.Containers[0]
	if service.Spec.Ports[0]["targetPort"] != c.Ports[0]["name"] || c.Ports[0]["containerPort"] != service.Spec.Ports[0]["port"] {
		t.Errorf("ports: %v and %v", service.Spec.Ports, c.Ports)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(mod), "github.com/moby/buildkit v")
	version, _, _ = strings.Cut(version, "\n")
	if c.Image != "moby/buildkit:v"+version+"-rootless" {
		t.Errorf("the image is %s, linked is v%s", c.Image, version)
	}
	var volumes []string
	for _, v := range set.Spec.Template.Spec.Volumes {
		volumes = append(volumes, v.Name)
		if v.Secret.SecretName != "buildkitd-certs" {
			t.Errorf("the secret is %q", v.Secret.SecretName)
		}
	}
	for _, v := range set.Spec.Claims {
		volumes = append(volumes, v.Metadata.Name)
	}
	certs := ""
	for _, m := range c.VolumeMounts {
		if !slices.Contains(volumes, m.Name) {
			t.Errorf("there is no volume %s", m.Name)
		}
		if m.Name == "certs" {
			certs = "/certs/"
		}
	}
	for _, want := range []string{"--tlscacert=" + certs + "ca.pem", "--tlscert=" + certs + "cert.pem", "--tlskey=" + certs + "key.pem", "--addr=tcp://0.0.0.0:1234"} {
		if !slices.Contains(c.Args, want) {
			t.Errorf("arguments lack %s", want)
		}
	}
	readme, err := os.ReadFile(filepath.Join(kubernetes, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	pod := "buildkitd-arm64-0." + service.Metadata.Name + ".build.svc:1234"
	if !bytes.Contains(readme, []byte("linux/arm64=tcp://"+pod)) {
		t.Errorf("the README does not name %s", pod)
	}
}

// TestKubernetesCertificates makes them, and has a client and a daemon meet.
func TestKubernetesCertificates(t *testing.T) {
	path := filepath.Join(kubernetes, "certificates.sh")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(bytes.NewReader(text), path); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl to make certificates with")
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), path, "build", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	client := filepath.Join(dir, "client")
	spec := "linux/arm64=tcp://buildkitd-arm64-0.buildkitd-arm64.build.svc:1234,cacert=" + client + "/ca.pem,cert=" + client + "/cert.pem,key=" + client + "/key.pem"
	if _, err := nodes.Parse(spec); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "daemon", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	check := func(who, name string, usage x509.ExtKeyUsage) error {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, who, "cert.pem"), filepath.Join(dir, who, "key.pem"))
		if err != nil {
			return err
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	for _, name := range []string{"buildkitd-arm64-0.buildkitd-arm64.build.svc", "buildkitd-amd64-1.buildkitd-amd64.build.svc.cluster.local", "localhost"} {
		if err := check("daemon", name, x509.ExtKeyUsageServerAuth); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := check("client", "", x509.ExtKeyUsageClientAuth); err != nil {
		t.Errorf("client: %v", err)
	}
	if check("client", "localhost", x509.ExtKeyUsageServerAuth) == nil || check("daemon", "elsewhere.example.com", x509.ExtKeyUsageServerAuth) == nil {
		t.Error("a certificate is good for what it is not for")
	}
	if fi, err := os.Stat(filepath.Join(dir, "client", "key.pem")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode: %v, %v", fi, err)
	}
}
