package integration

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	cacheimporttypes "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
)

// lie is a cache that says what is not so, or too much. Its blobs come before those that name them, the root is the last.
type lie struct {
	blobs []ocispecs.Descriptor // with their data
}

func (l *lie) add(mediaType string, v any) ocispecs.Descriptor {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	stored := d
	stored.Data = text
	l.blobs = append(l.blobs, stored)
	return d
}

func (l *lie) manifest(config ocispecs.Descriptor) ocispecs.Descriptor {
	layer := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: digest.FromString("layer"), Size: 1}
	return l.add(ocispecs.MediaTypeImageManifest, ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, Config: config, Layers: []ocispecs.Descriptor{layer},
	})
}

// image is the config of one with an inline cache of nothing.
func (l *lie) image() ocispecs.Descriptor {
	return l.add(ocispecs.MediaTypeImageConfig, map[string]any{
		"rootfs": map[string]any{"type": "layers", "diff_ids": []digest.Digest{digest.FromString("files")}}, "moby.buildkit.cache.v0": []byte("[]"),
	})
}

// lies are those that BuildKit's importer ends the process for, but for "chains": of these, a few thousand take all memory.
var lies = map[string]func(*lie){
	"config": func(l *lie) {
		config := l.image()
		config.Size = 1 << 42
		l.manifest(config)
	},
	"negative": func(l *lie) {
		config := l.image()
		config.Size = -1
		l.manifest(config)
	},
	"index": func(l *lie) {
		d := l.manifest(l.image())
		d.Size = 1 << 42
		l.add(ocispecs.MediaTypeImageIndex, ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: []ocispecs.Descriptor{d}})
	},
	"history": func(l *lie) { l.manifest(l.image()) },
	"chains": func(l *lie) {
		c := cacheimporttypes.CacheConfig{}
		for i := range 600 {
			c.Layers = append(c.Layers, cacheimporttypes.CacheLayer{Blob: digest.FromString("layer"), ParentIndex: i - 1})
		}
		c.Records = []cacheimporttypes.CacheRecord{{Digest: digest.FromString("step"), Results: []cacheimporttypes.CacheResult{{LayerIndex: 599, CreatedAt: time.Unix(1, 0)}}}}
		l.manifest(l.add(cacheimporttypes.CacheConfigMediaTypeV0, c))
	},
}

// liesRepository is where the registry has hostile caches.
const liesRepository = "lies"

// lying-caches DIR: makes hostile caches, each as a tag of the repository "lies" and as a directory below DIR.
func lyingCaches(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "lying-caches DIR")
	repository := "http://" + worldOf(ts).server.Addr + "/v2/" + liesRepository
	for tag, tell := range lies {
		l := &lie{}
		tell(l)
		dir := filepath.Join(ts.MkAbs(args[0]), tag)
		ts.Check(os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755))
		for i, d := range l.blobs {
			ts.Check(os.WriteFile(filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded()), d.Data, 0o644))
			to := repository + "/manifests/" + d.Digest.String()
			switch {
			case i == len(l.blobs)-1:
				to = repository + "/manifests/" + tag
				root, err := json.Marshal(ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispecs.Descriptor{{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: map[string]string{ocispecs.AnnotationRefName: "latest"}}}})
				ts.Check(err)
				ts.Check(os.WriteFile(filepath.Join(dir, "index.json"), root, 0o644))
				ts.Check(os.WriteFile(filepath.Join(dir, ocispecs.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
			case d.MediaType != ocispecs.MediaTypeImageManifest:
				to = repository + "/blobs/uploads/?digest=" + d.Digest.String()
			}
			send(ts, to, d)
		}
	}
}

// send gives a registry a manifest, or a blob at once.
func send(ts *testscript.TestScript, to string, d ocispecs.Descriptor) {
	method := http.MethodPut
	if strings.Contains(to, "/uploads/") {
		method = http.MethodPost
	}
	req, err := http.NewRequest(method, to, bytes.NewReader(d.Data))
	ts.Check(err)
	req.Header.Set("Content-Type", d.MediaType)
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		ts.Fatalf("%s %s: %s", method, to, res.Status)
	}
}
