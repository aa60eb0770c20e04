package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/optbuild/optbuild/integration/bases"
)

// skipped is why a case can't be measured on this machine.
type skipped string

func (s skipped) Error() string { return string(s) }

// A version is raised when a Dockerfile below changes, so that images made from an older one are not used.
const toolchainVersion = "1"

// toolchain is a base image with tools: Debian's, and what this machine has. It is made once, by optbuild, and kept in the cache directory.
type toolchain struct {
	name       string // of the official image that it stands in for
	tag        string
	dockerfile string // REGISTRY stands for the registry
	// contexts finds the directories that the Dockerfile copies from, by name.
	contexts func() (map[string]string, error)
}

var node = toolchain{
	name: "node", tag: "20",
	dockerfile: `FROM REGISTRY/debian
COPY --from=bin node /usr/local/bin/node
COPY --from=modules npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && npm --version
`,
	contexts: func() (map[string]string, error) {
		program, err := exec.LookPath("node")
		if err != nil {
			return nil, skipped("there is no node on this machine to make a base image with")
		}
		modules, err := output("npm", "root", "-g")
		if err != nil {
			return nil, skipped("there is no npm on this machine to make a base image with")
		}
		if _, err := os.Stat(filepath.Join(modules, "npm", "bin", "npm-cli.js")); err != nil {
			return nil, skipped("npm is not among node's global modules: " + err.Error())
		}
		if program, err = filepath.EvalSymlinks(program); err != nil {
			return nil, err
		}
		return map[string]string{"bin": filepath.Dir(program), "modules": modules}, nil
	},
}

var golang = toolchain{
	name: "golang", tag: "1.26",
	dockerfile: `FROM REGISTRY/debian
COPY --from=go VERSION go.env /usr/local/go/
COPY --from=go bin/go /usr/local/go/bin/go
COPY --from=go pkg /usr/local/go/pkg
COPY --from=go src /usr/local/go/src
ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin GOPATH=/go GOTOOLCHAIN=local CGO_ENABLED=0
`,
	contexts: func() (map[string]string, error) {
		root, err := output("go", "env", "GOROOT")
		if err != nil {
			return nil, skipped("there is no go on this machine to make a base image with")
		}
		return map[string]string{"go": root}, nil
	},
}

var gcc = toolchain{
	name: "gcc", tag: "12",
	dockerfile: `FROM REGISTRY/debian
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
`,
}

var python = toolchain{
	name: "python", tag: "3",
	// The official image's pip installs where Debian's refuses to.
	dockerfile: `FROM REGISTRY/debian
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-pip && rm -rf /var/lib/apt/lists/* /usr/lib/python3.*/EXTERNALLY-MANAGED
`,
}

// maven has what Debian has of Maven's plugins in place of a repository, and asks no other.
var maven = toolchain{
	name: "maven", tag: "3",
	dockerfile: `FROM REGISTRY/debian
RUN apt-get update && apt-get install -y --no-install-recommends maven default-jdk-headless libmaven-resources-plugin-java libmaven-compiler-plugin-java \
      libsurefire-java libmaven-jar-plugin-java && rm -rf /var/lib/apt/lists/*
RUN echo '<settings><localRepository>/usr/share/maven-repo</localRepository><offline>true</offline></settings>' > /etc/maven/settings.xml
`,
}

// image is its name in Dockerfiles.
func (t toolchain) image() string { return t.name + ":" + t.tag }

// push brings the image into the registry and returns its name in Dockerfiles.
func (t toolchain) push(ctx context.Context, b *bench) (string, error) {
	image := t.image()
	if b.pushed[t.name] {
		return image, nil
	}
	cache, err := bases.CacheDir()
	if err != nil {
		return "", err
	}
	base := bases.Base{Name: "library/" + image, Dir: filepath.Join(cache, "bench-"+t.name+"-"+toolchainVersion)}
	if _, err := os.Stat(base.Dir); errors.Is(err, os.ErrNotExist) {
		if err := t.make(b, base.Dir); err != nil {
			return "", err
		}
	}
	if err := b.offer(ctx, base); err != nil {
		return "", err
	}
	b.pushed[t.name] = true
	return image, nil
}

func (t toolchain) make(b *bench, dir string) error {
	fmt.Fprintf(os.Stderr, "  making the base image %s (once; it is kept in the cache directory) …\n", t.name)
	context, err := os.MkdirTemp(b.Dir, "context-")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte(strings.ReplaceAll(t.dockerfile, "REGISTRY", b.registry)), 0o644); err != nil {
		return err
	}
	args := []string{"build", "--optimize=off", "-o", "type=oci,tar=false,dest=" + dir}
	if t.contexts != nil {
		from, err := t.contexts()
		if err != nil {
			return err
		}
		for name, where := range from {
			args = append(args, "--build-context", name+"="+where)
		}
	}
	if err := execute(b.optbuildAs("", filepath.Join(b.Dir, "bases"), append(args, context)...)); err != nil {
		return skipped(fmt.Sprintf("its base image can't be made: %v", err))
	}
	return nil
}

// output returns what a command prints.
func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(failed.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}
