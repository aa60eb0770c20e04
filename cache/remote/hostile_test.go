package remote

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache/origin"
)

// plant stores bytes as the index of a scope, as somebody would who may write to the repository: the tag is in order but for what change makes of it.
func plant(t *testing.T, f *fake, scope string, packed []byte, change func(*ocispecs.Index)) {
	t.Helper()
	s := f.open(t, Options{})
	d, err := s.PushBytes(t.Context(), mediaTypeIndex, packed)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newTagged(scope, d).marshal()
	if err != nil {
		t.Fatal(err)
	}
	var x ocispecs.Index
	if err := json.Unmarshal(b, &x); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&x)
	}
	plantRaw(t, f, scope, ocispecs.MediaTypeImageIndex, []byte(jsonText(x)))
}

func plantRaw(t *testing.T, f *fake, scope, mediaType string, b []byte) {
	t.Helper()
	if err := f.open(t, Options{}).put(t.Context(), tagOf(scope), mediaType, b, nil); err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, plain string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll([]byte(plain), nil)
}

// lines is an index of a scope "main" with these blobs and entries.
func lines(blobs, entries []string) string {
	return fmt.Sprintf(`{"version":1,"scope":"main","blobs":%d,"entries":%d}`, len(blobs), len(entries)) + "\n" +
		strings.Join(append(blobs, entries...), "\n") + "\n"
}

// TestHostileIndex: whatever is wrong with an index, it is a miss with one message, and no error.
func TestHostileIndex(t *testing.T) {
	sum := digest.FromString("x").String()
	blob := `{"mediaType":"application/x","digest":"` + sum + `","size":1}`
	good := lines([]string{blob}, []string{`{"kind":"k","key":"1","created":1,"blob":0}`})
	of := func(blobs, entries []string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) { plant(t, f, "main", pack(t, lines(blobs, entries)), nil) }
	}
	text := func(plain string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) { plant(t, f, "main", pack(t, plain), nil) }
	}
	annotated := func(key, value string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) {
			plant(t, f, "main", pack(t, good), func(x *ocispecs.Index) { x.Annotations[key] = value })
		}
	}
	entryLine := func(s string) func(*testing.T, *fake) { return of([]string{blob}, []string{s}) }
	blobLine := func(s string) func(*testing.T, *fake) {
		return of([]string{s}, []string{`{"kind":"k","key":"1","created":1,"blob":0}`})
	}
	big := strings.Repeat("x", 70<<10)

	for name, c := range map[string]struct {
		plant func(*testing.T, *fake)
		want  string // in the message
	}{
		"good":    {text(good), ""},
		"no JSON": {func(t *testing.T, f *fake) { plantRaw(t, f, "main", "text/plain", []byte("hello")) }, "invalid character"},
		"an image": {func(t *testing.T, f *fake) {
			plantRaw(t, f, "main", ocispecs.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
		}, "it is no cache of optbuild"},
		"a huge tag": {func(t *testing.T, f *fake) {
			plant(t, f, "main", pack(t, good), func(x *ocispecs.Index) { x.Annotations["x"] = big })
		}, "too large"},
		"a tag of the next version": {func(t *testing.T, f *fake) {
			plant(t, f, "main", pack(t, good), func(x *ocispecs.Index) { x.ArtifactType = "application/vnd.optbuild.cache.v2" })
		}, "another version"},
		"another scope's tag":       {annotated(annotationScope, "other"), `scope "other"`},
		"no index":                  {annotated(annotationIndex, ""), "no SHA-256 digest"},
		"SHA-512":                   {annotated(annotationIndex, digest.SHA512.FromString("x").String()), "no SHA-256 digest"},
		"an index that is gone":     {annotated(annotationIndex, sum), "no longer"},
		"a negative size":           {annotated(annotationBytes, "-1"), "-1 bytes"},
		"a huge size":               {annotated(annotationBytes, "99999999"), "too large"},
		"a wrong size":              {annotated(annotationBytes, "5"), "has not 5 bytes"},
		"no size":                   {annotated(annotationBytes, "many"), "many"},
		"no zstd":                   {func(t *testing.T, f *fake) { plant(t, f, "main", []byte("hello"), nil) }, "magic"},
		"a zip bomb of zeros":       {func(t *testing.T, f *fake) { plant(t, f, "main", bomb(t, "\x00"), nil) }, "token too long"},
		"a zip bomb of lines":       {func(t *testing.T, f *fake) { plant(t, f, "main", bomb(t, "{}\n"), nil) }, "version"},
		"a zip bomb behind the end": {func(t *testing.T, f *fake) { plant(t, f, "main", append(pack(t, good), bomb(t, "\n")...), nil) }, "behind its end"},
		"a huge window":             {func(t *testing.T, f *fake) { plant(t, f, "main", wide(t, good), nil) }, "window size"},
		"the next version":          {text(`{"version":2}` + "\n"), "another version"},
		"another scope":             {text(`{"version":1,"scope":"other"}` + "\n"), `scope "other"`},
		"nothing":                   {text(""), "ends early"},
		"cut off":                   {text(good[:len(good)-50]), "unexpected end"},
		"an entry is missing":       {text(`{"version":1,"scope":"main","blobs":0,"entries":1}` + "\n"), "ends early"},
		"an entry too many":         {text(good + good), "behind its end"},
		"too many entries":          {text(`{"version":1,"scope":"main","entries":20001}` + "\n"), "too large"},
		"too many blobs":            {text(`{"version":1,"scope":"main","blobs":99999999}` + "\n"), "too large"},
		"-1 blobs":                  {text(`{"version":1,"scope":"main","blobs":-1}` + "\n"), "too large"},
		"a blob that is none":       {entryLine(`{"kind":"k","key":"1","created":1,"blob":1}`), "no blob 1"},
		"blob -1":                   {entryLine(`{"kind":"k","key":"1","created":1,"blob":0,"holds":[-1]}`), "no blob -1"},
		"no kind":                   {entryLine(`{"key":"1","created":1,"blob":0}`), "no kind"},
		"a long kind":               {entryLine(`{"kind":"` + big + `","created":1,"blob":0}`), "too long"},
		"a long key":                {entryLine(`{"kind":"k","key":"` + big + `","created":1,"blob":0}`), "too long"},
		"a long note":               {entryLine(`{"kind":"k","created":1,"blob":0,"note":{"a":"` + big + `"}}`), "too long"},
		"many notes":                {entryLine(`{"kind":"k","created":1,"blob":0,"note":{` + pairs(65) + `}}`), "65 notes"},
		"a note for terminals":      {entryLine(`{"kind":"k","created":1,"blob":0,"note":{"a":"\u001b[2J"}}`), "no text"},
		"a key for terminals":       {entryLine(`{"kind":"k","key":"a\rb","created":1,"blob":0}`), "no text"},
		"the year 292277026596":     {entryLine(`{"kind":"k","created":9223372036854775807,"blob":0}`), "year"},
		"before 1970":               {entryLine(`{"kind":"k","created":-99999999,"blob":0}`), "year"},
		"many holds":                {entryLine(`{"kind":"k","created":1,"blob":0,"holds":[` + strings.Repeat("0,", 10_000) + `0]}`), "10001 blobs"},
		"a blob of -1 bytes":        {blobLine(`{"mediaType":"x","digest":"` + sum + `","size":-1}`), "-1 bytes"},
		"a blob of 2^63 bytes":      {blobLine(`{"mediaType":"x","digest":"` + sum + `","size":9223372036854775807}`), "bytes"},
		"a blob with a path":        {blobLine(`{"mediaType":"x","digest":"sha256:../../../etc/passwd","size":1}`), "no SHA-256"},
		"a blob of MD5":             {blobLine(`{"mediaType":"x","digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1}`), "no SHA-256"},
		"a manifest as a blob":      {blobLine(`{"mediaType":"` + ocispecs.MediaTypeImageManifest + `","digest":"` + sum + `","size":1}`), "no blob"},
		"annotations":               {blobLine(`{"mediaType":"x","digest":"` + sum + `","size":1,"annotations":{"a":"` + big + `"}}`), "too long"},
		"two sizes of one blob":     {of([]string{blob, strings.Replace(blob, `"size":1`, `"size":2`, 1)}, nil), "two sizes"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			c.plant(t, f)
			var w warnings
			s := f.open(t, Options{Read: []string{"main"}, Warn: w.add})
			for range 2 {
				x, err := s.Load(t.Context())
				if err != nil {
					t.Fatalf("Load: %v", err)
				}
				if got := len(x.All("")); (got == 0) != (c.want != "") {
					t.Errorf("%d entries", got)
				}
			}
			if got := w.String(); !strings.Contains(got, c.want) || strings.Count(got, "\n") > 0 || (got == "") != (c.want == "") {
				t.Errorf("message %q, want one with %q", got, c.want)
			}
		})
	}
}

// bomb unpacks to 4 GiB.
func bomb(t *testing.T, of string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Repeat([]byte(of), 4<<20/len(of))
	for range 40 {
		if _, err := w.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wide is packed so that unpacking it wants a window of 64 MiB.
func wide(t *testing.T, plain string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pairs(n int) string {
	var p []string
	for i := range n {
		p = append(p, fmt.Sprintf(`"%d":""`, i))
	}
	return strings.Join(p, ",")
}

// TestDamageHeals: a writer replaces what is damaged, but nothing that is not its own.
func TestDamageHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		plant(t, f, "main", []byte("hello"), nil)
		s := f.open(t, Options{Write: "main"})
		e := entry("a", "1", when)
		if err := s.Add(t.Context(), []Entry{e}); err != nil {
			t.Fatal(err)
		}
		if x, err := s.Load(t.Context()); err != nil || !x.Has(e) {
			t.Errorf("not healed: %v", err)
		}
		for _, scope := range []string{"image", "next"} {
			image := `{"schemaVersion":2,"config":{},"layers":[]}`
			if scope == "image" {
				plantRaw(t, f, scope, ocispecs.MediaTypeImageManifest, []byte(image))
			} else {
				plant(t, f, scope, pack(t, `{"version":2}`+"\n"), nil)
			}
			s := f.open(t, Options{Write: scope})
			before, _, err := s.get(t.Context(), tagOf(scope))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Add(t.Context(), []Entry{e}); !errors.Is(err, errForeign) && !errors.Is(err, errVersion) {
				t.Errorf("%s: Add = %v", scope, err)
			}
			if after, _, err := s.get(t.Context(), tagOf(scope)); err != nil || !bytes.Equal(before, after) {
				t.Errorf("%s was overwritten", scope)
			}
		}
	})
}

// TestNetworkTroubleIsAnError, and what other scopes have is there nevertheless.
func TestNetworkTroubleIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		e := entry("a", "1", when)
		if err := f.open(t, Options{Write: "good"}).Add(t.Context(), []Entry{e}); err != nil {
			t.Fatal(err)
		}
		f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "bad") {
				return answer(r, http.StatusServiceUnavailable, ""), nil
			}
			return nil, nil
		}
		var w warnings
		x, err := f.open(t, Options{Read: []string{"bad", "good"}, Warn: w.add}).Load(t.Context())
		if origin.Status(err) != http.StatusServiceUnavailable || !x.Has(e) || w.String() != "" {
			t.Errorf("Load = %v, %v, told %q", x.All(""), err, &w)
		}
		// An answer that never ends does not stop the build for long.
		f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		began := time.Now()
		if _, err := f.open(t, Options{Read: []string{"good"}}).Load(t.Context()); err == nil || time.Since(began) > time.Minute {
			t.Errorf("Load = %v after %v", err, time.Since(began))
		}
	})
}

func TestSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := func(seed byte) ed25519.PrivateKey {
			return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
		}
		public := func(k ed25519.PrivateKey) []ed25519.PublicKey {
			p, ok := k.Public().(ed25519.PublicKey)
			if !ok {
				t.Fatal("no public key")
			}
			return []ed25519.PublicKey{p}
		}
		f := newFake()
		ctx := t.Context()
		ours, theirs := entry("a", "ours", when), entry("a", "theirs", when)
		if err := f.open(t, Options{Write: "main", SigningKey: key(1)}).Add(ctx, []Entry{ours}); err != nil {
			t.Fatal(err)
		}
		expect := func(what, scope string, o Options, want bool, message string) {
			t.Helper()
			var w warnings
			o.Read, o.Warn = []string{scope}, w.add
			x, err := f.open(t, o).Load(ctx)
			if err != nil || x.Has(ours) != want || !strings.Contains(w.String(), message) || (message == "") != (w.String() == "") {
				t.Errorf("%s: found %v (want %v), error %v, told %q", what, !want, want, err, &w)
			}
		}
		expect("trusted", "main", Options{TrustedKeys: append(public(key(2)), public(key(1))...)}, true, "")
		expect("nobody asks for a signature", "main", Options{}, true, "")
		expect("another key", "main", Options{TrustedKeys: public(key(2))}, false, "not signed by a trusted key")
		expect("only a key to sign with", "main", Options{SigningKey: key(2)}, false, "not signed by a trusted key")

		// What was signed for one scope does not count in another one.
		st, err := f.open(t, Options{}).read(ctx, "main")
		if err != nil {
			t.Fatal(err)
		}
		packed, err := encode("other", st.entries)
		if err != nil {
			t.Fatal(err)
		}
		plant(t, f, "other", packed, func(x *ocispecs.Index) { x.Annotations[annotationSignature] = st.signature })
		expect("another scope's", "other", Options{TrustedKeys: public(key(1))}, false, "not signed by a trusted key")
		plant(t, f, "other", packed, nil)
		expect("not signed", "other", Options{TrustedKeys: public(key(1))}, false, "it is not signed")
		plant(t, f, "other", packed, func(x *ocispecs.Index) { x.Annotations[annotationSignature] = "!" })
		expect("no signature", "other", Options{TrustedKeys: public(key(1))}, false, "its signature is none")

		// Entries that were not trusted must not become trusted by an index that has them and is signed.
		if err := f.open(t, Options{Write: "mixed"}).Add(ctx, []Entry{theirs}); err != nil {
			t.Fatal(err)
		}
		if err := f.open(t, Options{Write: "mixed", SigningKey: key(1)}).Add(ctx, []Entry{ours}); err != nil {
			t.Fatal(err)
		}
		x, err := f.open(t, Options{Read: []string{"mixed"}, TrustedKeys: public(key(1))}).Load(ctx)
		if err != nil || !x.Has(ours) || x.Has(theirs) {
			t.Errorf("mixed: %v, %v", x.All(""), err)
		}
		// Nobody makes an index useless for those who trust it.
		if err := f.open(t, Options{Write: "main"}).Add(ctx, []Entry{theirs}); !errors.Is(err, errSigned) {
			t.Errorf("an index that is signed was overwritten by one that is not: %v", err)
		}
		// Who trusts only what is signed, and can't sign, does not write.
		if err := f.open(t, Options{Write: "main", TrustedKeys: public(key(1))}).Add(ctx, []Entry{ours}); err == nil {
			t.Error("it was written without a signature that its writer would want")
		}

		// What is older than it would have been kept is not taken from an index that has to be signed: it may have been put back.
		time.Sleep(defaultAge + time.Hour - time.Since(when))
		expect("older than the bound", "main", Options{TrustedKeys: public(key(1))}, false, "")
		expect("within the bound", "main", Options{TrustedKeys: public(key(1)), Bounds: Bounds{MaxAge: 2 * defaultAge}}, true, "")
		expect("without a bound", "main", Options{TrustedKeys: public(key(1)), Bounds: Bounds{MaxAge: -1}}, true, "")
		expect("old, and nobody asks for a signature", "main", Options{}, true, "")
	})
}
