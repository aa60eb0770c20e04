package remote

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Entry is one thing that a build has added. Entries that differ in nothing but Created and Scope are one, made at the later time.
type Entry struct {
	Kind    string                // "solver", "trace", "mount", ...: what Blob is; free for callers
	Key     string                // what it is looked for by, the hex of a digest, say; several entries may have one key, the newest counts first
	Created time.Time             // in seconds; what is older goes first when there is too much
	Blob    ocispecs.Descriptor   // the entry's own content; small
	Holds   []ocispecs.Descriptor // other blobs that live as long as the entry: layers
	Note    map[string]string     // small facts for people and for callers
	Scope   string                // where it was found; not stored
}

// Bounds of one entry. What has a longer text is refused, on the way out and on the way in.
const (
	maxKind      = 64
	maxKey       = 512
	maxScopeName = 1024
	maxText      = 4 << 10 // a value of a note or annotation
	maxName      = 256     // its name
	maxPairs     = 64      // of one map
	maxBlob      = 1 << 44 // 16 TiB, so that sums don't overflow
	maxHolds     = 10_000
	maxLine      = 256 << 10 // of an index: an entry with that many holds
)

// check says what is wrong with an entry.
func (e *Entry) check() error {
	if err := checkText("kind", e.Kind, maxKind, ""); err != nil {
		return err
	}
	if e.Kind == "" {
		return errors.New("it has no kind")
	}
	if err := checkText("key", e.Key, maxKey, ""); err != nil {
		return err
	}
	if err := checkMap("note", e.Note); err != nil {
		return err
	}
	if len(e.Holds) > maxHolds {
		return fmt.Errorf("it holds %d blobs: too many", len(e.Holds))
	}
	if y := e.Created.Year(); y < 1970 || y > 9999 {
		return fmt.Errorf("it was made in the year %d", y)
	}
	for _, d := range append([]ocispecs.Descriptor{e.Blob}, e.Holds...) {
		if err := checkBlob(d); err != nil {
			return err
		}
	}
	return nil
}

// checkBlob says what is wrong with a descriptor.
func checkBlob(d ocispecs.Descriptor) error {
	if !isSHA256(d.Digest) {
		return fmt.Errorf("%q is no SHA-256 digest", clip(string(d.Digest)))
	}
	if d.Size < 0 || d.Size > maxBlob {
		return fmt.Errorf("%s has %d bytes", d.Digest, d.Size)
	}
	if err := checkText("media type", d.MediaType, maxName, ""); err != nil {
		return err
	}
	if d.MediaType == "" || images.IsManifestType(d.MediaType) || images.IsIndexType(d.MediaType) {
		return fmt.Errorf("%s is no blob (%q)", d.Digest, d.MediaType)
	}
	return checkMap("annotation", d.Annotations)
}

// isSHA256 is what Validate says of a SHA-256 digest, without its regular expression: an index has thousands.
func isSHA256(d digest.Digest) bool {
	digits, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok || len(digits) != 64 {
		return false
	}
	return !strings.ContainsFunc(digits, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

func checkMap(what string, m map[string]string) error {
	if len(m) > maxPairs {
		return fmt.Errorf("it has %d %ss: too many", len(m), what)
	}
	for k, v := range m {
		if err := checkText("name of a "+what, k, maxName, ""); err != nil {
			return err
		}
		if err := checkText(what, v, maxText, "\n\t"); err != nil {
			return err
		}
	}
	return nil
}

// checkText refuses long texts, and those that a terminal would obey.
func checkText(what, s string, most int, allowed string) error {
	if len(s) > most {
		return fmt.Errorf("a %s has %d bytes: too long", what, len(s))
	}
	bad := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune(allowed, r) }
	if !utf8.ValidString(s) || strings.ContainsFunc(s, bad) {
		return fmt.Errorf("a %s is no text: %q", what, clip(s))
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// plain is an entry in the form in which it is stored: holds sorted, each once, and of descriptors only what says what a blob is. Above all not where else it
// could be had (URLs): a cache must not be able to send its readers anywhere.
func (e Entry) plain() Entry {
	e.Created = e.Created.UTC().Truncate(time.Second)
	e.Blob = bare(e.Blob)
	e.Scope = ""
	holds := make([]ocispecs.Descriptor, len(e.Holds))
	for i, d := range e.Holds {
		holds[i] = bare(d)
	}
	slices.SortFunc(holds, compareBlobs)
	e.Holds = nil
	if len(holds) > 0 {
		e.Holds = slices.CompactFunc(holds, func(a, b ocispecs.Descriptor) bool { return a.Digest == b.Digest })
	}
	if len(e.Note) == 0 {
		e.Note = nil
	}
	return e
}

func bare(d ocispecs.Descriptor) ocispecs.Descriptor {
	out := ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if len(d.Annotations) > 0 {
		out.Annotations = d.Annotations
	}
	return out
}

func compareBlobs(a, b ocispecs.Descriptor) int {
	if c := cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.MediaType, b.MediaType), cmp.Compare(a.Size, b.Size)); c != 0 {
		return c
	}
	if maps.Equal(a.Annotations, b.Annotations) {
		return 0
	}
	return cmp.Compare(jsonText(a.Annotations), jsonText(b.Annotations))
}

// jsonText is v with the keys of maps in order.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("remote: encode %T: %v", v, err)) // strings and numbers only
	}
	return string(b)
}

// ID is the same for entries that are one.
func (e Entry) ID() string { return idOf(e.plain()) }

// idOf is ID for an entry in its plain form.
func idOf(e Entry) string {
	h := sha256.New()
	text := func(s string) { fmt.Fprintf(h, "%d %s ", len(s), s) }
	pairs := func(m map[string]string) {
		fmt.Fprintf(h, "%d ", len(m))
		for _, k := range slices.Sorted(maps.Keys(m)) {
			text(k)
			text(m[k])
		}
	}
	blob := func(d ocispecs.Descriptor) {
		text(d.MediaType)
		text(string(d.Digest))
		fmt.Fprintf(h, "%d ", d.Size)
		pairs(d.Annotations)
	}
	text(e.Kind)
	text(e.Key)
	blob(e.Blob)
	fmt.Fprintf(h, "%d ", len(e.Holds))
	for _, d := range e.Holds {
		blob(d)
	}
	pairs(e.Note)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// identified is an entry with its identity, which is asked for often.
type identified struct {
	Entry
	id string
}

func identify(entries []Entry) []identified {
	out := make([]identified, len(entries))
	for i, e := range entries {
		e = e.plain()
		out[i] = identified{e, idOf(e)}
	}
	return out
}

// newestFirst is the order of an index. It is total: equal sets of entries have equal indexes.
func newestFirst(a, b identified) int {
	return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key), cmp.Compare(a.id, b.id))
}

// union is what is in any of the lists, each entry once with its latest time, newest first.
func union(lists ...[]identified) []identified {
	at := map[string]int{}
	var out []identified
	for _, list := range lists {
		for _, e := range list {
			i, ok := at[e.id]
			if !ok {
				at[e.id] = len(out)
				out = append(out, e)
			} else if e.Created.After(out[i].Created) {
				out[i].Created = e.Created
			}
		}
	}
	slices.SortFunc(out, newestFirst)
	return out
}

// blobs are the distinct blobs of entries, sorted.
func blobs(entries []identified) []ocispecs.Descriptor {
	var out []ocispecs.Descriptor
	for _, e := range entries {
		out = append(append(out, e.Blob), e.Holds...)
	}
	slices.SortFunc(out, compareBlobs)
	return slices.CompactFunc(out, func(a, b ocispecs.Descriptor) bool { return a.Digest == b.Digest })
}
