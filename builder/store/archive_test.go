package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/store"
)

// saved returns the archive of a new index for the host and another platform, of which only the host's part is here.
func saved(t *testing.T) (archive []byte, id string) {
	t.Helper()
	reg := newRegistry(t, nil)
	index := newIndex(t, "linux/s390x", host())
	upload(t, reg+"/app:1", index)
	s := newStore(t, store.Options{})
	_, err := s.Pull(t.Context(), reg+"/app:1", store.PullOptions{})
	ok(t, err)
	ok(t, s.Tag(t.Context(), reg+"/app:1", "app:1"))
	var b bytes.Buffer
	ok(t, s.Save(t.Context(), &b, []string{"app:1"}, store.SaveOptions{}))
	err = s.Save(t.Context(), io.Discard, []string{"app:1"}, store.SaveOptions{Platform: &other})
	failsWith(t, err, "no image for platform linux/s390x")
	return b.Bytes(), digestOf(t, index)
}

func TestSaveLoad(t *testing.T) {
	t.Parallel()
	archive, id := saved(t)
	for _, c := range []struct {
		name     string
		compress func(io.Writer) io.WriteCloser
	}{
		{"plain", func(w io.Writer) io.WriteCloser { return nopCloser{w} }},
		{"gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
		{"zstd", func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var packed bytes.Buffer
			w := c.compress(&packed)
			_, err := w.Write(archive)
			ok(t, err)
			ok(t, w.Close())

			s := newStore(t, store.Options{})
			loaded, err := s.Load(t.Context(), &packed)
			ok(t, err)
			equal(t, "loaded", fmt.Sprint(loaded), "[{docker.io/library/app:1 "+id+"}]")
			// The index, the host's manifest, its configuration and two layers: what the archive is made of otherwise is gone.
			equal(t, "store", dump(t, s, id, "id"), "docker.io/library/app:1 id\n5 blobs, 0 unfinished\n")

			var again bytes.Buffer
			ok(t, s.Save(t.Context(), &again, []string{"app:1"}, store.SaveOptions{}))
			equal(t, "files of the second archive", files(t, again.Bytes()), files(t, archive))
		})
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestSaveByID(t *testing.T) {
	t.Parallel()
	archive, id := saved(t)
	s := newStore(t, store.Options{})
	_, err := s.Load(t.Context(), bytes.NewReader(archive))
	ok(t, err)
	var b bytes.Buffer
	ok(t, s.Save(t.Context(), &b, []string{strings.TrimPrefix(id, "sha256:")[:12]}, store.SaveOptions{}))

	s = newStore(t, store.Options{})
	loaded, err := s.Load(t.Context(), &b)
	ok(t, err)
	equal(t, "loaded", fmt.Sprint(loaded), "[{ "+id+"}]")
	equal(t, "store", dump(t, s, id, "id"), "dangling@id id\n5 blobs, 0 unfinished\n")
	equal(t, "list", list(t, s, store.ListOptions{}), "<none> <none> ["+host()+"]\n")
}

// The archives of dockers before 25: no OCI layout, manifest.json only.
func TestLoadOldArchive(t *testing.T) {
	t.Parallel()
	tags := map[name.Tag]string{}
	var b bytes.Buffer
	image := newImage(t, host())
	for _, tag := range []string{"app:1", "127.0.0.1:5000/team/app:2"} {
		n, err := name.NewTag(tag)
		ok(t, err)
		tags[n] = tag
	}
	ok(t, tarball.MultiWrite(only(tags, image), &b))
	s := newStore(t, store.Options{})
	loaded, err := s.Load(t.Context(), &b)
	ok(t, err)
	if len(loaded) != 2 || loaded[0].ID != loaded[1].ID {
		t.Fatalf("loaded %v", loaded)
	}
	config, err := image.ConfigName()
	ok(t, err)
	i, err := s.Inspect(t.Context(), "app:1", nil)
	ok(t, err)
	equal(t, "configuration", i.Manifest.Config.Digest.String(), config.String())
	equal(t, "names", fmt.Sprint(slices.Sorted(slices.Values(i.RepoTags))), "[127.0.0.1:5000/team/app:2 app:1]")
}

func only[K comparable, V any, W any](keys map[K]W, v V) map[K]V {
	out := map[K]V{}
	for k := range keys {
		out[k] = v
	}
	return out
}

// An archive that can't be trusted leaves nothing behind.
func TestLoadRefusals(t *testing.T) {
	t.Parallel()
	const layout = `{"imageLayoutVersion":"1.0.0"}`
	config := `{"os":"linux","architecture":"amd64"}`
	layer := "layer"
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ocispecs.MediaTypeImageManifest,
		descriptor(ocispecs.MediaTypeImageConfig, config, ""), descriptor(ocispecs.MediaTypeImageLayer, layer, ""))
	index := func(annotations string) string {
		return `{"schemaVersion":2,"manifests":[` + descriptor(ocispecs.MediaTypeImageManifest, manifest, annotations) + `]}`
	}
	good := map[string]string{
		"oci-layout": layout, blob(config): config, blob(layer): layer, blob(manifest): manifest,
		"index.json": index(`{"io.containerd.image.name":"docker.io/library/app:1"}`),
	}
	with := func(files ...string) map[string]string {
		m := maps.Clone(good)
		for i := 0; i < len(files); i += 2 {
			m[files[i]] = files[i+1]
		}
		return m
	}
	without := func(name string) map[string]string {
		m := maps.Clone(good)
		delete(m, name)
		return m
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // "" if the archive is good
	}{
		{"good", good, ""},
		{"empty", nil, "unrecognized image format"},
		{"no layout", without("oci-layout"), "unrecognized image format"},
		{"no index", without("index.json"), "missing index.json"},
		{"index of another kind", with("index.json", `[1]`), "decode"},
		{"no images", with("index.json", `{"manifests":[]}`), "it has no images"},
		{"no manifest", without(blob(manifest)), "part of the image is not in the store"},
		{"no layer", without(blob(layer)), "part of the image is not in the store"},
		{"no configuration", without(blob(config)), "part of the image is not in the store"},
		{"layer with another content", with(blob(layer), "other"), "part of the image is not in the store"},
		{"manifest with another content", with(blob(manifest), strings.Replace(manifest, "2", "3", 1)), "part of the image is not in the store"},
		{"name that climbs", with("index.json", index(`{"io.containerd.image.name":"../../etc/passwd"}`)), "parse image name"},
		{"name with a newline", with("index.json", index(`{"io.containerd.image.name":"a\nb"}`)), "parse image name"},
		{"files that climb", with("../../escaped", "x", "/etc/escaped", "y"), ""},
		{"old archive that climbs", map[string]string{"manifest.json": `[{"Config":"../../../etc/passwd","Layers":["/etc/shadow"]}]`}, "not found"},
		{"old archive without layer", map[string]string{"c.json": config, "manifest.json": `[{"Config":"c.json","Layers":["l.tar"]}]`}, `layer "l.tar" not found`},
		{"broken JSON", with("manifest.json", `[{`), "unexpected EOF"},
		{"digest of no kind", with("index.json", strings.ReplaceAll(index("{}"), "sha256:", "../../../")), "digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, store.Options{})
			_, err := s.Load(t.Context(), bytes.NewReader(pack(t, c.files)))
			if c.want == "" {
				ok(t, err)
				equal(t, "store", dump(t, s, ociDigest(manifest), "id"), "docker.io/library/app:1 id\n3 blobs, 0 unfinished\n")
				return
			}
			failsWith(t, err, c.want)
			equal(t, "store", dump(t, s), nothing)
		})
	}
}

// Wherever an archive ends too early: an error, and nothing is stored. What remains from before stays, and a whole archive
// can be loaded afterwards.
func TestLoadTruncated(t *testing.T) {
	t.Parallel()
	archive, id := saved(t)
	s := newStore(t, store.Options{})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(archive)
	ok(t, err)
	ok(t, z.Close())
	trailer := bytes.LastIndexFunc(archive, func(r rune) bool { return r != 0 })
	for _, c := range []struct {
		name string
		b    []byte
		end  int
	}{{"plain", archive, trailer}, {"gzip", packed.Bytes(), packed.Len() - 1}} {
		for i := range 8 {
			end := c.end * i / 7
			_, err := s.Load(t.Context(), bytes.NewReader(c.b[:end]))
			if err == nil {
				t.Errorf("%s: %d of %d bytes were enough", c.name, end, len(c.b))
			}
			equal(t, "store", dump(t, s), nothing)
		}
	}
	_, err = s.Load(t.Context(), &packed)
	ok(t, err)
	equal(t, "store", dump(t, s, id, "id"), "docker.io/library/app:1 id\n5 blobs, 0 unfinished\n")
}

func ociDigest(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

func blob(s string) string { return strings.Replace("blobs/"+ociDigest(s), ":", "/", 1) }

func descriptor(mediaType, content, annotations string) string {
	if annotations == "" {
		annotations = "{}"
	}
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":%s}`, mediaType, ociDigest(content), len(content), annotations)
}

func pack(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, n := range slices.Sorted(maps.Keys(files)) {
		ok(t, tw.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: int64(len(files[n])), Typeflag: tar.TypeReg}))
		_, err := tw.Write([]byte(files[n]))
		ok(t, err)
	}
	ok(t, tw.Close())
	return b.Bytes()
}

// files lists an archive's files with their digests. The annotations that tell where a blob came from are not compared:
// they are the store's, not the image's.
func files(t *testing.T, archive []byte) string {
	t.Helper()
	var b strings.Builder
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return b.String()
		}
		ok(t, err)
		if h.Name == "index.json" {
			continue
		}
		sum := sha256.New()
		_, err = io.Copy(sum, tr)
		ok(t, err)
		fmt.Fprintf(&b, "%s %x\n", h.Name, sum.Sum(nil))
	}
}
