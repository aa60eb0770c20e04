package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// frontendCase is a Dockerfile in which the optimiser does something that shows in the image: two RUNs become one layer.
const frontendCase = `
-- Dockerfile --
FROM $REGISTRY/busybox AS unused
RUN false
FROM $REGISTRY/busybox
ARG OWNER=nobody
RUN mkdir /app
RUN touch /app/file
COPY --chown=$OWNER file /app/other
-- file --
content
`

// TestFrontendImage builds the image of cmd/optbuild-frontend as `make frontend-image` does, and wants of `# syntax=` with it, under optbuild's engine and, where
// there is one to compare with, under stock BuildKit, the image that optbuild makes with its built-in frontend: the configuration byte for byte, and
// each layer with the same digest.
func TestFrontendImage(t *testing.T) {
	g := prepare(t)
	work, server := workplace(t, g, "frontend-")
	ours := &optbuild{bin: filepath.Join(g.Dir, "bin", "optbuild"), state: filepath.Join(work, "state"), level: "safe"}
	image := server.Addr + "/optbuild-frontend:test"
	pushFrontend(t, ours, filepath.Join(work, "programs"), image)

	// Two contexts that differ in the first line of the Dockerfile only.
	newCase := func(name, head string, options ...[2]string) *parityCase {
		file := filepath.Join(work, name+".txtar")
		if err := os.WriteFile(file, []byte(strings.Replace(frontendCase, "FROM", head+"FROM", 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := newParityCase(file, filepath.Join(work, name), server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c.options = options
		return c
	}
	builtin := newCase("builtin", "")
	want := ours.build(t, builtin, builtin.dir)
	unoptimised := *ours
	unoptimised.level = "off"
	plain := unoptimised.build(t, builtin, builtin.dir)
	if len(want.layers) >= len(plain.layers) {
		t.Fatalf("the optimiser made %d layers of %d: this test shows nothing", len(want.layers), len(plain.layers))
	}

	syntax := newCase("syntax", "# syntax="+image+"\n")
	off := newCase("off", "# syntax="+image+"\n", [2]string{"build-arg", "OPTBUILD_OPTIMIZE=off"})
	expect := func(how string, want, got ociImage) {
		t.Helper()
		if diff := compareImages(want, got); diff != "" {
			t.Errorf("%s: the image is not what the built-in frontend makes:\n%s", how, diff)
		}
	}
	expect("optbuild", want, ours.build(t, syntax, syntax.dir))
	expect("optbuild, switched off", plain, unoptimised.build(t, syntax, syntax.dir))
	if os.Getenv("STOCK_BUILDKITD") == "" || os.Getenv("STOCK_BUILDCTL") == "" || os.Geteuid() != 0 {
		skipped.add(t.Name()+" under stock BuildKit", "STOCK_BUILDKITD and STOCK_BUILDCTL do not name one, or not root; make parity")
		return
	}
	stock := startStock(t, filepath.Join(work, "stock"))
	expect("stock BuildKit", want, stock.build(t, syntax))
	expect("stock BuildKit, switched off", plain, stock.build(t, off))
}

// pushFrontend builds the frontend's image for this machine's platform.
func pushFrontend(t *testing.T, o *optbuild, dir, image string) {
	t.Helper()
	run := func(c *exec.Cmd) {
		t.Helper()
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c.Args, err, out)
		}
	}
	compile := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "linux", runtime.GOARCH)+"/", "../cmd/optbuild-frontend")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(compile)
	build := exec.CommandContext(t.Context(), o.bin, "build", "-f", "../cmd/optbuild-frontend/Dockerfile", "-t", image, "--push", dir)
	build.Env = append(os.Environ(), "OPTBUILD_ROOT="+o.state)
	run(build)
}
