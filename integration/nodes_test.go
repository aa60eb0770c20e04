package integration

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestNodes builds with `--node` on stock BuildKit: over each kind of address, with TLS, and with nodes that die or fall silent in the middle. The image is the one that stock
// BuildKit makes by itself, as TestParity compares them. Programs that only start another one at the other end (ssh, docker, kubectl, podman) are stood in for by scripts, which start `buildctl
// dial-stdio` as those do there.
func TestNodes(t *testing.T) {
	g := prepare(t)
	needStock(t)
	work, server := workplace(t, g, "nodes-")
	own := "linux/" + runtime.GOARCH
	ours := &optbuild{bin: filepath.Join(g.Dir, "bin", "optbuild"), state: filepath.Join(work, "state")}
	f := &nodeFixture{ours, filepath.Join(work, "certs"), map[string]*stock{}}
	makeCertificates(t, f.certs)
	port := freePort(t)
	secure := fmt.Sprintf("tcp://127.0.0.1:%d", port)
	platforms := []string{"--oci-worker-platform", own, "--oci-worker-platform", "linux/s390x"}
	one := startStock(t, filepath.Join(work, "one"), append(platforms, "--addr", secure,
		"--tlscacert", filepath.Join(f.certs, "ca.pem"), "--tlscert", filepath.Join(f.certs, "server.pem"), "--tlskey", filepath.Join(f.certs, "server.key"))...)
	write := func(name, dockerfile string) *parityCase {
		dir := filepath.Join(work, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"Dockerfile": strings.ReplaceAll(dockerfile, "$REGISTRY", server.Addr), "file": "content\n"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return &parityCase{dir: dir}
	}

	// The image is stock's over each kind of address.
	app := write("app", "FROM $REGISTRY/busybox\nWORKDIR /app\nCOPY file .\nRUN cp file copy && rm file\nCMD [\"cat\", \"copy\"]\n")
	want := one.build(t, app)
	programs := filepath.Join(work, "programs")
	calls := filepath.Join(work, "calls")
	fakePrograms(t, programs, calls, one.addr, "ssh", "docker", "kubectl", "podman")
	t.Setenv("PATH", programs+":"+os.Getenv("PATH"))
	for _, c := range []struct{ name, address, call string }{
		{"unix", one.addr, ""},
		{"tls", secure + f.tls("client"), ""},
		{"ssh", "ssh://builder@arm.example.com:2222", "ssh -l builder -p 2222 -- arm.example.com buildctl dial-stdio"},
		{"docker-container", "docker-container://buildkitd", "docker exec -i buildkitd buildctl dial-stdio"},
		{"kube-pod", "kube-pod://buildkitd-0?namespace=ci", "kubectl --context= --namespace=ci exec --container= -i buildkitd-0 -- buildctl dial-stdio"},
		{"podman-container", "podman-container://buildkitd", "podman exec -i buildkitd buildctl dial-stdio"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fresh := *app
			fresh.options = [][2]string{{"node", own + "=" + c.address}}
			log := f.output(t, ours.state, app.dir, "--node", own+"="+c.address)
			if !strings.Contains(log, "built by "+strings.Split(c.address, ",")[0]) {
				t.Fatalf("it was not built by the node:\n%s", log)
			}
			if diff := compareImages(want, ours.build(t, &fresh, app.dir)); diff != "" {
				t.Errorf("the image is not stock BuildKit's:\n%s", diff)
			}
			if b, _ := os.ReadFile(calls); !strings.Contains(string(b), c.call) {
				t.Errorf("wanted a call of\n%s\nthere were\n%s", c.call, b)
			}
		})
	}
	t.Run("tls without a certificate", func(t *testing.T) {
		log := f.output(t, ours.state, app.dir, "--node", own+"="+secure+",cacert="+filepath.Join(f.certs, "ca.pem"))
		if !strings.Contains(log, "node for "+own+": "+secure+": ") || !strings.Contains(log, "built here, since no node is left for it") {
			t.Errorf("nothing is said of the node:\n%s", log)
		}
	})
	t.Run("tls with another name", func(t *testing.T) {
		log := f.output(t, ours.state, app.dir, "--node", own+"="+secure+f.tls("client")+",servername=elsewhere.example.com")
		if !strings.Contains(log, "certificate is valid for ") {
			t.Errorf("nothing is said of the name:\n%s", log)
		}
	})

	// An index of what a node and this machine have made, by its digest, is the one that this machine makes. The program is this machine's for both.
	t.Run("index", func(t *testing.T) {
		both := write("both", "FROM scratch\nARG TARGETPLATFORM\nCOPY file /$TARGETPLATFORM/\n")
		both.options = [][2]string{{"platform", own + ",linux/s390x"}}
		want := ours.build(t, both, both.dir)
		both.options = append(both.options, [2]string{"node", "linux/s390x=" + one.addr})
		if diff := compareImages(want, ours.build(t, both, both.dir)); diff != "" {
			t.Errorf("with a node:\n%s", diff)
		}
	})

	// Provenance of a platform that a node has made is the node's, of the form that this machine's has, and about the image that was pushed.
	t.Run("attested", func(t *testing.T) {
		generator := write("generator", "FROM $REGISTRY/busybox\nENTRYPOINT [\"sh\", \"-c\", \"printf '{\\\"_type\\\":\\\"https://in-toto.io/Statement/v0.1\\\",\\\"predicateType\\\":\\\"https://spdx.dev/Document\\\","+
			"\\\"predicate\\\":{\\\"spdxVersion\\\":\\\"SPDX-2.3\\\",\\\"name\\\":\\\"%s\\\"}}' \\\"$(find $BUILDKIT_SCAN_SOURCE -name file)\\\" > $BUILDKIT_SCAN_DESTINATION/made.spdx.json\"]\n")
		c := exec.CommandContext(t.Context(), f.ours.bin, "build", "--push", "-t", server.Addr+"/generator", generator.dir)
		c.Env = append(os.Environ(), "OPTBUILD_ROOT="+ours.state)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c.Args, err, out)
		}
		both := write("attested", "FROM scratch\nARG TARGETPLATFORM\nCOPY file /$TARGETPLATFORM/\n")
		push := func(repository string, more ...string) (index, attestations string) {
			t.Helper()
			c := exec.CommandContext(t.Context(), f.ours.bin, append([]string{"build", "--progress=plain", "--platform", own + ",linux/s390x", "--provenance=mode=max", "--sbom=generator=" + server.Addr + "/generator",
				"-o", "type=image,push=true,name=" + server.Addr + "/" + repository, both.dir}, more...)...)
			c.Env = append(os.Environ(), "OPTBUILD_ROOT="+ours.state, "SOURCE_DATE_EPOCH=1")
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", c.Args, err, out)
			}
			return server.attested(t, repository)
		}
		want, wantAttested := push("here")
		got, gotAttested := push("there", "--node", "linux/s390x="+one.addr)
		if got != want {
			t.Errorf("the index is another one with a node: got\n%s\nwant\n%s", got, want)
		}
		if gotAttested != wantAttested || strings.Count(wantAttested, "slsa.dev/provenance") != 4 || strings.Count(wantAttested, "spdx.dev/Document") != 4 { // in the annotation, and in the statement
			t.Errorf("attestations: got\n%s\nwant\n%s", gotAttested, wantAttested)
		}
	})

	// A fleet of two. Whichever was taken is lost in the middle of a step; the other one ends the build.
	slow := write("slow", "FROM $REGISTRY/busybox\nARG WHICH\nRUN echo begun $WHICH; sleep 3; echo $WHICH >/made\n")
	for _, c := range []struct {
		name   string
		signal syscall.Signal
		why    string
	}{{"killed", syscall.SIGKILL, "(EOF|connection reset by peer)"}, {"silent", syscall.SIGSTOP, "it does not answer any more"}} {
		t.Run(c.name, func(t *testing.T) {
			var specs []string
			for i := range 2 {
				s := startStock(t, filepath.Join(work, fmt.Sprintf("%s-%d", c.name, i)))
				f.fleet[s.addr] = s
				specs = append(specs, "--node", own+"="+s.addr+",timeout=2s")
			}
			log := f.lose(t, slow.dir, c.signal, append(specs, "--build-arg", "WHICH="+c.name)...)
			if !regexp.MustCompile("lost in the middle of the build: unix://[^ ]*: .*"+c.why).MatchString(log) || strings.Contains(log, "built here") || !strings.Contains(log, "built by unix://") {
				t.Errorf("the other node did not end the build:\n%s", log)
			}
		})
	}
	t.Run("cable", func(t *testing.T) {
		cutOff(t, f, work, slow.dir, server.Addr+"/busybox=oci-layout://"+filepath.Join(g.Dir, "bases", "busybox"))
	})
}

type nodeFixture struct {
	ours  *optbuild
	certs string
	fleet map[string]*stock // by address
}

func (f *nodeFixture) tls(name string) string {
	return fmt.Sprintf(",cacert=%s,cert=%s,key=%s", filepath.Join(f.certs, "ca.pem"), filepath.Join(f.certs, name+".pem"), filepath.Join(f.certs, name+".key"))
}

func (f *nodeFixture) command(t *testing.T, state, dir string, args ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), f.ours.bin, append(append([]string{"build", "--progress=plain", "--no-cache", "-o", "type=cacheonly"}, args...), dir)...)
	c.Env = append(os.Environ(), "OPTBUILD_ROOT="+state)
	return c
}

// output is what a build prints on standard error.
func (f *nodeFixture) output(t *testing.T, state, dir string, args ...string) string {
	t.Helper()
	out, err := f.command(t, state, dir, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("build %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// begun matches the first line of the slow step's log, taken matches the line that names a node.
var begun, taken = regexp.MustCompile(`^#\d+ [\d.]+ begun`), regexp.MustCompile(`^#\d+ \[.*\] on (.*)$`)

// lose runs a build, and sends the signal to the node that has taken it when its slow step has begun. It returns what the build prints; it must go well.
func (f *nodeFixture) lose(t *testing.T, dir string, signal syscall.Signal, args ...string) string {
	t.Helper()
	return f.watch(t, dir, func(address string) {
		s := f.fleet[address]
		if s == nil {
			t.Errorf("no node has the address %s", address)
			return
		}
		s.process.Signal(signal)
		t.Cleanup(func() { s.process.Signal(syscall.SIGCONT) })
	}, args...)
}

// watch runs a build, and calls at once, when its slow step has begun, with the address of the node that has taken it.
func (f *nodeFixture) watch(t *testing.T, dir string, at func(address string), args ...string) string {
	t.Helper()
	c := f.command(t, f.ours.state, dir, args...)
	pipe, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	once, address := sync.Once{}, ""
	for lines := bufio.NewScanner(io.TeeReader(pipe, &log)); lines.Scan(); {
		if m := taken.FindStringSubmatch(lines.Text()); m != nil {
			address = m[1]
		}
		if begun.MatchString(lines.Text()) {
			once.Do(func() { at(address) })
		}
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("build %v: %v\n%s", args, err, log.String())
	}
	return log.String()
}

// cutOff has two nodes in network namespaces of their own, and takes the link to the one that works away: it is neither dead nor does it close a connection.
// base is the context that stands for a base image, which they could not fetch.
func cutOff(t *testing.T, f *nodeFixture, work, dir, base string) {
	if _, err := exec.LookPath("ip"); err != nil {
		skipped.skip(t, "no ip (iproute2) to make network namespaces with")
	}
	run := func(args ...string) error {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
		return nil
	}
	var specs []string
	links := map[string]string{} // by address
	for i := range 2 {
		// The daemon is the one that holds its namespace.
		name, net := fmt.Sprintf("optb%d-%d", os.Getpid()%10000, i), fmt.Sprintf("10.213.%d.", 77+i)
		s := startStockIn(t, filepath.Join(work, fmt.Sprintf("cable-%d", i)), syscall.CLONE_NEWNET, "--addr", "tcp://0.0.0.0:1234",
			"--tlscacert", filepath.Join(f.certs, "ca.pem"), "--tlscert", filepath.Join(f.certs, "server.pem"), "--tlskey", filepath.Join(f.certs, "server.key"))
		pid := fmt.Sprint(s.process.Pid)
		if err := run("ip", "link", "add", name, "type", "veth", "peer", "name", "peer0", "netns", pid); err != nil {
			skipped.skip(t, err.Error())
		}
		t.Cleanup(func() {
			s.process.Kill() // asked to end, it would wait for the client that it can't reach
			_ = run("ip", "link", "del", name)
		})
		for _, args := range [][]string{
			{"ip", "addr", "add", net + "1/24", "dev", name}, {"ip", "link", "set", name, "up"},
			{"nsenter", "-t", pid, "-n", "ip", "addr", "add", net + "2/24", "dev", "peer0"}, {"nsenter", "-t", pid, "-n", "ip", "link", "set", "peer0", "up"},
		} {
			if err := run(args...); err != nil {
				t.Fatal(err)
			}
		}
		address := "tcp://" + net + "2:1234"
		links[address] = name
		specs = append(specs, "--node", "linux/"+runtime.GOARCH+"="+address+f.tls("client")+",servername=localhost,timeout=2s")
	}
	log := f.watch(t, dir, func(address string) {
		if err := run("ip", "link", "set", links[address], "down"); err != nil {
			t.Error(err)
		}
	}, append(specs, "--build-arg", "WHICH=cable", "--build-context", base)...)
	if !strings.Contains(log, "lost in the middle of the build: tcp://10.213.") || strings.Contains(log, "built here") {
		t.Errorf("the other node did not end the build:\n%s", log)
	}
}

// fakePrograms makes programs that write down their arguments and connect to a daemon, as the real ones' other ends do.
func fakePrograms(t *testing.T, dir, calls, address string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" >>%s\nexec %s --addr %s dial-stdio\n", name, calls, os.Getenv("STOCK_BUILDCTL"), address)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// makeCertificates writes an authority, and certificates of it for a server at 127.0.0.1 and for a client.
func makeCertificates(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		}
		if name == "ca" {
			c.IsCA, c.KeyUsage, c.ExtKeyUsage, ca, caKey = true, x509.KeyUsageCertSign, nil, c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
			if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
