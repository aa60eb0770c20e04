package engine

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// program is what an ELF file of 64 bits begins with.
func program(machine elf.Machine) []byte {
	b := make([]byte, 64)
	copy(b, elf.ELFMAG)
	b[elf.EI_CLASS], b[elf.EI_DATA], b[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	binary.LittleEndian.PutUint16(b[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(b[18:], uint16(machine))
	return b
}

func TestFindForeign(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []struct {
		path    string
		content []byte
		mode    os.FileMode
	}{
		{"app/server", program(elf.EM_X86_64), 0o755},
		{"app/own", program(elf.EM_AARCH64), 0o755},
		{"app/library", program(elf.EM_X86_64), 0o644},
		{"app/script", []byte("#!/bin/sh\nexit 0 # longer than a header\n"), 0o755},
		{"app/short", []byte(elf.ELFMAG), 0o755},
		{"node_modules/@esbuild/linux-x64/bin/esbuild", program(elf.EM_X86_64), 0o755},
		{"tool", program(elf.EM_RISCV), 0o711},
	} {
		path := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.content, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("server", filepath.Join(dir, "app/link")); err != nil {
		t.Fatal(err)
	}
	for arch, want := range map[string]string{
		"arm64": "[{/app/server amd64} {/tool riscv64}]",
		"amd64": "[{/app/own arm64} {/tool riscv64}]",
	} {
		var l executables
		left := mostEntries
		if err := l.find(t.Context(), dir, arch, &left); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(l); got != want {
			t.Errorf("%s: got %s, want %s", arch, got, want)
		}
		l, left = nil, 3
		if err := l.find(t.Context(), dir, arch, &left); err != nil || len(l) > 1 || left >= 0 {
			t.Errorf("%s: got %v with 3 entries, %v", arch, l, err)
		}
	}
}

func TestSaysSo(t *testing.T) {
	for path, want := range map[string]bool{
		"/usr/bin/qemu-x86_64-static": true, "/lib/ld-linux-x86-64.so.2": true, "/n/@esbuild/linux-x64/bin/esbuild": true, "/a/tool_amd64": true, "/AMD64/x": true,
		"/app": false, "/opt/arm64/x": false, "/a/max64": false,
	} {
		if got := saysSo(path, "amd64"); got != want {
			t.Errorf("%s: got %v", path, got)
		}
	}
	if saysSo("/usr/bin/alarm", "arm") || !saysSo("/lib/arm-linux-gnueabihf/x", "arm") || !saysSo("/usr/s390x/x", "s390x") {
		t.Error("arm, s390x")
	}
}

func TestMadeBy(t *testing.T) {
	var img dockerspec.DockerOCIImage
	for _, by := range []string{"/bin/sh -c #(nop) ADD file:1 in / ", "CMD [\"sh\"]", "RUN /bin/sh -c make # buildkit", "COPY a b # buildkit"} {
		img.History = append(img.History, ocispecs.History{CreatedBy: by, EmptyLayer: by[:3] == "CMD"})
	}
	if got, want := fmt.Sprintf("%q", madeBy(img)), `["/bin/sh -c #(nop) ADD file:1 in / " "RUN make" "COPY a b"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
