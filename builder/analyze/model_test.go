package analyze

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobs are an image's in memory.
type blobs map[digest.Digest][]byte

func (b blobs) ReaderAt(_ context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	blob, ok := b[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return section{io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob)))}, nil
}

func (b blobs) add(mediaType string, blob []byte) ocispecs.Descriptor {
	d := digest.FromBytes(blob)
	b[d] = blob
	return ocispecs.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(blob))}
}

func (b blobs) json(t *testing.T, mediaType string, v any) ocispecs.Descriptor {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b.add(mediaType, text)
}

// member is one line of a layer: a path, and what is there. "dir/" is a directory, "a -> b" a symbolic link, "a => b" a hard link, "a 3" a file
// of three bytes, "a 3x" one of three bytes "x", "-a" a whiteout, "-dir/" an opaque directory. More words set its metadata: mode=, owner=, time=, xattr=.
func member(t *testing.T, w *tar.Writer, line string) {
	t.Helper()
	words := strings.Fields(line)
	h := &tar.Header{Name: words[0], Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatPAX, ModTime: time.Unix(1000, 0)}
	var body []byte
	rest := words[1:]
	switch {
	case strings.HasPrefix(h.Name, "-") && strings.HasSuffix(h.Name, "/"):
		h.Name = strings.TrimPrefix(h.Name, "-") + opaqueName
	case strings.HasPrefix(h.Name, "-"):
		dir, name := path.Split(h.Name[1:])
		h.Name = dir + whiteoutPrefix + name
	case strings.HasSuffix(h.Name, "/"):
		h.Typeflag = tar.TypeDir
	case len(rest) > 1 && rest[0] == "->":
		h.Typeflag, h.Linkname, rest = tar.TypeSymlink, rest[1], rest[2:]
	case len(rest) > 1 && rest[0] == "=>":
		h.Typeflag, h.Linkname, rest = tar.TypeLink, rest[1], rest[2:]
	case len(rest) > 0:
		n, fill := 0, "."
		fmt.Sscanf(rest[0], "%d%s", &n, &fill)
		body, rest = bytes.Repeat([]byte(fill), n)[:n], rest[1:]
	}
	for _, word := range rest {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "mode":
			fmt.Sscanf(value, "%o", &h.Mode)
		case "owner":
			fmt.Sscanf(value, "%d", &h.Uid)
		case "time":
			var seconds int64
			fmt.Sscanf(value, "%d", &seconds)
			h.ModTime = time.Unix(seconds, 0)
		case "xattr":
			h.PAXRecords = map[string]string{xattrPrefix + "user.test": value}
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	h.Size = int64(len(body))
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	w.Write(body)
}

// newImage makes an image of layers, each a text with a line for each member; "" is an entry of the history without a layer.
func newImage(t *testing.T, layers ...string) Image {
	t.Helper()
	b := blobs{}
	var m ocispecs.Manifest
	c := ocispecs.Image{Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}}
	for i, text := range layers {
		c.History = append(c.History, ocispecs.History{CreatedBy: fmt.Sprintf("RUN /bin/sh -c %d # buildkit", i+1), EmptyLayer: text == ""})
		if text == "" {
			continue
		}
		var blob bytes.Buffer
		z := gzip.NewWriter(&blob)
		w := tar.NewWriter(z)
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				member(t, w, line)
			}
		}
		w.Close()
		z.Close()
		m.Layers = append(m.Layers, b.add(ocispecs.MediaTypeImageLayerGzip, blob.Bytes()))
	}
	m.Config = b.json(t, ocispecs.MediaTypeImageConfig, c)
	target := b.json(t, ocispecs.MediaTypeImageManifest, m)
	im, err := Open(t.Context(), "app", b, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// model applies layers to a map, path by path: slow and obvious. It knows no hard links.
func model(layers []string) (live map[string]int64, unpacked int64) {
	live = map[string]int64{}
	below := func(dir string) {
		for p := range live {
			if strings.HasPrefix(p, dir+"/") {
				delete(live, p)
			}
		}
	}
	for _, text := range layers {
		for line := range strings.Lines(text) {
			switch p := strings.Fields(line)[0]; {
			case strings.HasPrefix(p, "-") && strings.HasSuffix(p, "/"):
				below(strings.Trim(p, "-/"))
			case strings.HasPrefix(p, "-"):
				below(p[1:])
				delete(live, p[1:])
			}
		}
		for line := range strings.Lines(text) {
			words := strings.Fields(line)
			p := words[0]
			if strings.HasPrefix(p, "-") {
				continue
			}
			dir := strings.HasSuffix(p, "/")
			p = strings.TrimSuffix(p, "/")
			for parent := path.Dir(p); parent != "."; parent = path.Dir(parent) {
				delete(live, parent)
			}
			if dir {
				delete(live, p)
				continue
			}
			below(p)
			delete(live, p)
			if words[1] != "->" {
				var n int64
				fmt.Sscanf(words[1], "%d", &n)
				live[p] = n
				unpacked += n
			}
		}
	}
	return live, unpacked
}

// TestModel compares what is found of random stacks of layers with what the model finds.
func TestModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var layers []string
		for range 1 + r.IntN(5) {
			var text strings.Builder
			used := map[string]bool{}
			for range 1 + r.IntN(6) {
				p := string(rune('a' + r.IntN(3)))
				for range r.IntN(3) {
					p += "/" + string(rune('a'+r.IntN(3)))
				}
				if used[p] { // whether a whiteout is for the path of its own layer is nothing to rely on
					continue
				}
				used[p] = true
				switch r.IntN(6) {
				case 0:
					fmt.Fprintf(&text, "-%s\n", p)
				case 1:
					fmt.Fprintf(&text, "-%s/\n", p)
				case 2:
					fmt.Fprintf(&text, "%s/\n", p)
				case 3:
					fmt.Fprintf(&text, "%s -> x\n", p)
				default:
					fmt.Fprintf(&text, "%s %d\n", p, 1+r.IntN(100))
				}
			}
			layers = append(layers, text.String())
		}
		report, err := Analyze(t.Context(), newImage(t, layers...), Options{Most: -1})
		if err != nil {
			t.Fatal(err)
		}
		live, unpacked := model(layers)
		got := map[string]int64{}
		for _, f := range report.Largest {
			got[strings.TrimPrefix(f.Path, "/")] = f.Bytes
		}
		kept, wasted := int64(0), int64(0)
		for _, n := range live {
			kept += n
		}
		for _, w := range report.Wasted {
			wasted += w.Bytes
		}
		if fmt.Sprint(got) != fmt.Sprint(live) || report.UnpackedBytes != unpacked || report.WastedBytes != unpacked-kept || wasted != report.WastedBytes {
			t.Fatalf("seed %d:\n%s\ngot  %v, %d unpacked, %d wasted, %d listed\nwant %v, %d unpacked, %d wasted",
				seed, strings.Join(layers, "--\n"), got, report.UnpackedBytes, report.WastedBytes, wasted, live, unpacked, unpacked-kept)
		}
	}
}

func lines(list []Wasted) string {
	var out []string
	for _, w := range list {
		out = append(out, fmt.Sprintf("%s %d #%d %s", w.Path, w.Bytes, w.Entry, w.Why()))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
