package integration

import (
	"debug/elf"
	"os"
	"os/exec"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// go-compile ARCH FILE OUT: builds a static program for another architecture from one Go file, with this machine's toolchain and cache.
func goCompile(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "go-compile ARCH FILE OUT")
	c := exec.Command("go", "build", "-trimpath", "-o", ts.MkAbs(args[2]), ts.MkAbs(args[1]))
	c.Dir = ts.MkAbs(".") // of no module
	c.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+args[0], "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GO111MODULE=off")
	out, err := c.CombinedOutput()
	if err != nil {
		ts.Fatalf("%v: %s", err, out)
	}
}

// image-machine REF PATH ARCH: the file is an ELF file for the architecture.
func imageMachine(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "image-machine REF PATH ARCH")
	_, content, err := lookup(openImage(ts, args[0]), args[1])
	ts.Check(err)
	f, err := elf.NewFile(strings.NewReader(content))
	ts.Check(err)
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[args[2]]; f.Machine != want {
		ts.Fatalf("%s: %s is for %s, not for %s", args[0], args[1], f.Machine, args[2])
	}
}
