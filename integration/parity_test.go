package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestParity builds each Dockerfile of testdata/parity with optbuild and with stock BuildKit, and wants the same image from
// both, with the optimiser off: the index and the configurations byte for byte, and each layer with the same digest. Layers are not compressed: optbuild's are by an encoder of its own. What the optimiser
// keeps is TestEquivalence's to say.
//
// A case is a txtar archive. Lines of its comment that begin with "opt:" are options, in words that both command lines have
// (see parityCase). A file "setup.sh" is run by sh in the context, for what an archive of text can't hold, and removed.
//
// Stock BuildKit is named by STOCK_BUILDKITD and STOCK_BUILDCTL, which must be of the version that optbuild links, and
// STOCK_RUNC, without which runc is looked for in PATH.
func TestParity(t *testing.T) {
	g := prepare(t)
	needStock(t)
	cases, err := filepath.Glob("testdata/parity/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases (%v)", err)
	}
	work, server := workplace(t, g, "parity-")
	if err := os.Chmod(work, 0o755); err != nil {
		t.Fatal(err)
	}
	stock := startStock(t, filepath.Join(work, "stock"))
	ours := &optbuild{bin: filepath.Join(g.Dir, "bin", "optbuild"), state: filepath.Join(work, "root.state")}
	user := userOptbuild(t, g, work)
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			c, err := newParityCase(file, filepath.Join(work, filepath.Base(file)), server.Addr)
			if err != nil {
				t.Fatal(err)
			}
			want := stock.build(t, c)
			expect := func(how string, o *optbuild, dir string) {
				t.Helper()
				got := o.build(t, c, dir)
				if diff := compareImages(want, got); diff != "" {
					t.Errorf("%s: the image is not stock BuildKit's:\n%s", how, diff)
				}
			}
			expect("as root", ours, c.dir)
			if user != nil && !c.rootOnly {
				expect("as an ordinary user", user, c.dir)
			}
			// Again, from the cache, from another directory, and with another umask of the process.
			other := c.dir + ".other"
			if out, err := exec.Command("cp", "-a", c.dir, other).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			strict := *ours
			strict.umask = "077"
			expect("from another directory under umask 077", &strict, other)
			fresh := strict
			fresh.noCache = true
			expect("without the cache under umask 077", &fresh, other)
		})
	}
}

// parityCase is a context with options for a build.
type parityCase struct {
	dir      string
	options  [][2]string // build-arg, target, label, platform, context, secret, allow, file, network
	rootOnly bool
}

func newParityCase(file, dir, registry string) (*parityCase, error) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		return nil, err
	}
	c := &parityCase{dir: strings.TrimSuffix(dir, ".txtar")}
	for line := range strings.Lines(string(a.Comment)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "root only:") {
			c.rootOnly = true
		}
		if o, ok := strings.CutPrefix(line, "opt: "); ok {
			k, v, _ := strings.Cut(o, " ")
			c.options = append(c.options, [2]string{k, v})
		}
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	if err := txtar.Write(a, c.dir); err != nil {
		return nil, err
	}
	if err := expandFiles(c.dir, registry); err != nil {
		return nil, err
	}
	// The harness may run under any umask; the context has the modes that a checkout has.
	setup := "find . -type d -exec chmod 755 {} +; find . -type f -exec chmod 644 {} +\n"
	if b, err := os.ReadFile(filepath.Join(c.dir, "setup.sh")); err == nil {
		setup += "rm setup.sh\n" + string(b)
	}
	sh := exec.Command("sh", "-euc", "umask 022\n"+setup)
	sh.Dir = c.dir
	if out, err := sh.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("set up %s: %w\n%s", file, err, out)
	}
	return c, nil
}

// stock is a running buildkitd.
type stock struct {
	addr    string
	process *os.Process
}

// needStock skips a test where there is no stock BuildKit.
func needStock(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skipped.skip(t, "not root, which stock buildkitd needs here")
	}
	for _, name := range []string{"STOCK_BUILDKITD", "STOCK_BUILDCTL"} {
		if os.Getenv(name) == "" {
			skipped.skip(t, name+" does not name a binary of stock BuildKit; make parity")
		}
	}
}

// workplace returns a directory for a test, and a server that ends with it.
func workplace(t *testing.T, g *ground, prefix string) (string, *server) {
	t.Helper()
	work, err := os.MkdirTemp(g.Dir, prefix)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(g, work)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return work, s
}

// startStock starts a buildkitd with more arguments, and waits until it serves. It ends with the test.
func startStock(t *testing.T, dir string, args ...string) *stock {
	t.Helper()
	return startStockIn(t, dir, 0, args...)
}

// startStockIn is the same in more namespaces of its own.
func startStockIn(t *testing.T, dir string, namespaces uintptr, args ...string) *stock {
	t.Helper()
	runc := os.Getenv("STOCK_RUNC")
	if runc == "" {
		var err error
		if runc, err = exec.LookPath("runc"); err != nil {
			skipped.skip(t, "no runc for stock buildkitd: set STOCK_RUNC")
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &stock{addr: "unix://" + filepath.Join(dir, "sock")}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Getenv("STOCK_BUILDKITD"), append([]string{"--root", filepath.Join(dir, "root"), "--addr", s.addr,
		"--config", "/dev/null", "--oci-worker=true", "--oci-worker-gc=false", "--oci-worker-binary", runc, "--containerd-worker=false",
		"--allow-insecure-entitlement", "security.insecure", "--allow-insecure-entitlement", "network.host"}, args...)...)
	c.Stdout, c.Stderr = log, log
	c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	// In a mount namespace of its own, so that nothing of it stays mounted.
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | namespaces, Unshareflags: syscall.CLONE_NEWNS}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s.process = c.Process
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		<-ended
		log.Close()
	})
	for {
		if exec.Command(os.Getenv("STOCK_BUILDCTL"), "--addr", s.addr, "debug", "workers").Run() == nil {
			return s
		}
		select {
		case <-ended:
			b, _ := os.ReadFile(log.Name())
			t.Fatalf("stock buildkitd ended:\n%s", b)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

const parityOutput = "type=oci,rewrite-timestamp=true,compression=uncompressed,dest="

func (s *stock) build(t *testing.T, c *parityCase) ociImage {
	t.Helper()
	dest := c.dir + ".stock.tar"
	args := []string{"--addr", s.addr, "build", "--progress=plain", "--frontend=dockerfile.v0", "--local", "context=" + c.dir,
		"--opt", "build-arg:SOURCE_DATE_EPOCH=1", "--output", parityOutput + dest}
	dockerfile := c.dir
	for _, o := range c.options {
		switch k, v := o[0], o[1]; k {
		case "build-arg", "label":
			args = append(args, "--opt", k+":"+v)
		case "context":
			name, dir, _ := strings.Cut(v, "=")
			args = append(args, "--opt", "context:"+name+"=local:"+name, "--local", name+"="+filepath.Join(c.dir, dir))
		case "secret":
			args = append(args, "--secret", strings.ReplaceAll(v, "$CONTEXT", c.dir))
		case "allow":
			args = append(args, "--allow", v)
		case "file":
			dockerfile = filepath.Join(c.dir, filepath.Dir(v))
			args = append(args, "--opt", "filename="+filepath.Base(v))
		case "network":
			args = append(args, "--opt", "force-network-mode="+v)
		default:
			args = append(args, "--opt", k+"="+v)
		}
	}
	args = append(args, "--local", "dockerfile="+dockerfile)
	if out, err := exec.CommandContext(t.Context(), os.Getenv("STOCK_BUILDCTL"), args...).CombinedOutput(); err != nil {
		t.Fatalf("stock BuildKit: %v\n%s", err, out)
	}
	return readOCI(t, dest)
}

// optbuild is the binary that is tested, and who runs it.
type optbuild struct {
	bin, state, umask string
	level             string // --optimize; "" is off
	noCache           bool
	as                []string // command that runs it as somebody else
}

func (o *optbuild) build(t *testing.T, c *parityCase, dir string) ociImage {
	t.Helper()
	level := o.level
	if level == "" {
		level = "off"
	}
	args := []string{"build", "--optimize=" + level, "--progress=plain", "-o", "type=oci,rewrite-timestamp=true,compression=uncompressed", dir}
	for _, opt := range c.options {
		switch k, v := opt[0], opt[1]; k {
		case "context":
			name, sub, _ := strings.Cut(v, "=")
			args = append(args, "--build-context", name+"="+filepath.Join(dir, sub))
		case "secret":
			args = append(args, "--secret", strings.ReplaceAll(v, "$CONTEXT", dir))
		case "file":
			args = append(args, "--file", filepath.Join(dir, v))
		default:
			args = append(args, "--"+k, v)
		}
	}
	if o.noCache {
		args = append(args, "--no-cache")
	}
	umask := o.umask
	if umask == "" {
		umask = "022"
	}
	run := append(o.as, "env", "SOURCE_DATE_EPOCH=1", "OPTBUILD_ROOT="+o.state, "sh", "-c", `umask $1; shift; exec "$@"`, "sh", umask, o.bin)
	cmd := exec.CommandContext(t.Context(), run[0], append(run[1:], args...)...)
	archive, err := os.Create(dir + ".optbuild.tar")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = archive, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("optbuild: %v\n%s", err, log.String())
	}
	return readOCI(t, archive.Name())
}

// userOptbuild is optbuild run by the harness's ordinary user; nil, with the reason reported, if that can't be.
func userOptbuild(t *testing.T, g *ground, work string) *optbuild {
	u, err := ensureUser()
	if err != nil {
		skipped.add(t.Name()+" as an ordinary user", err.Error())
		return nil
	}
	home := filepath.Join(work, "home")
	for _, dir := range []string{home, filepath.Join(work, "user.state")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("chown", u.Uid+":"+u.Gid, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return &optbuild{bin: filepath.Join(g.Dir, "bin", "optbuild"), state: filepath.Join(work, "user.state"),
		as: []string{"setpriv", "--reuid=" + u.Uid, "--regid=" + u.Gid, "--init-groups", "env", "-i", "HOME=" + home, "PATH=" + os.Getenv("PATH")}}
}

// compareImages returns what tells got from want; "" if nothing does.
func compareImages(want, got ociImage) string {
	var b strings.Builder
	if !bytes.Equal(want.index, got.index) {
		b.WriteString("index\n" + compareLines(strings.Split(string(want.index), "\n"), strings.Split(string(got.index), "\n")))
	}
	if !bytes.Equal(want.config, got.config) {
		b.WriteString("configuration\n" + compareLines(strings.Split(indent(want.config), "\n"), strings.Split(indent(got.config), "\n")))
	}
	if len(want.layers) != len(got.layers) {
		fmt.Fprintf(&b, "stock has %d layers, optbuild %d\n", len(want.layers), len(got.layers))
	}
	for i := range min(len(want.layers), len(got.layers)) {
		if want.digests[i] == got.digests[i] {
			continue
		}
		fmt.Fprintf(&b, "layer %d: stock %s, optbuild %s\n%s", i, want.digests[i], got.digests[i], compareLines(want.layers[i], got.layers[i]))
	}
	return b.String()
}

func indent(b []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") != nil {
		return string(b)
	}
	return out.String()
}

// compareLines prints the lines that only one of two listings has.
func compareLines(want, got []string) string {
	var b strings.Builder
	print := func(who string, lines, others []string) {
		has := map[string]bool{}
		for _, l := range others {
			has[l] = true
		}
		for _, l := range lines {
			if !has[l] {
				fmt.Fprintf(&b, "  only %s: %s\n", who, l)
			}
		}
	}
	print("stock", want, got)
	print("optbuild", got, want)
	if b.Len() == 0 {
		b.WriteString("  the same entries, in another order or compressed otherwise\n")
	}
	return b.String()
}
