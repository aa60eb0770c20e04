package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/remotecache"
	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/session"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/session/testutil"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// blobs are what a cache has, by what it says they are.
type blobs map[digest.Digest][]byte

// add returns the descriptor of a blob that is added. The text of a lie is not what its digest says.
func (b blobs) add(mediaType string, v any) ocispecs.Descriptor {
	text, ok := v.([]byte)
	if !ok {
		text = encode(v)
	}
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	b[d.Digest] = text
	return d
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// ServeHTTP is a registry that has the blobs in each repository. The only tags are digests without what is before the colon.
func (b blobs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Base(r.URL.Path), "sha256:")
	text, ok := b[digest.NewDigestFromEncoded(digest.SHA256, name)]
	if !ok {
		http.Error(w, r.URL.Path, http.StatusNotFound)
		return
	}
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", mediaTypeOf(text))
	}
	w.Header().Set("Docker-Content-Digest", "sha256:"+name)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(text)
	}
}

func mediaTypeOf(text []byte) string {
	var m struct {
		MediaType string `json:"mediaType"`
	}
	_ = json.Unmarshal(text, &m)
	return m.MediaType
}

// directory is a client's, whose blobs may be said to be of other sizes than they are.
type directory struct {
	content.Store
	blobs blobs
	sizes map[digest.Digest]int64
}

func (d directory) Info(_ context.Context, dgst digest.Digest) (content.Info, error) {
	text, ok := d.blobs[dgst]
	if !ok {
		return content.Info{}, fmt.Errorf("%s: %w", dgst, cerrdefs.ErrNotFound)
	}
	size, ok := d.sizes[dgst]
	if !ok {
		size = int64(len(text))
	}
	return content.Info{Digest: dgst, Size: size}, nil
}

func (d directory) ReaderAt(_ context.Context, desc ocispecs.Descriptor) (content.ReaderAt, error) {
	return blob{bytes.NewReader(d.blobs[desc.Digest])}, nil
}

// fakeWorker has no records: it shows what it is to make one of.
type fakeWorker struct {
	worker.Worker
	asked *solver.Remote
}

var errShown = errors.New("shown")

func (w *fakeWorker) FromRemote(_ context.Context, r *solver.Remote) (cache.ImmutableRef, error) {
	w.asked = r
	return nil, errShown
}

// step is the key of the record that caches here have.
var step = digest.FromString("step")

// records are n, of which the first is step's. Their result is a layer.
func records(n, layer int) (list []cacheimporttypes.CacheRecord) {
	for i := range n {
		key := digest.FromString(step.String() + "@0") // its only output
		if i > 0 {
			key = digest.FromString(fmt.Sprint(i))
		}
		list = append(list, cacheimporttypes.CacheRecord{Digest: key, Results: []cacheimporttypes.CacheResult{{LayerIndex: layer, CreatedAt: time.Unix(1, 0)}}})
	}
	return list
}

// few is a check that lets pass what has three records at most.
func few(c *cacheimporttypes.CacheConfig) error {
	if len(c.Records) > 3 {
		return errors.New("too many records")
	}
	for _, r := range c.Records {
		for _, res := range r.Results {
			if res.LayerIndex < 0 || res.LayerIndex >= len(c.Layers) {
				return fmt.Errorf("layer %d of %d", res.LayerIndex, len(c.Layers))
			}
		}
	}
	return nil
}

const layerType = ocispecs.MediaTypeImageLayerGzip

// theLayer is one that is larger than all that may describe a cache: so it says.
var theLayer = ocispecs.Descriptor{
	MediaType: layerType, Digest: digest.FromString("the layer"), Size: chains.MaxBytes << 10, Annotations: map[string]string{"containerd.io/uncompressed": digest.FromString("files").String()},
}

func manifest(config ocispecs.Descriptor, layers ...ocispecs.Descriptor) ocispecs.Manifest {
	return ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: config, Layers: layers}
}

func index(list ...ocispecs.Descriptor) ocispecs.Index {
	return ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: list}
}

func cacheConfig(n int) cacheimporttypes.CacheConfig {
	return cacheimporttypes.CacheConfig{Layers: []cacheimporttypes.CacheLayer{{Blob: theLayer.Digest, ParentIndex: -1}}, Records: records(n, 0)}
}

// imageConfig is of an image with one layer and an inline cache, and as many lines of history with a layer as asked for.
func imageConfig(cache []byte, history int) map[string]any {
	lines := []map[string]any{{"empty_layer": true}}
	for range history {
		lines = append(lines, map[string]any{"created": time.Unix(1, 0), "created_by": "RUN"})
	}
	return map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}, "Labels": map[string]string{"digest": "none"}}, "history": lines,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest.FromString("files").String()}}, "moby.buildkit.cache.v0": cache,
	}
}

// sized is a descriptor that says another size.
func sized(d ocispecs.Descriptor, size int64) ocispecs.Descriptor {
	d.Size = size
	return d
}

// cases are caches: each returns its root, and what the error is to have: nothing if step is to be found.
var cases = map[string]func(blobs) (root ocispecs.Descriptor, want string){
	"a cache manifest": func(b blobs) (ocispecs.Descriptor, string) {
		return b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(cacheimporttypes.CacheConfigMediaTypeV0, cacheConfig(3)), theLayer)), ""
	},
	"a cache index": func(b blobs) (ocispecs.Descriptor, string) {
		return b.add(ocispecs.MediaTypeImageIndex, index(theLayer, b.add(cacheimporttypes.CacheConfigMediaTypeV0, cacheConfig(3)))), ""
	},
	"an inline cache": func(b blobs) (ocispecs.Descriptor, string) {
		return b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(encode(records(3, 0)), 1)), theLayer)), ""
	},
	"an inline cache of platforms": func(b blobs) (ocispecs.Descriptor, string) {
		empty := b.add("application/vnd.oci.empty.v1+json", []byte("{}"))
		empty.Data = []byte("{}")
		one := manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(encode(records(2, 0)), 1)), theLayer)
		other := manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(encode(records(1, 0)), 2)), theLayer)
		none := manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(nil, 0)), theLayer)
		return b.add(ocispecs.MediaTypeImageIndex, index(b.add(ocispecs.MediaTypeImageManifest, one), b.add(ocispecs.MediaTypeImageManifest, other),
			b.add(ocispecs.MediaTypeImageManifest, none), b.add(ocispecs.MediaTypeImageManifest, manifest(empty, theLayer)))), ""
	},

	"a config without end": func(b blobs) (ocispecs.Descriptor, string) {
		config := b.add(ocispecs.MediaTypeImageConfig, imageConfig(nil, 1))
		return b.add(ocispecs.MediaTypeImageManifest, manifest(sized(config, 1<<42), theLayer)), "4398046511104 bytes what describes the cache is larger than 64 MiB"
	},
	"a config without end that says it is a layer": func(b blobs) (ocispecs.Descriptor, string) {
		config := b.add(layerType, imageConfig(nil, 1))
		return b.add(ocispecs.MediaTypeImageManifest, manifest(sized(config, 1<<42), theLayer)), "larger than 64 MiB"
	},
	"a config that is less than nothing": func(b blobs) (ocispecs.Descriptor, string) {
		config := b.add(ocispecs.MediaTypeImageConfig, imageConfig(nil, 1))
		return b.add(ocispecs.MediaTypeImageManifest, manifest(sized(config, -1), theLayer)), "its size is -1"
	},
	"a layer that is less than nothing": func(b blobs) (ocispecs.Descriptor, string) {
		return b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(cacheimporttypes.CacheConfigMediaTypeV0, cacheConfig(1)), sized(theLayer, -1))), "its size is -1"
	},
	"a config without a digest": func(b blobs) (ocispecs.Descriptor, string) {
		return b.add(ocispecs.MediaTypeImageManifest, manifest(ocispecs.Descriptor{Digest: "none", Size: 2}, theLayer)), `blob "none"`
	},
	"a layer without a digest": func(b blobs) (ocispecs.Descriptor, string) {
		config := cacheConfig(1)
		config.Layers[0].Blob = ""
		return b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(cacheimporttypes.CacheConfigMediaTypeV0, config))), `layer ""`
	},
	"a manifest without end": func(b blobs) (ocispecs.Descriptor, string) {
		m := b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(nil, 1)), theLayer))
		return b.add(ocispecs.MediaTypeImageIndex, index(sized(m, 1<<42))), "larger than 64 MiB"
	},
	"large manifests": func(b blobs) (ocispecs.Descriptor, string) {
		one := b.add(ocispecs.MediaTypeImageManifest, index())
		other := b.add(ocispecs.MediaTypeImageManifest, []byte("{}"))
		return b.add(ocispecs.MediaTypeImageIndex, index(one, sized(other, chains.MaxBytes-one.Size))), "larger than 64 MiB"
	},
	"an index of itself": func(b blobs) (ocispecs.Descriptor, string) {
		d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageIndex, Digest: digest.FromString("itself")}
		for { // its size is in it
			b[d.Digest] = encode(index(d))
			if size := int64(len(b[d.Digest])); size != d.Size {
				d.Size = size
				continue
			}
			return b.add(ocispecs.MediaTypeImageIndex, b[d.Digest]), "what is there is sha256:"
		}
	},
	"an index that doubles": func(b blobs) (ocispecs.Descriptor, string) {
		d := b.add(ocispecs.MediaTypeImageIndex, index())
		for range 30 {
			d = b.add(ocispecs.MediaTypeImageIndex, index(d, d))
		}
		return d, "more than 1000 blobs"
	},
	"other content": func(b blobs) (ocispecs.Descriptor, string) {
		config := b.add(cacheimporttypes.CacheConfigMediaTypeV0, cacheConfig(1))
		b[config.Digest] = bytes.ToUpper(b[config.Digest])
		return b.add(ocispecs.MediaTypeImageManifest, manifest(config, theLayer)), "what is there is sha256:"
	},
	"a short history": func(b blobs) (ocispecs.Descriptor, string) {
		return b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(encode(records(1, 0)), 0)), theLayer)), "history has 0 layers, but it has 1"
	},
	"too many records": func(b blobs) (ocispecs.Descriptor, string) {
		return b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(cacheimporttypes.CacheConfigMediaTypeV0, cacheConfig(4)), theLayer)), "too many records"
	},
	"too many records inline": func(b blobs) (ocispecs.Descriptor, string) {
		return b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(encode(records(4, 0)), 1)), theLayer)), "too many records"
	},
	"too many records of platforms": func(b blobs) (ocispecs.Descriptor, string) {
		one := manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(encode(records(2, 0)), 1)), theLayer)
		other := manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(encode(records(2, 0)), 2)), theLayer)
		return b.add(ocispecs.MediaTypeImageIndex, index(b.add(ocispecs.MediaTypeImageManifest, one), b.add(ocispecs.MediaTypeImageManifest, other))), "too many records"
	},
	"too many records in the manifest": func(b blobs) (ocispecs.Descriptor, string) {
		config := b.add(cacheimporttypes.CacheConfigMediaTypeV0, cacheConfig(4))
		config.Data = b[config.Digest]
		return b.add(ocispecs.MediaTypeImageManifest, manifest(config, theLayer)), "too many records"
	},
	"too many records in an index": func(b blobs) (ocispecs.Descriptor, string) {
		config := b.add(ocispecs.MediaTypeImageConfig, imageConfig(encode(records(4, 0)), 1))
		config.Data = b[config.Digest]
		m := b.add(ocispecs.MediaTypeImageManifest, manifest(config, theLayer))
		m.Data = b[m.Digest]
		return b.add(ocispecs.MediaTypeImageIndex, index(m)), "too many records"
	},
	"too many values": func(b blobs) (ocispecs.Descriptor, string) {
		text := []byte("[" + strings.Repeat("{},", chains.MaxValues/2) + "{}]")
		return b.add(ocispecs.MediaTypeImageManifest, manifest(b.add(ocispecs.MediaTypeImageConfig, imageConfig(text, 1)), theLayer)), "values"
	},
}

// source is one of the two ways in which a cache is had.
type source func(t *testing.T, b blobs, root ocispecs.Descriptor) (remotecache.Importer, ocispecs.Descriptor, error)

func fromRegistry(t *testing.T, b blobs, root ocispecs.Descriptor) (remotecache.Importer, ocispecs.Descriptor, error) {
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	sessions, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	store, err := contentlocal.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	hosts := docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts))
	attrs := map[string]string{"ref": strings.TrimPrefix(s.URL, "http://") + "/cache:" + root.Digest.Encoded()}
	return Registry(sessions, store, hosts, few)(t.Context(), session.NewGroup(), attrs)
}

func fromDirectory(t *testing.T, b blobs, root ocispecs.Descriptor) (remotecache.Importer, ocispecs.Descriptor, error) {
	return directory{blobs: b}.importer(t, root)
}

// importer is one of type local.
func (d directory) importer(t *testing.T, root ocispecs.Descriptor) (remotecache.Importer, ocispecs.Descriptor, error) {
	sessions, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.NewSession(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	s.Allow(sessioncontent.NewAttachable(map[string]content.Store{"local:dir": d}))
	go func() {
		_ = s.Run(t.Context(), session.Dialer(testutil.TestStream(testutil.Handler(sessions.HandleConn))))
	}()
	t.Cleanup(func() { _ = s.Close() })
	return Local(sessions, few)(t.Context(), session.NewGroup(s.ID()), map[string]string{"src": "dir", "digest": root.Digest.String()})
}

// TestImport has caches as BuildKit writes them, in which the step is found, and hostile ones, of which each costs an error. (BuildKit alone takes all memory, or panics, at most of these.)
func TestImport(t *testing.T) {
	for from, open := range map[string]source{"registry": fromRegistry, "local": fromDirectory} {
		for name, c := range cases {
			t.Run(from+"/"+name, func(t *testing.T) {
				b := blobs{theLayer.Digest: []byte("the layer")}
				root, want := c(b)
				i, desc, err := open(t, b, root)
				if err != nil {
					t.Fatal(err)
				}
				w := &fakeWorker{}
				m, err := i.Resolve(t.Context(), desc, "id", w)
				if want != "" {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Fatalf("got %v, want an error with %q", err, want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				find(t, m)
				if got := layer(t, w.asked); got != "the layer" {
					t.Errorf("read %q", got)
				}
				_, hasSession := w.asked.Provider.(interface {
					UnlazySession(ocispecs.Descriptor) session.Group
				})
				labels := w.asked.Provider.(interface {
					SnapshotLabels([]ocispecs.Descriptor, int) map[string]string
				}).SnapshotLabels(w.asked.Descriptors, 0)
				ref := w.asked.Descriptors[0].Annotations["containerd.io/distribution.source.ref"]
				if from == "registry" && (ref == "" || labels["containerd.io/snapshot/remote/stargz.reference"] != ref || labels["containerd.io/snapshot/cri.image-ref"] != ref) {
					t.Errorf("the layer is of %q, for snapshotters %v", ref, labels)
				}
				if from == "local" && !hasSession {
					t.Error("the layer is read when its session may have ended")
				}
			})
		}
	}
}

// find has the worker shown what the step's result is.
func find(t *testing.T, m solver.CacheManager) {
	t.Helper()
	keys, err := m.Query(nil, 0, step, 0)
	if err != nil || len(keys) != 1 {
		t.Fatalf("found %d keys, error %v", len(keys), err)
	}
	list, err := m.Records(t.Context(), keys[0])
	if err != nil || len(list) == 0 {
		t.Fatalf("found %d records, error %v", len(list), err)
	}
	if _, err := m.Load(t.Context(), list[0]); !errors.Is(err, errShown) {
		t.Fatalf("load: %v", err)
	}
}

// layer reads the only layer of what the worker was shown, as someone else who needs it.
func layer(t *testing.T, r *solver.Remote) string {
	t.Helper()
	if len(r.Descriptors) != 1 {
		t.Fatalf("%d layers", len(r.Descriptors))
	}
	from, err := contentutil.ProviderForSession(r.Provider, session.NewGroup()).ReaderAt(t.Context(), r.Descriptors[0])
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	text, err := io.ReadAll(io.NewSectionReader(from, 0, int64(len("the layer"))))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestFileSizes: a directory's files count, not what is said of them: one can be larger than the disk, with nothing in it.
func TestFileSizes(t *testing.T) {
	b := blobs{}
	config := b.add(ocispecs.MediaTypeImageConfig, imageConfig(nil, 1))
	root := b.add(ocispecs.MediaTypeImageManifest, manifest(config, theLayer))
	i, desc, err := directory{blobs: b, sizes: map[digest.Digest]int64{config.Digest: 1 << 42}}.importer(t, root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Resolve(t.Context(), desc, "id", &fakeWorker{}); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("got %v", err)
	}
}

// TestAttributes: what is missing or wrong is said, and no one is asked for anything.
func TestAttributes(t *testing.T) {
	registry, local := Registry(nil, nil, nil, few), Local(nil, few)
	for want, resolve := range map[string]func() error{
		"missing ref":                       func() error { return ask(registry, nil) },
		"ref=A B":                           func() error { return ask(registry, map[string]string{"ref": "A B"}) },
		"registry.insecure=perhaps":         func() error { return ask(registry, map[string]string{"ref": "r/x", "registry.insecure": "perhaps"}) },
		"requires explicit digest":          func() error { return ask(local, map[string]string{"src": "dir"}) },
		"local cache importer requires src": func() error { return ask(local, map[string]string{"digest": step.String()}) },
		"requires session":                  func() error { return ask(local, map[string]string{"digest": step.String(), "src": "dir"}) },
	} {
		if err := resolve(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func ask(resolve remotecache.ResolveCacheImporterFunc, attrs map[string]string) error {
	_, _, err := resolve(context.Background(), session.NewGroup(), attrs)
	return err
}

// TestInsecure: registry.insecure talks plain HTTP, whatever the hosts say.
func TestInsecure(t *testing.T) {
	b := blobs{}
	root, _ := cases["a cache manifest"](b)
	s := httptest.NewServer(b)
	defer s.Close()
	sessions, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	hosts := func(host string) ([]docker.RegistryHost, error) {
		return nil, fmt.Errorf("%s is not to be asked for", host)
	}
	attrs := map[string]string{"ref": strings.TrimPrefix(s.URL, "http://") + "/insecure@" + root.Digest.String()}
	if err := resolveWith(t, sessions, hosts, attrs); err == nil || !strings.Contains(err.Error(), "is not to be asked for") {
		t.Errorf("got %v", err)
	}
	attrs["registry.insecure"] = "true"
	if err := resolveWith(t, sessions, hosts, attrs); err != nil {
		t.Error(err)
	}
}

func resolveWith(t *testing.T, sessions *session.Manager, hosts docker.RegistryHosts, attrs map[string]string) error {
	store, err := contentlocal.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	i, desc, err := Registry(sessions, store, hosts, few)(t.Context(), session.NewGroup(), attrs)
	if err != nil {
		return err
	}
	_, err = i.Resolve(t.Context(), desc, "id", &fakeWorker{})
	return err
}
