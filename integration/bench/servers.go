package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The packages that projects install are made here and served on loopback, so that the network is not measured. They have what costs an installer
// its time: archives to fetch, check and unpack into many small files.

// served is a web server's content by path. Everything else is not found.
type served map[string][]byte

func (s served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, ok := s[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(b)
}

// serve offers content on loopback until the bench is closed and returns its address.
func (b *bench) serve(content served) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	if b.link != nil {
		ln = b.link.Listen(ln)
	}
	s := &http.Server{Handler: content}
	go s.Serve(ln)
	b.undo = append(b.undo, func() { s.Close() })
	return "http://" + ln.Addr().String(), nil
}

// source is a file's text of about so many bytes, the same for the same name.
func source(name string, size int) string {
	line := fmt.Sprintf("// %x\n", sha256.Sum256([]byte(name)))
	return strings.Repeat(line, max(1, size/len(line)))
}

// npmPackage makes an archive of a package with so many files, and its integrity as a lock file has it.
func npmPackage(name string, files int) (archive []byte, integrity string, err error) {
	content := map[string]string{"package/package.json": fmt.Sprintf("{\"name\": %q, \"version\": \"1.0.0\", \"main\": \"lib/0.js\"}\n", name)}
	for i := range files {
		path := fmt.Sprintf("package/lib/%d.js", i)
		content[path] = source(name+path, 1<<10) + "module.exports = 1;\n"
	}
	if archive, err = tarball(content, 0o644); err != nil {
		return nil, "", err
	}
	sum := sha512.Sum512(archive)
	return archive, "sha512-" + base64.StdEncoding.EncodeToString(sum[:]), nil
}

// goModule makes what a module proxy has of one version.
func goModule(path, version string, files int) (served, error) {
	mod := fmt.Sprintf("module %s\n\ngo 1.21\n", path)
	content := map[string]string{"go.mod": mod}
	for i := range files {
		const text = "package %s\n\n%s\nfunc F%d(a []int) (n int) {\n\tfor i, x := range a {\n\t\tn += i * x\n\t}\n\treturn n\n}\n"
		content[fmt.Sprintf("f%d.go", i)] = fmt.Sprintf(text,
			filepath.Base(path), source(path+fmt.Sprint(i), 1<<10), i)
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		f, err := w.Create(path + "@" + version + "/" + name)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(f, content[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	at := "/" + path + "/@v/"
	return served{
		at + "list":            []byte(version + "\n"),
		at + version + ".info": fmt.Appendf(nil, "{\"Version\": %q, \"Time\": \"2024-01-01T00:00:00Z\"}", version),
		at + version + ".mod":  []byte(mod),
		at + version + ".zip":  b.Bytes(),
	}, nil
}

// debPackage makes an archive of a Debian package with so many files, and its part of an index.
func debPackage(dir, name string, files int) (archive []byte, index string, err error) {
	control := fmt.Sprintf("Package: %s\nVersion: 1.0\nArchitecture: all\nMaintainer: bench <bench@example.org>\nDescription: for the bench\n", name)
	content := map[string]string{"DEBIAN/control": control}
	for i := range files {
		path := fmt.Sprintf("usr/share/%s/%d.txt", name, i)
		content[path] = source(path, 1<<10)
	}
	root, file := filepath.Join(dir, name), filepath.Join(dir, name+".deb")
	if err := writeFiles(root, content); err != nil {
		return nil, "", err
	}
	if err := execute(exec.Command("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", root, file)); err != nil {
		return nil, "", err
	}
	if archive, err = os.ReadFile(file); err != nil {
		return nil, "", err
	}
	return archive, fmt.Sprintf("%sFilename: ./%s.deb\nSize: %d\nSHA256: %x\n\n", control, name, len(archive), sha256.Sum256(archive)), nil
}

// tarball packs and compresses files.
func tarball(content map[string]string, mode int64) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content[name]))}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, content[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// writeFiles writes files below a directory.
func writeFiles(dir string, content map[string]string) error {
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
