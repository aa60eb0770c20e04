package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Wheels for pip are made of Debian's packages of Python libraries, and served as an index on loopback.

// library is a Python library that Debian has.
type library struct {
	name     string // in the index, in the normal form: small letters, hyphens
	pkg      string // Debian's package
	requires []string
}

var flask = []library{
	{"flask", "python3-flask", []string{"werkzeug", "jinja2", "itsdangerous", "click"}},
	{"werkzeug", "python3-werkzeug", []string{"markupsafe"}},
	{"jinja2", "python3-jinja2", []string{"markupsafe"}},
	{"markupsafe", "python3-markupsafe", nil},
	{"itsdangerous", "python3-itsdangerous", nil},
	{"click", "python3-click", nil},
	{"pygments", "python3-pygments", nil},
	{"sqlalchemy", "python3-sqlalchemy", nil},
}

// serveWheels serves an index of libraries and returns its address.
func (b *bench) serveWheels(libraries []library) (string, error) {
	content := served{}
	for _, l := range libraries {
		files, version, err := l.unpack(filepath.Join(b.Dir, b.next("wheel-")))
		if err != nil {
			return "", err
		}
		file, wheel, err := l.wheel(files, version)
		if err != nil {
			return "", err
		}
		content["/wheels/"+file] = wheel
		content["/simple/"+l.name+"/"] = fmt.Appendf(nil, "<!DOCTYPE html>\n<html><body><a href=\"/wheels/%s#sha256=%x\">%[1]s</a></body></html>\n",
			file, sha256.Sum256(wheel))
	}
	address, err := b.serve(content)
	return address + "/simple/", err
}

// unpack returns the files that Debian's package installs for Python, and the library's version.
func (l library) unpack(dir string) (files map[string][]byte, version string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	download := exec.Command("apt-get", "download", "-q", l.pkg)
	download.Dir = dir
	if err := execute(download); err != nil {
		return nil, "", skipped(fmt.Sprintf("its wheels can't be made: %v", err))
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 1 {
		return nil, "", fmt.Errorf("apt-get download %s left %q", l.pkg, found)
	}
	if err := execute(exec.Command("dpkg-deb", "-x", found[0], dir)); err != nil {
		return nil, "", err
	}
	root := filepath.Join(dir, "usr/lib/python3/dist-packages")
	files = map[string][]byte{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	for name := range files {
		if dir, _, ok := strings.Cut(name, ".egg-info/"); ok {
			_, version, _ = strings.Cut(dir, "-")
			return files, version, nil
		}
	}
	return nil, "", fmt.Errorf("%s does not say which version it has", l.pkg)
}

var extension = regexp.MustCompile(`\.cpython-(\d+)-(\w+)-linux-gnu\.so$`)

// wheel packs a library, with what setuptools wrote about it turned into what pip wants to know.
func (l library) wheel(files map[string][]byte, version string) (file string, wheel []byte, err error) {
	tag, name := "py3-none-any", strings.ReplaceAll(l.name, "-", "_")+"-"+version
	about := name + ".dist-info/"
	content := map[string][]byte{}
	for path, text := range files {
		if m := extension.FindStringSubmatch(path); m != nil {
			tag = fmt.Sprintf("cp%s-cp%[1]s-linux_%s", m[1], m[2])
		}
		switch dir, base := filepath.Split(path); {
		case base == "entry_points.txt": // the programs to install
			content[about+base] = text
		case !strings.Contains(dir, ".egg-info/"):
			content[path] = text
		}
	}
	metadata := fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", l.name, version)
	for _, r := range l.requires {
		metadata += "Requires-Dist: " + r + "\n"
	}
	content[about+"METADATA"] = []byte(metadata)
	content[about+"WHEEL"] = fmt.Appendf(nil, "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: %v\nTag: %s\n", tag == "py3-none-any", tag)
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	add := func(path string, text []byte) error {
		f, err := w.Create(path)
		if err == nil {
			_, err = f.Write(text)
		}
		return err
	}
	record := ""
	for _, path := range slices.Sorted(maps.Keys(content)) {
		sum := sha256.Sum256(content[path])
		record += fmt.Sprintf("%s,sha256=%s,%d\n", path, base64.RawURLEncoding.EncodeToString(sum[:]), len(content[path]))
		if err := add(path, content[path]); err != nil {
			return "", nil, err
		}
	}
	if err := add(about+"RECORD", []byte(record+about+"RECORD,,\n")); err != nil {
		return "", nil, err
	}
	if err := w.Close(); err != nil {
		return "", nil, err
	}
	return name + "-" + tag + ".whl", out.Bytes(), nil
}
