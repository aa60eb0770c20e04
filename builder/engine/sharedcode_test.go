package engine

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// archiveOf is an ar archive with one member behind its table of symbols.
func archiveOf(content []byte) []byte {
	b := []byte("!<arch>\n")
	for _, m := range []struct {
		name    string
		content []byte
	}{{"/", []byte("odd")}, {"a.o/", content}} {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o644, len(m.content))
		b = append(b, m.content...)
		if len(m.content)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

func TestCodeOf(t *testing.T) {
	for name, f := range map[string]struct {
		content []byte
		want    string
	}{
		"program":       {program(elf.EM_X86_64), "amd64"},
		"other":         {program(elf.EM_AARCH64), "arm64"},
		"unknown":       {program(elf.EM_AVR), ""},
		"cut off":       {program(elf.EM_X86_64)[:10], ""},
		"short":         {[]byte("\x7fELF"), ""},
		"text":          {[]byte("#!/bin/sh\nexit 0\n"), ""},
		"archive":       {archiveOf(program(elf.EM_X86_64)), "amd64"},
		"texts":         {archiveOf([]byte("nothing that a machine could run")), ""},
		"empty archive": {[]byte("!<arch>\n"), ""},
		"wrong size":    {[]byte("!<arch>\n" + fmt.Sprintf("%-48s%-10s`\n", "a.o/", "-60")), ""},
		"wasm":          {[]byte("\x00asm\x01\x00\x00\x00 and what is in it"), ""},
	} {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, f.content, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := codeOf(file); err != nil || got != f.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, f.want)
		}
	}
}

// TestCodeFor: whatever a file's mode, and only what is still in the image; of packages with code for several machines what is beside is enough.
func TestCodeFor(t *testing.T) {
	layer, image := t.TempDir(), t.TempDir()
	write := func(dir, name string, content []byte) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	amd64, arm64 := program(elf.EM_X86_64), program(elf.EM_AARCH64)
	for _, dir := range []string{layer, image} {
		write(dir, "app/addon.node", amd64)
		write(dir, "app/lib.a", archiveOf(amd64))
		write(dir, "app/own", arm64)
		write(dir, "app/prebuilds/linux-x64/node.node", amd64)
		write(dir, "app/prebuilds/linux-arm64/node.node", arm64)
		write(dir, "app/@esbuild/linux-x64/bin/esbuild", amd64)
		write(dir, "app/@other/linux-x64/bin/other", amd64)
		write(dir, "app/@other/linux-arm64/bin/other", amd64) // which it says, and is not
	}
	write(layer, "app/removed", amd64)
	write(layer, "app/replaced", amd64)
	write(image, "app/replaced", arm64)
	found, more, err := codeFor(t.Context(), layer, image, "amd64", "arm64")
	if got, want := fmt.Sprint(found, more, err), "[/app/@esbuild/linux-x64/bin/esbuild /app/@other/linux-arm64/bin/other /app/@other/linux-x64/bin/other] 2 <nil>"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if found, more, err := codeFor(t.Context(), layer, image, "riscv64", "arm64"); len(found) > 0 || more > 0 || err != nil {
		t.Errorf("for riscv64: %v, %d, %v", found, more, err)
	}
}
