package mounts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// archive has a file "f" with the chunk "text", in one pack, beside what is given.
func archive(t *testing.T, s *blobs, entries ...Entry) *Manifest {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, map[string]string{"f": "text"})
	m := save(t, dir, s, SaveOptions{}).Manifest
	m.Entries = append(m.Entries, entries...)
	return m
}

// hostile makes the blob of a manifest that Encode would not make, of lines.
func hostile(t *testing.T, lines ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := newEncoder(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		text, ok := l.(string)
		if !ok {
			j, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			text = string(j)
		}
		if _, err := fmt.Fprintln(z, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileEntries(t *testing.T) {
	file := func(p string) Entry { return Entry{Path: name(p), Type: File, Mode: 0o644} }
	tests := map[string][]Entry{
		"up":                     {file("../up")},
		"up from below":          {{Path: "g", Type: Directory}, file("g/../../up")},
		"absolute":               {file("/tmp/absolute")},
		"dot":                    {file("./g")},
		"itself again":           {{Path: ".", Type: Directory}},
		"empty":                  {file("")},
		"two slashes":            {{Path: "g", Type: Directory}, file("g//h")},
		"slash at the end":       {file("g/")},
		"zero byte":              {file("g\x00")},
		"long":                   {file(strings.Repeat("g", maxName+1))},
		"twice":                  {file("f")},
		"twice, two types":       {file("g"), {Path: "g", Type: Symlink, Target: "/etc"}},
		"below a link":           {{Path: "l", Type: Symlink, Target: "/etc"}, file("l/passwd")},
		"below a file":           {file("f/g")},
		"below a hard link":      {{Path: "l", Type: HardLink, Target: "f"}, file("l/g")},
		"below nothing":          {file("nothing/g")},
		"not in order":           {file("h"), file("g")},
		"setuid":                 {{Path: "g", Type: File, Mode: 0o4755}},
		"setgid":                 {{Path: "g", Type: File, Mode: 0o2755}},
		"device":                 {{Path: "g", Type: "device"}},
		"device by mode":         {{Path: "g", Type: File, Mode: 0o020644}},
		"setuid directory":       {{Path: "g", Type: Directory, Mode: 0o4755}},
		"no owner":               {{Path: "g", Type: File, UID: 1<<32 - 1}},
		"hard link to itself":    {{Path: "g", Type: HardLink, Target: "g"}},
		"hard links in a circle": {{Path: "g", Type: HardLink, Target: "h"}, {Path: "h", Type: HardLink, Target: "g"}},
		"hard link to a link":    {{Path: "g", Type: Symlink, Target: "/etc/passwd"}, {Path: "h", Type: HardLink, Target: "g"}},
		"hard link to directory": {{Path: "g", Type: HardLink, Target: "."}},
		"hard link out":          {{Path: "g", Type: HardLink, Target: "../../etc/passwd"}},
		"hard link with a mode":  {{Path: "g", Type: HardLink, Target: "f", Mode: 0o777}},
		"link to nothing":        {{Path: "g", Type: Symlink}},
		"link with zero byte":    {{Path: "g", Type: Symlink, Target: "a\x00b"}},
		"no such chunk":          {{Path: "g", Type: File, Chunks: []int{1}}},
		"chunk before the first": {{Path: "g", Type: File, Chunks: []int{-1}}},
		"directory with chunks":  {{Path: "g", Type: Directory, Chunks: []int{0}}},
		"capabilities":           {{Path: "g", Type: File, Xattrs: map[string][]byte{"security.capability": {1}}}},
		"overlay's attributes":   {{Path: "g", Type: Directory, Xattrs: map[string][]byte{"user.overlay.opaque": []byte("y")}}},
		"trusted attributes":     {{Path: "g", Type: Directory, Xattrs: map[string][]byte{"trusted.overlay.redirect": []byte("/")}}},
		"large attributes":       {{Path: "g", Type: File, Xattrs: map[string][]byte{"user.x": make([]byte, maxXattrs)}}},
		"attributes of a link":   {{Path: "g", Type: Symlink, Target: "x", Xattrs: map[string][]byte{"user.x": nil}}},
	}
	for _, what := range slices.Sorted(maps.Keys(tests)) {
		_, b, err := archive(t, &blobs{}, tests[what]...).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b, Limits{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The same way in, with what is allowed.
	_, b, err := archive(t, &blobs{}, file("g"), Entry{Path: "h", Type: HardLink, Target: "f"}, Entry{Path: "l", Type: Symlink, Target: "/etc"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(b, Limits{}); err != nil {
		t.Error(err)
	}
}

func TestHostileManifests(t *testing.T) {
	const (
		dir   = `{"path":".","type":"dir","mode":493}`
		pack  = `{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":10,"chunks":1}`
		chunk = `{"sum":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","bytes":4}`
		file  = `{"path":"f","type":"file","chunks":[0]}`
	)
	head := headerLine{1, 1, 1, 2}
	ok := hostile(t, head, pack, chunk, dir, file)
	if _, err := Decode(ok, Limits{}); err != nil {
		t.Fatal(err)
	}
	bomb := func() []byte { // 64 MiB of nothing
		var b bytes.Buffer
		z, _ := zstd.NewWriter(&b)
		zeros := make([]byte, 1<<20)
		for range 64 {
			_, _ = z.Write(zeros)
		}
		z.Close()
		return b.Bytes()
	}
	wide, _ := zstd.NewWriter(nil, zstd.WithWindowSize(64<<20))
	bigWindow := wide.EncodeAll(make([]byte, 65<<20), nil)
	tests := map[string][]byte{
		"nothing":              nil,
		"no zstd":              []byte("text"),
		"truncated":            ok[:len(ok)-4],
		"no line":              hostile(t),
		"no JSON":              hostile(t, "text"),
		"other version":        hostile(t, headerLine{2, 1, 1, 2}, pack, chunk, dir, file),
		"bomb":                 bomb(),
		"a large window":       bigWindow,
		"too many entries":     hostile(t, headerLine{1, 1, 1, 1 << 40}, pack, chunk, dir, file),
		"negative entries":     hostile(t, headerLine{1, 1, 1, -1}, pack, chunk, dir, file),
		"no entries":           hostile(t, headerLine{1, 1, 1, 0}, pack, chunk),
		"too many packs":       hostile(t, headerLine{1, 1 << 40, 1 << 40, 2}, pack, chunk, dir, file),
		"negative packs":       hostile(t, headerLine{1, -1, 1, 2}, pack, chunk, dir, file),
		"too many chunks":      hostile(t, headerLine{1, 1, 1 << 40, 2}, pack, chunk, dir, file),
		"fewer entries":        hostile(t, headerLine{1, 1, 1, 3}, pack, chunk, dir, file),
		"more entries":         hostile(t, headerLine{1, 1, 1, 1}, pack, chunk, dir, file),
		"chunks do not add up": hostile(t, headerLine{1, 1, 2, 2}, pack, chunk, chunk, dir, file),
		"more chunks":          hostile(t, head, strings.Replace(pack, `"chunks":1`, `"chunks":2`, 1), chunk, chunk, dir, file),
		"negative pack size":   hostile(t, head, strings.Replace(pack, "10", "-10", 1), chunk, dir, file),
		"large pack":           hostile(t, head, strings.Replace(pack, "10", "1000000000000", 1), chunk, dir, file),
		"negative chunk count": hostile(t, head, strings.Replace(pack, `"chunks":1`, `"chunks":-1`, 1), chunk, dir, file),
		"other algorithm":      hostile(t, head, strings.Replace(pack, "sha256:", "md5:", 1), chunk, dir, file),
		"digest with a path":   hostile(t, head, strings.Replace(pack, "sha256:", "../../", 1), chunk, dir, file),
		"negative chunk":       hostile(t, head, pack, strings.Replace(chunk, `"bytes":4`, `"bytes":-4`, 1), dir, file),
		"empty chunk":          hostile(t, head, pack, strings.Replace(chunk, `"bytes":4`, `"bytes":0`, 1), dir, file),
		"large chunk":          hostile(t, head, pack, strings.Replace(chunk, `"bytes":4`, `"bytes":4194305`, 1), dir, file),
		"overflowing chunk":    hostile(t, head, pack, strings.Replace(chunk, `"bytes":4`, `"bytes":99999999999999999999`, 1), dir, file),
		"short sum":            hostile(t, head, pack, strings.Replace(chunk, "e3b0", "", 1), dir, file),
		"no directory first":   hostile(t, headerLine{1, 1, 1, 1}, pack, chunk, file),
		"a long line":          hostile(t, head, pack, chunk, dir, strings.Replace(file, "f", strings.Repeat("f", maxLine), 1)),
		"a name in two ways":   hostile(t, head, pack, chunk, dir, strings.Replace(file, `"f"`, `"\\x66"`, 1)),
		"more bytes than it may": hostile(t, head, pack, strings.Replace(chunk, `"bytes":4`, `"bytes":4194304`, 1), dir,
			strings.Replace(file, "[0]", "["+strings.Repeat("0,", 600)+"0]", 1)), // 2.3 GiB of a pack of 10 bytes
	}
	for _, what := range slices.Sorted(maps.Keys(tests)) {
		if _, err := Decode(tests[what], Limits{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What is wrong with packs is found while the tree is made: the directory is empty then.
func TestHostilePacks(t *testing.T) {
	compressed := func(text string) []byte {
		var b bytes.Buffer
		z, _ := newEncoder(&b)
		_, _ = z.Write([]byte(text))
		z.Close()
		return b.Bytes()
	}
	tests := map[string]func(s *blobs, m *Manifest){
		"gone":      func(s *blobs, m *Manifest) { clear(s.all) },
		"truncated": func(s *blobs, m *Manifest) { s.all[m.Packs[0].Digest] = s.all[m.Packs[0].Digest][:8] },
		"truncated, of that size": func(s *blobs, m *Manifest) {
			b := s.all[m.Packs[0].Digest][:8]
			s.all[m.Packs[0].Digest], m.Packs[0].Size = b, int64(len(b))
		},
		"other content": func(s *blobs, m *Manifest) {
			b := compressed("evil")
			s.all[m.Packs[0].Digest], m.Packs[0].Size = b, int64(len(b))
		},
		"less content": func(s *blobs, m *Manifest) {
			b := compressed("tex")
			s.all[m.Packs[0].Digest], m.Packs[0].Size = b, int64(len(b))
		},
		"other sum": func(s *blobs, m *Manifest) { m.Packs[0].Chunks[0].Sum[0]++ },
		"no zstd": func(s *blobs, m *Manifest) {
			s.all[m.Packs[0].Digest] = bytes.Repeat([]byte("x"), int(m.Packs[0].Size))
		},
		"owner":         func(s *blobs, m *Manifest) { m.Entries[1].UID = 1<<31 + 1<<30 },
		"names crossed": func(s *blobs, m *Manifest) { m.Entries[1].Path = "../f" }, // Decode refuses it before
		"name is taken": func(s *blobs, m *Manifest) { m.Entries = append(m.Entries, m.Entries[1]) },
	}
	for _, what := range slices.Sorted(maps.Keys(tests)) {
		s := &blobs{}
		m := archive(t, s)
		if what == "owner" && os.Getuid() == 0 {
			continue // root may
		}
		tests[what](s, m)
		dir := filepath.Join(t.TempDir(), "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), dir, m, s); err == nil {
			t.Errorf("%s: no error", what)
		}
		if names, err := readNames(dir); err != nil || len(names) > 0 {
			t.Errorf("%s: %q is left, %v", what, names, err)
		}
		if names, err := readNames(filepath.Dir(dir)); err != nil || len(names) != 1 {
			t.Errorf("%s: %q is beside it, %v", what, names, err)
		}
	}
}

func TestRestoreCanceled(t *testing.T) {
	s := &blobs{}
	m := archive(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := Restore(ctx, dir, m, s); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if names, _ := readNames(dir); len(names) > 0 {
		t.Errorf("%q is left", names)
	}
}

func TestFetch(t *testing.T) {
	s := &blobs{}
	dir := t.TempDir()
	d := save(t, dir, s, SaveOptions{}).Descriptor
	good := s.all[d.Digest]
	for what, change := range map[string]func(){
		"another": func() {
			d.Digest = describe("", []byte("another")).Digest
			s.all[d.Digest] = good
		},
		"no manifest": func() { s.all[d.Digest] = bytes.Repeat([]byte("x"), len(good)) },
		"shorter":     func() { s.all[d.Digest] = good[:4] },
		"too large":   func() { d.Size = MaxManifest + 1 },
		"negative":    func() { d.Size = -1 },
	} {
		before := d
		change()
		if _, err := Fetch(t.Context(), s, d, Limits{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		d, s.all[d.Digest] = before, good
	}
}

func FuzzDecode(f *testing.F) {
	s := &blobs{}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o644); err != nil {
		f.Fatal(err)
	}
	a, err := Save(f.Context(), dir, s, SaveOptions{})
	if err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := z.DecodeAll(s.all[a.Descriptor.Digest], nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte(`{"version":1,"entries":3}` + "\n" + `{"path":".","type":"dir"}` + "\n" + `{"path":"l","type":"symlink","target":"/"}` + "\n" + `{"path":"l/x","type":"dir"}`))
	w, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	limits := Limits{Bytes: 1 << 20, Files: 100}
	f.Fuzz(func(t *testing.T, plain []byte) {
		m, err := Decode(w.EncodeAll(plain, nil), limits)
		if err != nil {
			return
		}
		// What is accepted can be written and read again, and makes nothing but a tree in its directory.
		_, b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b, limits); err != nil {
			t.Fatal(err)
		}
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err = Restore(t.Context(), dir, m, s)
		if names, _ := readNames(outer); len(names) != 1 {
			t.Fatalf("%q beside the directory", names)
		}
		if names, _ := readNames(dir); err != nil && len(names) > 0 {
			t.Fatalf("%q is left after %v", names, err)
		}
	})
}
