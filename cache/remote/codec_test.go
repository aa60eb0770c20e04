package remote

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// some are entries that differ in every field.
func some() []Entry {
	var out []Entry
	for i := range 50 {
		e := entry(fmt.Sprint("kind", i%3), fmt.Sprint(i/2), when.Add(time.Duration(i%5)*time.Minute), layer("shared", 7), layer(fmt.Sprint(i), int64(i)))
		if i%4 == 0 {
			e.Note = map[string]string{"step": "RUN x\ty", "<&>": "é\n"}
			e.Holds[0].Annotations = map[string]string{"a": "b"}
		}
		out = append(out, e)
	}
	return out
}

// TestSameEntriesSameBytes: whatever the order in which they came, how often, and from how many.
func TestSameEntriesSameBytes(t *testing.T) {
	all := some()
	want, err := encode("main", union(identify(all)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode("main", want)
	if err != nil || !reflect.DeepEqual(got, union(identify(all))) {
		t.Fatalf("what is read is not what was written: %v", err)
	}
	for range 20 {
		shuffled := slices.Clone(all)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i := range shuffled {
			shuffled[i].Holds = slices.Clone(shuffled[i].Holds)
			slices.Reverse(shuffled[i].Holds)
			shuffled[i].Scope = "elsewhere"
		}
		n := rand.IntN(len(shuffled))
		b, err := encode("main", union(identify(shuffled[n:]), identify(all[:n]), identify(shuffled)))
		if err != nil || !bytes.Equal(b, want) {
			t.Fatalf("other bytes: %v", err)
		}
	}
	if other, err := encode("main", union(identify(all[1:]))); err != nil || bytes.Equal(other, want) {
		t.Errorf("fewer entries, the same bytes: %v", err)
	}
}

// TestID: what makes entries two, and what does not.
func TestID(t *testing.T) {
	ids := map[string]int{}
	for i, e := range some() {
		if other, ok := ids[e.ID()]; ok {
			t.Errorf("entries %d and %d are one", i, other)
		}
		ids[e.ID()] = i
	}
	a, b := entry("k", "1", when), entry("k", "1", when.Add(time.Hour))
	b.Scope, b.Blob.URLs, b.Note = "main", []string{"http://x"}, map[string]string{}
	if a.ID() != b.ID() {
		t.Error("entries that differ in nothing that is stored, but for their time, are two")
	}
	// Texts that join to the same text.
	if entry("ab", "c", when).ID() == entry("a", "bc", when).ID() {
		t.Error("kind and key run into each other")
	}
}

// FuzzDecode: bytes from anywhere are an error, or entries that are the same after another round.
func FuzzDecode(f *testing.F) {
	good, err := encode("main", union(identify(some())))
	if err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		f.Fatal(err)
	}
	defer z.Close()
	plain, err := z.DecodeAll(good, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte(`{"version":1,"scope":"main","blobs":0,"entries":0}` + "\n"))
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		entries, err := decode("main", w.EncodeAll(plain, nil))
		if err != nil {
			return
		}
		b, err := encode("main", entries)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode("main", b)
		if err != nil || !reflect.DeepEqual(again, entries) {
			t.Fatalf("another round gives %v, %v instead of %v", again, err, entries)
		}
	})
}

// FuzzParseTagged: as FuzzDecode, for what a tag refers to.
func FuzzParseTagged(f *testing.F) {
	t := newTagged("main", layer("index", 100))
	if _, err := t.hold(nil); err != nil {
		f.Fatal(err)
	}
	b, err := t.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseTagged("main", b)
		if err == nil && (checkBlob(x.index) != nil || x.index.Size > maxPacked || len(x.holders) > maxHolders) {
			t.Fatalf("accepted: %+v", x)
		}
	})
}

func TestKeyFiles(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	privatePEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	publicPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	write := func(text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if got, err := ReadSigningKey(write("# a comment\n" + privatePEM)); err != nil || !got.Equal(key) {
		t.Errorf("private key: %v", err)
	}
	if got, err := ReadTrustedKeys(write(publicPEM + publicPEM)); err != nil || len(got) != 2 || !got[0].Equal(key.Public()) {
		t.Errorf("public keys: %v", err)
	}
	for text, want := range map[string]string{
		"": "there is no", publicPEM: "there is no private key", privatePEM: `there is a "PRIVATE KEY" in it`,
		strings.Replace(privatePEM, "MC4", "MC5", 1): "", strings.Repeat("x", maxKeyFile+1): "too many",
	} {
		_, signing := ReadSigningKey(write(text))
		_, trusted := ReadTrustedKeys(write(text))
		if text != privatePEM && (signing == nil || !strings.Contains(signing.Error(), want)) {
			t.Errorf("private key of %.30q: %v", text, signing)
		}
		if text != publicPEM && trusted == nil {
			t.Errorf("public keys of %.30q are accepted", text)
		}
	}
}
