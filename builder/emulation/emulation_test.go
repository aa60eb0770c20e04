package emulation

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/util/archutil"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/optbuild/optbuild/builder/runtime/standin"
)

func TestMain(m *testing.M) {
	if IsMaker() {
		RunMaker()
	}
	os.Exit(m.Run())
}

func TestRegistration(t *testing.T) {
	for arch, want := range map[string]string{
		// As Debian's packages of qemu register them, but that they let the ABI of some systems count.
		"arm64":   `:optbuild-arm64:M:0:\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\xfe\xff\xff\xff:/q:POCF`,
		"s390x":   `:optbuild-s390x:M:0:\x7f\x45\x4c\x46\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16:\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xfe\xff\xff:/q:POCF`,
		"loong64": `:optbuild-loong64:M:0:\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x02\x01:\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\xfe\xff\xff\xff:/q:POCF`,
	} {
		if got := registration(arch, "/q", true); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", arch, got, want)
		}
	}
	if got := registration("arm", "/q", false); !strings.HasSuffix(got, ":/q:OCF") {
		t.Errorf("an old qemu is registered with %s", got)
	}
}

// foreign are programs of other architectures that end well, from BuildKit's own probes.
var foreign = map[string]string{
	"arm": archutil.Binaryarm, "arm64": archutil.Binaryarm64, "loong64": archutil.Binaryloong64, "mips64": archutil.Binarymips64, "mips64le": archutil.Binarymips64le,
	"ppc64": archutil.Binaryppc64, "ppc64le": archutil.Binaryppc64le, "riscv64": archutil.Binaryriscv64, "s390x": archutil.Binarys390x, "386": archutil.Binary386,
}

func program(t *testing.T, arch string) []byte {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(foreign[arch]))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMagic(t *testing.T) {
	for arch := range foreign {
		b := program(t, arch)
		for other, a := range architectures {
			magic, mask := a.magic()
			match := true
			for i := range magic {
				match = match && (b[i]^magic[i])&mask[i] == 0
			}
			if match != (other == arch) {
				t.Errorf("a program for %s matches %s: %v", arch, other, match)
			}
		}
		if got, err := ReadArchitecture(bytes.NewReader(b)); err != nil || got != arch {
			t.Errorf("a program for %s is taken for one for %q, %v", arch, got, err)
		}
	}
	for _, text := range []string{"", "#!/bin/sh\necho a script is no program\n", "\x7fELF"} {
		if got, err := ReadArchitecture(strings.NewReader(text)); err == nil {
			t.Errorf("%q is taken for a program for %q", text, got)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	static := filepath.Join(dir, "static")
	if err := os.WriteFile(static, program(t, "arm64"), 0o755); err != nil {
		t.Fatal(err)
	}
	paths := func(m map[string]string) func(string) (string, error) {
		return func(name string) (string, error) {
			if p, ok := m[name]; ok {
				return p, nil
			}
			return "", exec.ErrNotFound
		}
	}
	for _, names := range []string{"qemu-aarch64-static", "qemu-aarch64"} {
		if got, err := Find("arm64", paths(map[string]string{names: static})); err != nil || got != static {
			t.Errorf("%s: got %s, %v", names, got, err)
		}
	}
	for _, arch := range []string{"arm64", "vax"} {
		if _, err := Find(arch, paths(nil)); !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", arch, err)
		}
	}
	const dynamic = "/bin/ls"
	if err := checkStatic(dynamic); !errors.Is(err, ErrNotStatic) {
		t.Skipf("%s is static here: %v", dynamic, err)
	}
	if got, err := Find("arm64", paths(map[string]string{"qemu-aarch64-static": dynamic, "qemu-aarch64": static})); err != nil || got != static {
		t.Errorf("after one that is not static: got %s, %v", got, err)
	}
	if _, err := Find("arm64", paths(map[string]string{"qemu-aarch64": dynamic})); !errors.Is(err, ErrNotStatic) {
		t.Errorf("got %v, want ErrNotStatic", err)
	}
}

func TestInstalled(t *testing.T) {
	static := filepath.Join(t.TempDir(), "static")
	if err := os.WriteFile(static, program(t, "arm64"), 0o755); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range installed(func(name string) (string, error) {
		if slices.Contains([]string{"qemu-arm-static", "qemu-riscv64", "qemu-" + Qemu(runtime.GOARCH) + "-static"}, name) {
			return static, nil
		}
		return "", exec.ErrNotFound
	}) {
		got = append(got, platforms.FormatAll(p))
	}
	if want := []string{"linux/arm/v7", "linux/riscv64"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMissing(t *testing.T) {
	e := New()
	defer e.Close()
	e.lookPath = func(string) (string, error) { return "", exec.ErrNotFound }
	var missing *MissingError
	if err := e.Prepare("arm64", "linux/arm64"); !errors.As(err, &missing) {
		t.Fatalf("got %v, want a MissingError", err)
	}
	message, hint := Explain("failed to solve: process did not start: " + missing.Error())
	if want := "this machine can't run programs for linux/arm64 as it is"; message != want {
		t.Errorf("message %q, want %q", message, want)
	}
	if want := "as root: " + Install + " (`optbuild doctor` says what is there)"; hint != want {
		t.Errorf("hint %q, want %q", hint, want)
	}
	message, hint = Explain((&MissingError{"linux/arm64", ErrKernel}).Error())
	if want := "this machine can't run programs for linux/arm64: " + ErrKernel.Error(); message != want {
		t.Errorf("message %q, want %q", message, want)
	}
	if !strings.Contains(hint, Register) {
		t.Errorf("hint %q lacks how to register", hint)
	}
	if message, _ := Explain("exit code 1"); message != "" {
		t.Errorf("another error is explained as %q", message)
	}
}

// TestNamespace runs a program in the namespace, and outside of it, where it must not run.
func TestNamespace(t *testing.T) {
	const arch = "riscv64"
	if _, err := Find(arch, exec.LookPath); err != nil {
		t.Skipf("no emulator: %v", err)
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		t.Skip("nsenter is not here")
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, program(t, arch), 0o755); err != nil {
		t.Fatal(err)
	}
	if exec.Command(path).Run() == nil {
		t.Skipf("this machine runs programs for %s by itself", arch)
	}
	e := New()
	defer e.Close()
	for range 2 { // the second has nothing to do
		if err := e.Prepare(arch, "linux/"+arch); err != nil {
			t.Skipf("no namespace can be made here: %v", err)
		}
	}
	if out, err := exec.Command("nsenter", "--user="+e.Namespace(), path).CombinedOutput(); err != nil {
		t.Errorf("inside: %v: %s", err, out)
	}
	if exec.Command(path).Run() == nil {
		t.Error("what was registered counts outside of the namespace")
	}
	e.Close()
	if e.Namespace() != "" {
		t.Error("a closed emulator has a namespace")
	}
}

func TestRuntime(t *testing.T) {
	dir := t.TempDir()
	bundle := filepath.Join(dir, "bundle")
	if err := os.Mkdir(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	before := specs.Spec{
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
		},
	}
	b, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(bundle, "config.json")
	if err := os.WriteFile(config, b, 0o600); err != nil {
		t.Fatal(err)
	}
	name, err := Runtime(filepath.Join(dir, "emulated"), "/opt/runc", "/proc/7/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(filepath.Join(filepath.Dir(name), realName)); err != nil || got != "/opt/runc" {
		t.Errorf("the real runtime is %s, %v", got, err)
	}
	file := filepath.Join(filepath.Dir(name), namespaceName)
	if err := standin.FixBundle([]string{"--log", "x", "kill", "id"}, joinNamespace(file)); err != nil { // no bundle: nothing to do
		t.Error(err)
	}
	if err := standin.FixBundle([]string{"run", "--bundle", bundle, "id"}, joinNamespace(file)); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(config); err != nil {
		t.Fatal(err)
	}
	var after specs.Spec
	if err := json.Unmarshal(b, &after); err != nil {
		t.Fatal(err)
	}
	before.Linux.Namespaces = append(before.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/7/ns/user"})
	before.Mounts[1] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "rro"}}
	want, _ := json.Marshal(before)
	got, _ := json.Marshal(after)
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
