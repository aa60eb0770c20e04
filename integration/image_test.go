package integration

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"
)

// These commands look at images with other code than optbuild's. A REF is a reference in a registry, `docker:FILE` (what
// `docker save` would write) or `oci:DIR` (an OCI layout).

// openImage opens the image; of an index, the one for this machine.
func openImage(ts *testscript.TestScript, ref string) v1.Image {
	img, err := func() (v1.Image, error) {
		if file, ok := strings.CutPrefix(ref, "docker:"); ok {
			return tarball.ImageFromPath(ts.MkAbs(file), nil)
		}
		if dir, ok := strings.CutPrefix(ref, "oci:"); ok {
			index, err := layout.ImageIndexFromPath(ts.MkAbs(dir))
			if err != nil {
				return nil, err
			}
			return firstImage(index)
		}
		r, err := name.ParseReference(ref, name.Insecure)
		if err != nil {
			return nil, err
		}
		s := worldOf(ts).server
		s.mu.Lock()
		s.user, s.password = "", "" // this is not the client that is tested
		s.mu.Unlock()
		return remote.Image(r)
	}()
	if err != nil {
		ts.Fatalf("open %s: %v", ref, err)
	}
	return img
}

func firstImage(index v1.ImageIndex) (v1.Image, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.MediaType.IsImage() {
			return index.Image(d.Digest)
		}
		if d.MediaType.IsIndex() {
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			return firstImage(inner)
		}
	}
	return nil, errors.New("no image in the index")
}

// image-exists REF: the registry has it.
func imageExists(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, false, len(args) == 1, "[!] image-exists REF")
	r, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	_, err = remote.Head(r)
	var te *transport.Error
	switch {
	case err == nil && neg:
		ts.Fatalf("%s exists", args[0])
	case errors.As(err, &te) && te.StatusCode == http.StatusNotFound && neg:
	case err != nil:
		ts.Fatalf("%s: %v", args[0], err)
	}
}

var errNotInImage = errors.New("not in the image")

// lookup finds a path in the image's file system, all layers together.
func lookup(img v1.Image, file string) (*tar.Header, string, error) {
	r := mutate.Extract(img)
	defer r.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil, "", errNotInImage
		}
		if err != nil {
			return nil, "", err
		}
		if path.Clean("/"+h.Name) == path.Clean("/"+file) {
			b, err := io.ReadAll(t)
			return h, string(b), err
		}
	}
}

// image-has REF PATH [TEXT]: the image has the file, with exactly this content but for white space around it.
func imageHas(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2 || len(args) == 3, "image-has REF PATH [TEXT]")
	_, content, err := lookup(openImage(ts, args[0]), args[1])
	if err != nil {
		ts.Fatalf("%s: %s: %v", args[0], args[1], err)
	}
	if len(args) == 3 && strings.TrimSpace(content) != strings.TrimSpace(args[2]) {
		ts.Fatalf("%s: %s has the content:\n%s\nwant:\n%s", args[0], args[1], content, args[2])
	}
}

// image-lacks REF PATH: the image has no such file.
func imageLacks(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "image-lacks REF PATH")
	_, _, err := lookup(openImage(ts, args[0]), args[1])
	if err == nil {
		ts.Fatalf("%s has %s", args[0], args[1])
	}
	if !errors.Is(err, errNotInImage) {
		ts.Fatalf("%s: %v", args[0], err)
	}
}

// image-stat REF PATH WANT: the file's mode and owner, such as "-rwxr-xr-x 0:0", "Lrwxrwxrwx 0:0 -> target".
func imageStat(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "image-stat REF PATH WANT")
	h, _, err := lookup(openImage(ts, args[0]), args[1])
	if err != nil {
		ts.Fatalf("%s: %s: %v", args[0], args[1], err)
	}
	got := fmt.Sprintf("%s %d:%d", h.FileInfo().Mode(), h.Uid, h.Gid)
	if h.Linkname != "" {
		got += " -> " + h.Linkname
	}
	if got != args[2] {
		ts.Fatalf("%s: %s is %q, want %q", args[0], args[1], got, args[2])
	}
}

// image-config REF PATH VALUE: the value at PATH in the image's configuration, such as `config/Labels/a.b`; strings as they
// are, the rest as JSON, "null" for what is not there.
func imageConfig(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "image-config REF PATH VALUE")
	raw, err := openImage(ts, args[0]).RawConfigFile()
	ts.Check(err)
	var v any
	ts.Check(json.Unmarshal(raw, &v))
	for key := range strings.SplitSeq(args[1], "/") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(x) {
				ts.Fatalf("%s: no element %q in %s", args[0], key, raw)
			}
			v = x[i]
		default:
			v = nil
		}
	}
	got, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		ts.Check(err)
		got = string(b)
	}
	if got != args[2] {
		ts.Fatalf("%s: %s is %q, want %q\n%s", args[0], args[1], got, args[2], raw)
	}
}

// image-layers REF N: the image has N layers.
func imageLayers(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "image-layers REF N")
	layers, err := openImage(ts, args[0]).Layers()
	ts.Check(err)
	if got := strconv.Itoa(len(layers)); got != args[1] {
		ts.Fatalf("%s has %s layers, want %s", args[0], got, args[1])
	}
}

// images-share N REF REF: both images have the same N layers, the others differ.
func imagesShare(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "images-share N REF REF")
	var both [2]map[v1.Hash]bool
	for i, ref := range args[1:] {
		layers, err := openImage(ts, ref).Layers()
		ts.Check(err)
		both[i] = map[v1.Hash]bool{}
		for _, l := range layers {
			h, err := l.Digest()
			ts.Check(err)
			both[i][h] = true
		}
	}
	n := 0
	for h := range both[0] {
		if both[1][h] {
			n++
		}
	}
	if got := strconv.Itoa(n); got != args[0] {
		ts.Fatalf("%s and %s share %s layers, want %s", args[1], args[2], got, args[0])
	}
}
