package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ociImage is an image from an OCI archive, read for comparison.
type ociImage struct {
	index   []byte // of several platforms; nil if there is one
	config  []byte // of all platforms, one after another
	digests []string
	layers  [][]string // a line for each entry of each layer
}

// readOCI reads the only image of an OCI archive, for all its platforms.
func readOCI(t *testing.T, file string) ociImage {
	t.Helper()
	blobs, err := readTar(file)
	if err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
	var index v1.IndexManifest
	unmarshal(t, blobs["index.json"], &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%s has %d images", file, len(index.Manifests))
	}
	blob := func(h v1.Hash) []byte { return blobs[path.Join("blobs", h.Algorithm, h.Hex)] }
	var img ociImage
	manifests := index.Manifests
	if manifests[0].MediaType.IsIndex() {
		img.index = blob(manifests[0].Digest)
		var several v1.IndexManifest
		unmarshal(t, img.index, &several)
		manifests = several.Manifests
	}
	for _, d := range manifests {
		var m v1.Manifest
		unmarshal(t, blob(d.Digest), &m)
		img.config = append(img.config, blob(m.Config.Digest)...)
		for _, l := range m.Layers {
			lines, err := listLayer(blob(l.Digest))
			if err != nil {
				t.Fatalf("read layer %s: %v", l.Digest, err)
			}
			img.digests = append(img.digests, l.Digest.String())
			img.layers = append(img.layers, lines)
		}
	}
	return img
}

func unmarshal(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func readTar(file string) (map[string][]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
}

// listLayer describes each entry of a layer: all that a tar header says, and the content's digest.
func listLayer(blob []byte) (lines []string, err error) {
	content := io.Reader(bytes.NewReader(blob))
	if bytes.HasPrefix(blob, []byte{0x1f, 0x8b}) {
		if content, err = gzip.NewReader(content); err != nil {
			return nil, err
		}
	}
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return nil, err
		}
		line := fmt.Sprintf("%s type=%c mode=%o owner=%d:%d size=%d time=%d", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.UnixNano())
		if h.Size > 0 {
			line += fmt.Sprintf(" content=%x", sum.Sum(nil)[:8])
		}
		if h.Linkname != "" {
			line += " link=" + h.Linkname
		}
		if h.Devmajor != 0 || h.Devminor != 0 {
			line += fmt.Sprintf(" device=%d:%d", h.Devmajor, h.Devminor)
		}
		for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if k != "path" && k != "linkpath" && !strings.HasSuffix(k, "time") {
				line += fmt.Sprintf(" %s=%q", k, h.PAXRecords[k])
			}
		}
		lines = append(lines, line)
	}
}
