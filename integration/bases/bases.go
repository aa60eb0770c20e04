// Package bases makes the base images that the tests and the demo build on, from this machine's own apt sources: no
// registry is asked for anything.
//
// What comes in is a cache directory; what goes out is a [Base], an OCI layout below it, made once and kept.
package bases

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// A recipe's version is raised when it changes, so that what an older one made is not used.
const version = "1"

// Base is a base image on disk.
type Base struct {
	// Name is what the image is called in test registries: "busybox", "debian".
	Name string
	// Dir is an OCI layout that holds this image only.
	Dir string
}

// CacheDir is where images are kept between runs: optbuild-test below the user's cache directory.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return filepath.Join(dir, "optbuild-test"), nil
}

// Busybox makes a one-layer image of Debian's static busybox, with a link for each applet.
func Busybox(ctx context.Context, cache string) (Base, error) {
	return makeOnce(ctx, cache, "busybox", "", busyboxTar, v1.Config{Cmd: []string{"sh"}})
}

// BusyboxFor makes the same image of a foreign architecture, as Debian calls it: for tests of emulation. It runs nothing of it. Its name ends with the architecture.
func BusyboxFor(ctx context.Context, cache, arch string) (Base, error) {
	recipe := func(ctx context.Context, tmp, tar string) error { return foreignBusyboxTar(ctx, tmp, tar, arch) }
	return makeOnce(ctx, cache, "busybox-"+arch, arch, recipe, v1.Config{Cmd: []string{"sh"}})
}

// ToolsFor makes an image with Debian's C compiler and dpkg for a foreign architecture, as Debian calls it. It runs nothing of it. Some 270 MB; a minute or two.
func ToolsFor(ctx context.Context, cache, arch string) (Base, error) {
	recipe := func(ctx context.Context, tmp, tar string) error { return foreignToolsTar(ctx, tmp, tar, arch) }
	return makeOnce(ctx, cache, "tools-"+arch, arch, recipe, v1.Config{Cmd: []string{"sh"}})
}

// toolchains are languages, with the packages of Debian that have their tools.
var toolchains = map[string]string{"python": "python3-pip", "golang": "golang-go", "rust": "cargo"}

// Toolchains are the names that Toolchain knows.
func Toolchains() []string { return slices.Sorted(maps.Keys(toolchains)) }

// Toolchain makes an image of this machine's release with a language's tools. 60 to 250 MB; a minute or two.
func Toolchain(ctx context.Context, cache, name string) (Base, error) {
	recipe := func(ctx context.Context, tmp, tar string) error {
		return mmdebstrap(ctx, tmp, tar, "--variant=minbase", "--include=ca-certificates,"+toolchains[name], "--customize-hook=upload "+caBundle+" "+caBundle)
	}
	return makeOnce(ctx, cache, name, "", recipe, v1.Config{Cmd: []string{"bash"}})
}

// Made reports whether a base image is in the cache.
func Made(cache, name string) bool {
	_, err := os.Stat(filepath.Join(cache, name+"-"+version))
	return err == nil
}

// Debian makes an image of this machine's release of Debian or Ubuntu, in which apt works. It carries the machine's
// certificates, so that its steps trust what the machine trusts.
func Debian(ctx context.Context, cache string) (Base, error) {
	return makeOnce(ctx, cache, "debian", "", debianTar, v1.Config{
		Cmd: []string{"bash"},
		Env: []string{"SSL_CERT_FILE=" + caBundle, "NODE_EXTRA_CA_CERTS=" + caBundle},
	})
}

const (
	caBundle = "/etc/ssl/certs/ca-certificates.crt"
	path     = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// makeOnce returns the image from the cache, or makes it with the recipe, which writes the root file system as a tar file. arch is Debian's name; "" is this machine's.
func makeOnce(ctx context.Context, cache, name, arch string, recipe func(ctx context.Context, tmp, tar string) error, c v1.Config) (Base, error) {
	base := Base{Name: name, Dir: filepath.Join(cache, name+"-"+version)}
	if _, err := os.Stat(base.Dir); err == nil {
		return base, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Base{}, err
	}
	tmp, err := os.MkdirTemp(cache, ".making-")
	if err != nil {
		return Base{}, err
	}
	defer os.RemoveAll(tmp)
	tar := filepath.Join(tmp, "rootfs.tar")
	if err := recipe(ctx, tmp, tar); err != nil {
		return Base{}, fmt.Errorf("make the %s base image: %w", name, err)
	}
	dir := filepath.Join(tmp, "layout")
	if err := writeLayout(dir, tar, arch, c); err != nil {
		return Base{}, fmt.Errorf("make the %s base image: %w", name, err)
	}
	// Somebody else may have been faster; theirs is as good.
	if err := os.Rename(dir, base.Dir); err != nil && !os.IsExist(err) {
		return Base{}, err
	}
	return base, nil
}

func writeLayout(dir, tar, arch string, c v1.Config) (err error) {
	if arch == "" {
		if arch, err = output(exec.Command("dpkg", "--print-architecture")); err != nil {
			return err
		}
	}
	layer, err := tarball.LayerFromFile(tar)
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	f, err := img.ConfigFile()
	if err != nil {
		return err
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Config = "linux", architecture(arch), c
	f.Config.Env = append([]string{path}, f.Config.Env...)
	if img, err = mutate.ConfigFile(img, f); err != nil {
		return err
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return p.AppendImage(img)
}

// architecture is Go's and OCI's name of a Debian architecture.
func architecture(debian string) string {
	switch debian {
	case "i386":
		return "386"
	case "armhf", "armel":
		return "arm"
	case "ppc64el":
		return "ppc64le"
	}
	return debian
}

// Image opens the image.
func (b Base) Image() (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(b.Dir)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(m.Manifests) != 1 {
		return nil, fmt.Errorf("%s holds %d images, want 1", b.Dir, len(m.Manifests))
	}
	return index.Image(m.Manifests[0].Digest)
}

// Push puts the image into a registry on loopback.
func (b Base) Push(ctx context.Context, registry string) error {
	img, err := b.Image()
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(registry+"/"+b.Name, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, remote.WithContext(ctx))
}

// output runs a command and returns what it prints, or an error with what it complained about.
func output(c *exec.Cmd) (string, error) {
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
