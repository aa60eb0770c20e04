package remote

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// What the artifacts of a cache are called. FORMAT.md describes them.
const (
	artifactType   = "application/vnd.optbuild.cache.v1"
	mediaTypeIndex = "application/vnd.optbuild.cache.index.v1+jsonl+zstd"

	annotationPrefix    = "io.github.optbuild.cache."
	annotationScope     = annotationPrefix + "scope"
	annotationIndex     = annotationPrefix + "index"       // digest of the index
	annotationBytes     = annotationPrefix + "index-bytes" // its size
	annotationWrite     = annotationPrefix + "write"       // a number that no other write has
	annotationSignature = annotationPrefix + "signature"
)

const (
	// maxTagged bounds what a tag refers to: a few descriptors and annotations.
	maxTagged = 64 << 10
	// heldPerManifest bounds a manifest that holds blobs: registries refuse manifests of more than 4 MiB (documented by distribution), and at the most a
	// descriptor has 400 bytes.
	heldPerManifest = 8_000
	maxHolders      = 1 + maxBlobs/heldPerManifest
)

// tagPrefix is what the tags of all scopes begin with.
const tagPrefix = "optbuild-cache-"

// heldSuffix ends the tags of holders: of the first ".held", of further ones ".held1" and so on.
const heldSuffix = ".held"

// maxScope is how much of a scope's name a tag has: tags have at most 128 characters.
const maxScope = 96

// tagOf is the tag of a scope: its name where a tag can have it, else the name as far as it goes and eight digits of its SHA-256 digest. A name that looks
// as if it had these, or as if it were a holder's, has them, too, so that no two names have one tag.
func tagOf(scope string) string {
	fit := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '.' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') {
			return r
		}
		return '-'
	}, scope)
	if fit != scope || len(fit) > maxScope || endsHashed(fit) || endsHeld(fit) {
		sum := sha256.Sum256([]byte(scope))
		fit = fit[:min(len(fit), maxScope)] + "-" + hex.EncodeToString(sum[:4])
	}
	return tagPrefix + fit
}

// endsHashed tells whether a name ends like a tag with a digest.
func endsHashed(name string) bool {
	i := len(name) - 9
	return i >= 0 && name[i] == '-' && strings.Trim(name[i+1:], "0123456789abcdef") == ""
}

// endsHeld tells whether a name ends like a holder's tag.
func endsHeld(name string) bool {
	return strings.HasSuffix(strings.TrimRight(name, "0123456789"), heldSuffix)
}

// holderTag is the tag of a scope's nth holder. Nobody reads it: it is for registries and clean-up jobs that take a manifest without a tag for rubbish even if an index names it (distribution
// 2.8's `garbage-collect -m` does). When writers race it may be an older holder's, until the next write.
func holderTag(scopeTag string, n int) string {
	if n == 0 {
		return scopeTag + heldSuffix
	}
	return scopeTag + heldSuffix + strconv.Itoa(n)
}

// tagged is what the tag of a scope refers to: an OCI image index that names the index of the cache, so that a reader needs only these two, and the manifests
// that hold the blobs, so that a registry keeps them.
type tagged struct {
	scope     string
	index     ocispecs.Descriptor
	holders   []ocispecs.Descriptor
	write     string // nonce
	signature string
}

// newTagged returns it with a nonce of its own.
func newTagged(scope string, index ocispecs.Descriptor) tagged {
	return tagged{scope: scope, index: index, write: rand.Text()}
}

func (t tagged) marshal() ([]byte, error) {
	annotations := map[string]string{
		annotationScope: t.scope, annotationIndex: t.index.Digest.String(), annotationBytes: strconv.FormatInt(t.index.Size, 10), annotationWrite: t.write,
	}
	if t.signature != "" {
		annotations[annotationSignature] = t.signature
	}
	return json.Marshal(ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, ArtifactType: artifactType,
		Manifests: t.holders, Annotations: annotations,
	})
}

// errForeign is wrapped when a tag has something that is no cache of this format: it is left alone.
var errForeign = errors.New("it is no cache of optbuild, or one of another version")

// parseTagged reads what marshal has written, from anywhere.
func parseTagged(scope string, b []byte) (t tagged, err error) {
	if len(b) > maxTagged {
		return t, errTooLarge
	}
	var x ocispecs.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return t, err
	}
	if x.ArtifactType != artifactType {
		return t, fmt.Errorf("%w (%q)", errForeign, clip(x.ArtifactType))
	}
	a := x.Annotations
	if a[annotationScope] != scope {
		return t, fmt.Errorf("it is that of the scope %q", clip(a[annotationScope]))
	}
	size, err := strconv.ParseInt(a[annotationBytes], 10, 64)
	if err != nil {
		return t, fmt.Errorf("its index has %q bytes", clip(a[annotationBytes]))
	}
	t = tagged{
		scope: scope, index: ocispecs.Descriptor{MediaType: mediaTypeIndex, Digest: digest.Digest(a[annotationIndex]), Size: size},
		write: a[annotationWrite], signature: a[annotationSignature],
	}
	if err := checkBlob(t.index); err != nil {
		return t, err
	}
	if size > maxPacked {
		return t, errTooLarge
	}
	for _, m := range x.Manifests[:min(len(x.Manifests), maxHolders)] {
		if m.MediaType == ocispecs.MediaTypeImageManifest && m.Digest.Validate() == nil {
			t.holders = append(t.holders, ocispecs.Descriptor{MediaType: m.MediaType, ArtifactType: artifactType, Digest: m.Digest, Size: m.Size})
		}
	}
	return t, nil
}

// hold gives t holders, manifests whose layers are the blobs, and returns their bytes: a registry must keep the blobs as long as the tag is there. They have the nonce, too: otherwise two writers
// could come to the same manifest, one of them to delete it.
func (t *tagged) hold(held []ocispecs.Descriptor) ([][]byte, error) {
	layers := []ocispecs.Descriptor{}
	for _, d := range held {
		layers = append(layers, ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	}
	if len(layers) == 0 { // the specification wants one
		layers = append(layers, t.index)
	}
	var manifests [][]byte
	for len(layers) > 0 {
		n := min(len(layers), heldPerManifest)
		b, err := json.Marshal(ocispecs.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: artifactType,
			Config: t.index, Layers: layers[:n], Annotations: map[string]string{annotationWrite: t.write},
		})
		if err != nil {
			return nil, fmt.Errorf("encode manifest: %w", err)
		}
		layers = layers[n:]
		manifests = append(manifests, b)
		t.holders = append(t.holders, ocispecs.Descriptor{
			MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: artifactType, Digest: digest.FromBytes(b), Size: int64(len(b)),
		})
	}
	return manifests, nil
}
