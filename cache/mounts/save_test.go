package mounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// next saves a directory again, after prev.
func next(t *testing.T, dir string, s *blobs, prev *Saved) *Saved {
	t.Helper()
	return save(t, dir, s, SaveOptions{Previous: prev.Manifest, State: prev.State})
}

func hour(t *testing.T) { later(t, func() time.Time { return time.Now().Add(time.Hour) }) }

func TestUnchanged(t *testing.T) {
	hour(t)
	dir := oddTree(t)
	s := &blobs{}
	a := save(t, dir, s, SaveOptions{})
	if same, err := Unchanged(t.Context(), dir, a.State.Head); err != nil || !same {
		t.Fatalf("%v, %v", same, err)
	}
	puts := s.puts
	if b := next(t, dir, s, a); b.Descriptor.Digest != a.Descriptor.Digest || b.New != 0 || s.puts != puts+1 {
		t.Errorf("an unchanged directory has another archive: %d bytes", b.New)
	}
	changes := []struct {
		what   string
		change func() error
	}{
		{"content", func() error { return os.WriteFile(filepath.Join(dir, "a.b"), []byte("y"), 0o644) }},
		{"mode", func() error { return os.Chmod(filepath.Join(dir, "a.b"), 0o600) }},
		{"time", func() error { return os.Chtimes(filepath.Join(dir, "empty"), time.Time{}, time.Unix(9, 9)) }},
		{"link", func() error { return os.Link(filepath.Join(dir, "a.b"), filepath.Join(dir, "new")) }},
		{"removal", func() error { return os.Remove(filepath.Join(dir, "empty")) }},
		{"directory", func() error { return os.Mkdir(filepath.Join(dir, "new-dir"), 0o755) }},
		{"target", func() error {
			return errors.Join(os.Remove(filepath.Join(dir, "in")), os.Symlink("a/c", filepath.Join(dir, "in")))
		}},
	}
	for _, c := range changes {
		before, err := walk(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		if same, err := Unchanged(t.Context(), dir, Head{Fingerprint: before.fingerprint}); err != nil || same {
			t.Errorf("a change of %s is not seen: %v", c.what, err)
		}
	}
	got := restored(t, s, next(t, dir, s, a).Descriptor)
	if got, want := list(t, got), list(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A file that is written again with as many bytes and its old time: only the time of change tells.
func TestTimeOfChange(t *testing.T) {
	hour(t)
	dir := t.TempDir()
	put(t, dir, map[string]string{"f": "one"})
	path := filepath.Join(dir, "f")
	old := time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	s := &blobs{}
	a := save(t, dir, s, SaveOptions{})
	ctime := a.State.Files["f"].Stat.CTime
	for { // the clock of the file system goes in ticks
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("two"), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		tr, err := walk(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if tr.nodes[1].stat.CTime != ctime {
			break
		}
	}
	b, err := os.ReadFile(filepath.Join(restored(t, s, next(t, dir, s, a).Descriptor), "f"))
	if err != nil || string(b) != "two" {
		t.Errorf("%q, %v", b, err)
	}
}

// What has just been written could be written again and look the same: nothing is known of it.
func TestNotSettled(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"f": "one"})
	var ctime int64
	if tr, err := walk(t.Context(), dir); err != nil {
		t.Fatal(err)
	} else {
		ctime = tr.newest
	}
	later(t, func() time.Time { return time.Unix(0, ctime).Add(settled / 2) })
	a := save(t, dir, &blobs{}, SaveOptions{})
	if len(a.State.Files) != 0 || a.State.Fingerprint != (Sum{}) {
		t.Errorf("%v is known", a.State)
	}
}

func TestWritesOnlyWhatIsNew(t *testing.T) {
	hour(t)
	dir := t.TempDir()
	files := map[string]string{"large": noise(0, 3*ChunkBytes)}
	for i := range 100 {
		files[fmt.Sprintf("f%d", i)] = noise(uint64(i)+1, 10_000)
	}
	put(t, dir, files)
	s := &blobs{}
	a := save(t, dir, s, SaveOptions{})
	put(t, dir, map[string]string{"new": noise(1000, 10_000), "copy": files["f7"], "large": files["large"] + "appended"})
	if err := os.Remove(filepath.Join(dir, "f1")); err != nil {
		t.Fatal(err)
	}
	b := next(t, dir, s, a)
	if b.New < 10_000 || b.New > 11_000 {
		t.Errorf("%d bytes are new", b.New)
	}
	if got, want := list(t, restored(t, s, b.Descriptor)), list(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// What nobody had for a while comes back.
	put(t, dir, map[string]string{"back": files["f1"]})
	if c := next(t, dir, s, b); c.New != 0 {
		t.Errorf("%d bytes are new", c.New)
	}
	// A machine that knows only the archive, not the directory's state, writes no more than that.
	if c := save(t, dir, s, SaveOptions{Previous: b.Manifest}); c.New != 0 {
		t.Errorf("%d bytes are new", c.New)
	}
}

func TestDeadPacks(t *testing.T) {
	pack := func(name byte, sizes ...int64) (p Pack) {
		p.Digest = describe("", []byte{name}).Digest
		for i, n := range sizes {
			p.Chunks = append(p.Chunks, Chunk{Sum{name, byte(i), byte(i >> 8)}, n})
		}
		return p
	}
	needs := func(refs ...Sum) map[Sum]bool {
		m := map[Sum]bool{}
		for _, r := range refs {
			m[r] = true
		}
		return m
	}
	const large = PackBytes / 4
	a, b, c := pack('a', large, large), pack('b', large, large, large), pack('c', large)
	tests := []struct {
		name  string
		packs []Pack
		needs map[Sum]bool
		keeps []Pack
	}{
		{"all needed", []Pack{a, c}, needs(Sum{'a', 0}, Sum{'a', 1}, Sum{'c', 0}), []Pack{a, c}},
		{"nothing needed", []Pack{a, c}, needs(), nil},
		{"one not needed", []Pack{a, c}, needs(Sum{'c', 0}), []Pack{c}},
		{"more than half of one is dead", []Pack{b, c}, needs(Sum{'b', 0}, Sum{'c', 0}), []Pack{c}},
		{"a third of one is dead, a quarter of all", []Pack{b, c}, needs(Sum{'b', 0}, Sum{'b', 1}, Sum{'c', 0}), []Pack{b, c}},
		{"half of one is dead, a third of all", []Pack{a, c}, needs(Sum{'a', 0}, Sum{'c', 0}), []Pack{c}},
		{"what two have counts once", []Pack{a, a}, needs(Sum{'a', 0}, Sum{'a', 1}), []Pack{a}},
	}
	for _, tt := range tests {
		got := keepPacks(tt.packs, tt.needs)
		if !slices.EqualFunc(got, tt.keeps, func(a, b Pack) bool { return a.Digest == b.Digest }) {
			t.Errorf("%s: %d packs are kept, not %d", tt.name, len(got), len(tt.keeps))
		}
	}
	var small []Pack
	all := needs()
	for i := range byte(maxSmall + 1) {
		small = append(small, pack(i, 100))
		all[Sum{i}] = true
	}
	if got := keepPacks(small[1:], all); len(got) != maxSmall {
		t.Errorf("%d small packs are kept", len(got))
	}
	if got := keepPacks(append(small, a), maps2(all, needs(Sum{'a', 0}, Sum{'a', 1}))); len(got) != 1 {
		t.Errorf("%d packs are kept", len(got))
	}
	crowd := pack('x', slices.Repeat([]int64{1}, 2000)...)
	crowd.Chunks[0].Bytes = large
	if got := keepPacks([]Pack{crowd}, needs(Sum{'x'})); len(got) != 0 {
		t.Error("a pack with 1999 dead chunks is kept")
	}
}

func maps2(a, b map[Sum]bool) map[Sum]bool {
	for k := range b {
		a[k] = true
	}
	return a
}

// A hundred builds, each of which adds something and removes something: the archive stays in bounds, and is the directory each time.
func TestGrowth(t *testing.T) {
	hour(t)
	dir := t.TempDir()
	s := &blobs{}
	var prev *Saved
	for i := range 100 {
		put(t, dir, map[string]string{fmt.Sprintf("f%d", i): noise(uint64(i), 20_000)})
		if i >= 20 {
			if err := os.Remove(filepath.Join(dir, fmt.Sprintf("f%d", i-20))); err != nil {
				t.Fatal(err)
			}
		}
		if prev == nil {
			prev = save(t, dir, s, SaveOptions{})
		} else {
			prev = next(t, dir, s, prev)
		}
		var live, all int64
		for _, p := range prev.Manifest.Packs {
			all += p.bytes()
		}
		live, _ = prev.Manifest.Size()
		if float64(all-live) > maxDead*float64(all) || len(prev.Manifest.Packs) > maxSmall+1 {
			t.Fatalf("after %d: %d of %d bytes are needed, in %d packs", i, live, all, len(prev.Manifest.Packs))
		}
	}
	if got, want := list(t, restored(t, s, prev.Descriptor)), list(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTooLarge(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"00/a": noise(1, 1000), "00/b": noise(2, 1000), "README": noise(3, 1000)})
	times := map[string]int64{"00/a": 100, "00/b": 200, "README": 50}
	for p, sec := range times {
		if err := os.Chtimes(filepath.Join(dir, p), time.Unix(sec, 0), time.Unix(sec, 0)); err != nil {
			t.Fatal(err)
		}
	}
	goBuild := KindOf("/root/.cache/go-build").MayGo
	tests := []struct {
		name  string
		o     SaveOptions
		kept  string
		error error
	}{
		{name: "it fits", o: SaveOptions{Limits: Limits{Bytes: 3000, Files: 5}}, kept: "00/a 00/b README"},
		{name: "bytes, nothing may go", o: SaveOptions{Limits: Limits{Bytes: 2999}}, error: ErrTooLarge},
		{name: "files, nothing may go", o: SaveOptions{Limits: Limits{Files: 4}}, error: ErrTooLarge},
		{name: "bytes", o: SaveOptions{Limits: Limits{Bytes: 2999}, MayGo: goBuild}, kept: "00/b README"},
		{name: "files", o: SaveOptions{Limits: Limits{Files: 4}, MayGo: goBuild}, kept: "00/b README"},
		{name: "not enough may go", o: SaveOptions{Limits: Limits{Bytes: 999}, MayGo: goBuild}, error: ErrTooLarge},
		{name: "age", o: SaveOptions{MaxAge: 300 * time.Second, MayGo: goBuild}, kept: "00/b README"},
		{name: "age, nothing may go", o: SaveOptions{MaxAge: 300 * time.Second}, kept: "00/a 00/b README"},
	}
	later(t, func() time.Time { return time.Unix(450, 0) })
	for _, tt := range tests {
		s := &blobs{}
		a, err := Save(t.Context(), dir, s, tt.o)
		if !errors.Is(err, tt.error) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.error)
		}
		if err != nil {
			if len(s.all) > 0 {
				t.Errorf("%s: blobs were made", tt.name)
			}
			continue
		}
		var kept []string
		for _, e := range a.Manifest.Entries {
			if e.Type == File {
				kept = append(kept, string(e.Path))
			}
		}
		if got := strings.Join(kept, " "); got != tt.kept {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.kept)
		}
	}
}

// A file with two names counts once.
func TestLinkedFileCountsOnce(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"a": noise(1, 1000)})
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	save(t, dir, &blobs{}, SaveOptions{Limits: Limits{Bytes: 1000}})
}

// sinkFunc does something when a blob is put, which is after files have been read once.
type sinkFunc func(ocispecs.Descriptor) error

func (f sinkFunc) Put(_ context.Context, d ocispecs.Descriptor, _ []byte) error { return f(d) }

// Somebody writes while the directory is saved.
func TestChangedMeanwhile(t *testing.T) {
	for what, change := range map[string]func(dir string) error{
		"a file is written": func(dir string) error { return os.WriteFile(filepath.Join(dir, "d/f"), []byte("other"), 0o644) },
		"a file is added":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "d/g"), nil, 0o644) },
		"a file is removed": func(dir string) error { return os.Remove(filepath.Join(dir, "d/f")) },
		"a directory becomes a link": func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "e")), os.Symlink("/etc", filepath.Join(dir, "d")))
		},
	} {
		dir := t.TempDir()
		put(t, dir, map[string]string{"d/f": "text"})
		manifests := 0
		_, err := Save(t.Context(), dir, sinkFunc(func(d ocispecs.Descriptor) error {
			if d.MediaType == MediaTypeManifest {
				manifests++
				return nil
			}
			return change(dir)
		}), SaveOptions{})
		if !errors.Is(err, ErrChanged) || manifests > 0 {
			t.Errorf("%s: %v, %d manifests", what, err, manifests)
		}
	}
}

// The names of a walk lead elsewhere when they are opened.
func TestReadsNothingElsewhere(t *testing.T) {
	secret := t.TempDir()
	put(t, secret, map[string]string{"f": "secret"})
	dir := t.TempDir()
	put(t, dir, map[string]string{"d/f": "public"})
	tr, err := walk(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "d")), os.Symlink(secret, filepath.Join(dir, "d"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := tr.digest(t.Context(), root, nil); err == nil {
		t.Error("a file outside was read")
	}
}

func TestState(t *testing.T) {
	hour(t)
	a := save(t, oddTree(t), &blobs{}, SaveOptions{})
	var b bytes.Buffer
	if err := a.State.Write(&b); err != nil {
		t.Fatal(err)
	}
	head, err := ReadState(bytes.NewReader(b.Bytes()), false)
	if err != nil || head.Fingerprint != a.State.Fingerprint || head.Manifest.Digest != a.Descriptor.Digest || head.Files != nil {
		t.Errorf("%v, %v", head, err)
	}
	all, err := ReadState(bytes.NewReader(b.Bytes()), true)
	if err != nil || len(all.Files) != len(a.State.Files) || len(all.Files) == 0 {
		t.Errorf("%v, %v", all, err)
	}
	for i := range b.Len() {
		if i%7 == 0 { // each is a truncated file
			if _, err := ReadState(bytes.NewReader(b.Bytes()[:i]), true); err == nil {
				t.Errorf("%d of %d bytes are taken for a state", i, b.Len())
			}
		}
	}
}

// A directory that was restored and not touched is the archive that it was made from.
func TestRestoredState(t *testing.T) {
	dir := oddTree(t)
	s := &blobs{}
	a := save(t, dir, s, SaveOptions{})
	later(t, func() time.Time { return time.Now().Add(time.Hour) })
	got := t.TempDir()
	st, err := Restore(t.Context(), got, a.Manifest, s)
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Files) == 0 {
		t.Error("nothing is known")
	}
	b := save(t, got, s, SaveOptions{Previous: a.Manifest, State: st})
	if b.Descriptor.Digest != a.Descriptor.Digest || b.New != 0 {
		t.Errorf("%v, %d bytes new", b.Descriptor, b.New)
	}
}
