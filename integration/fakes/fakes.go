// Package fakes makes base images for thousands of builds that need no network and no time: busybox with installers that are
// shell scripts (below tools), under the names and with the configuration of official images.
//
// An installer of fakes reads, writes and leaves behind what the real one does: apt-get fails without lists, uses archives that
// are there and obeys docker-clean; npm runs lifecycle scripts; go embeds GOARCH. What it does is a function of what it reads, so
// two builds that mean the same give the same files; a cache makes a difference only where it is misused. An image for another
// architecture runs the same programs (its shell is this machine's), and only /etc/fake-arch, which compilers read, tells it.
package fakes

import (
	"archive/tar"
	"bytes"
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/optbuild/optbuild/integration/bases"
)

//go:embed tools
var tools embed.FS

// Image is a base image.
type Image struct {
	// Name is that in a Dockerfile: "node:20".
	Name   string
	Config v1.Config
	// Files are what it has besides busybox and tools: content by absolute path. A path that ends with "/" is a directory, its
	// content the number of its owner; one that ends with "*" is a program, with "@" a symbolic link.
	Files map[string]string
}

// Repository is where a registry that stands in for the image's own has it.
func (i Image) Repository() string {
	n := strings.TrimPrefix(i.Name, "mcr.microsoft.com/")
	if !strings.Contains(n, "/") {
		return "library/" + n
	}
	return n
}

// Architectures are what each image is there for.
var Architectures = []string{"amd64", "arm64"}

// Push puts all images into a registry on loopback.
func Push(ctx context.Context, registry string, busybox bases.Base) error {
	base, err := busybox.Image()
	if err != nil {
		return err
	}
	below, err := base.Layers()
	if err != nil {
		return err
	}
	shared, err := toolsLayer()
	if err != nil {
		return err
	}
	below = append(below, shared)
	machines := map[string]v1.Layer{}
	for _, arch := range Architectures {
		if machines[arch], err = layer(map[string]string{"/etc/fake-arch": arch + "\n"}); err != nil {
			return err
		}
	}
	for _, i := range Images {
		own, err := layer(i.Files)
		if err != nil {
			return err
		}
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for _, arch := range Architectures {
			img, err := i.image(arch, append(slices.Clone(below), machines[arch], own))
			if err != nil {
				return fmt.Errorf("make %s: %w", i.Name, err)
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img,
				Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
		}
		ref, err := name.ParseReference(registry+"/"+i.Repository(), name.Insecure)
		if err != nil {
			return err
		}
		if err := remote.WriteIndex(ref.(name.Tag), index, remote.WithContext(ctx)); err != nil {
			return fmt.Errorf("push %s: %w", i.Name, err)
		}
	}
	return nil
}

func (i Image) image(arch string, layers []v1.Layer) (v1.Image, error) {
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		return nil, err
	}
	f, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Config = "linux", arch, i.Config
	if !slices.ContainsFunc(f.Config.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		f.Config.Env = append([]string{path}, f.Config.Env...)
	}
	return mutate.ConfigFile(img, f)
}

const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// aliases are other names of tools.
var aliases = map[string]string{
	"apt": "apt-get", "yum": "dnf", "microdnf": "dnf", "pip3": "pip", "python3": "python", "adduser": "useradd", "groupadd": "useradd",
	"addgroup": "useradd", "cc": "gcc", "bash": "/bin/sh", "mvnw": "mvn", "npx": "node",
}

func toolsLayer() (v1.Layer, error) {
	files := map[string]string{
		"/etc/apt/apt.conf.d/": "", "/etc/apt/sources.list": "deb http://deb.debian.org/debian stable main\n",
		"/var/lib/apt/lists/": "", "/var/cache/apt/archives/partial/": "", "/var/lib/dpkg/": "", "/var/log/": "",
		"/etc/apk/repositories": "https://dl-cdn.alpinelinux.org/alpine/v3.20/main\n", "/lib/apk/db/": "", "/var/cache/apk/": "", "/etc/apk/world": "",
		"/etc/dnf/dnf.conf": "[main]\n", "/etc/yum.repos.d/fedora.repo": "[fedora]\n",
	}
	err := fs.WalkDir(tools, "tools", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := tools.ReadFile(p)
		if err != nil {
			return err
		}
		if d.Name() == "lib" {
			files["/usr/lib/fake/lib"] = string(b)
		} else {
			files["/usr/bin/"+d.Name()+"*"] = string(b)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for from, to := range aliases {
		files["/usr/bin/"+from+"@"] = to
	}
	return layer(files)
}

// layer makes a layer of files, as Image.Files has them.
func layer(files map[string]string) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	made := map[string]bool{}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		parts := strings.Split(strings.Trim(p, "/"), "/")
		for n := 1; n < len(parts); n++ {
			dir := strings.Join(parts[:n], "/") + "/"
			// What busybox's image has keeps its mode.
			if n == 1 && dir != "lib/" && dir != "srv/" && dir != "data/" && dir != "go/" || made[dir] {
				continue
			}
			made[dir] = true
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
				return nil, err
			}
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimLeft(p, "/"), Mode: 0o644, ModTime: time.Unix(0, 0)}
		content := files[p]
		switch p[len(p)-1] {
		case '/':
			if made[h.Name] {
				continue
			}
			made[h.Name] = true
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			if content != "" {
				owner, err := strconv.Atoi(content)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", p, err)
				}
				h.Uid, h.Gid, content = owner, owner, ""
			}
		case '*':
			h.Name, h.Mode = h.Name[:len(h.Name)-1], 0o755
		case '@':
			h.Typeflag, h.Name, h.Linkname, h.Mode, content = tar.TypeSymlink, h.Name[:len(h.Name)-1], content, 0o777, ""
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(b.Bytes(), types.OCIUncompressedLayer), nil
}
