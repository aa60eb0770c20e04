package main

import (
	"archive/tar"
	"bytes"
	"io"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	v1tar "github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/optbuild/optbuild/integration/bases"
)

// aptSettings are what Debian's official image has of apt's settings, and mmdebstrap's has not: packages are removed after they were installed, and
// optbuild knows the files by name.
var aptSettings = []struct{ name, text string }{
	{"docker-autoremove-suggests", "Apt::AutoRemove::SuggestsImportant \"false\";\n"},
	{"docker-clean", "DPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true\"; };\n" +
		"APT::Update::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true\"; };\n" +
		"Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n"},
	{"docker-gzip-indexes", "Acquire::GzipIndexes \"true\";\n"},
	{"docker-no-languages", "Acquire::Languages \"none\";\n"},
}

// official makes an image that stands in for Debian's official one of one that stands for nothing.
func (b *bench) official(plain bases.Base, name string) (bases.Base, error) {
	img, err := plain.Image()
	if err != nil {
		return bases.Base{}, err
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for _, s := range aptSettings {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/apt/apt.conf.d/" + s.name, Mode: 0o644, Size: int64(len(s.text))}); err != nil {
			return bases.Base{}, err
		}
		if _, err := io.WriteString(w, s.text); err != nil {
			return bases.Base{}, err
		}
	}
	if err := w.Close(); err != nil {
		return bases.Base{}, err
	}
	layer, err := v1tar.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	if err != nil {
		return bases.Base{}, err
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return bases.Base{}, err
	}
	base := bases.Base{Name: name, Dir: filepath.Join(b.Dir, "official")}
	p, err := layout.Write(base.Dir, empty.Index)
	if err != nil {
		return bases.Base{}, err
	}
	return base, p.AppendImage(img)
}
