package trace

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lines prints a layer, without times and digests.
func lines(l Layer) (all []string) {
	for _, e := range l.Entries {
		line := fmt.Sprintf("%d %s %s", e.Order, e.Path, e.What)
		if e.What&Absent == 0 {
			line += fmt.Sprintf(" %o %d", e.Mode, e.Size)
		}
		for _, n := range e.Listing {
			line += fmt.Sprintf(" %s:%d", n.Name, n.Type)
		}
		all = append(all, line)
	}
	return all
}

func TestCapture(t *testing.T) {
	g := newGround(t)
	g.write("a/b/c", "hello")
	g.write("a-b", "")
	g.link("a/link", "b")
	g.chmod(".", 0o755)
	l := g.capture(Seen{"a/b/c", Read, 5}, Seen{"a/x", Absent, 3}, Seen{"a/link", Looked, 9}, Seen{"a-b", Looked, 2}, Seen{"a", Listed, 4},
		Seen{"a/b/c", Looked, 4})
	want := []string{
		"1 . looked 40755 0",
		"3 a looked|listed 40755 0 b:4 link:10",
		"4 a/b looked 40755 0",
		"4 a/b/c looked|read 100644 5",
		"9 a/link looked 120777 0",
		"3 a/x absent",
		"2 a-b looked 100644 0",
	}
	if got := lines(l); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if e := l.Entries[3]; e.Content != sha256.Sum256([]byte("hello")) || e.Modified != longAgo.UnixNano() {
		t.Errorf("%+v", e)
	}
	if e := l.Entries[4]; e.Content != sha256.Sum256([]byte("b")) {
		t.Errorf("%+v", e)
	}
}

// TestContradictions has records that the directory disproves, and ones that are none.
func TestContradictions(t *testing.T) {
	g := newGround(t)
	g.write("a/b", "")
	for _, s := range []Seen{
		{"a/b", Absent, 1}, {"a/c", Looked, 1}, {"a/b", Listed, 1}, {"a/b/c", Looked, 1}, {"nowhere/at/all", Absent, 1}, // the kernel asks for nowhere
	} {
		if l, err := Capture(g.dir, []Seen{s}); !errors.Is(err, errContradiction) {
			t.Errorf("%+v: %v, %v", s, l, err)
		}
	}
	for _, s := range []Seen{
		{"", Looked, 1}, {"..", Looked, 1}, {"a/../a", Looked, 1}, {"/a", Looked, 1}, {"a//b", Looked, 1}, {"a/", Looked, 1}, {"a/.", Looked, 1},
		{"a\x00", Absent, 1}, {"a", 0, 1}, {"a", 0x80, 1}, {"a", Absent | Looked, 1},
	} {
		if l, err := Capture(g.dir, []Seen{s}); err == nil {
			t.Errorf("%+v: %v", s, l)
		}
	}
}

// TestOddLayers captures and compares what few layers have.
func TestOddLayers(t *testing.T) {
	g := newGround(t)
	long := strings.Repeat("n", 255)
	g.write(long, "x")
	g.write("\xff\n\x01", "x")
	large := strings.Repeat("0123456789abcdef", 20_000) // larger than a walker's buffer
	g.write("large", large)
	g.write("exact", large[:64<<10])
	g.mkdir("many")
	for i := range 3000 {
		g.write(fmt.Sprintf("many/a-name-of-some-length-%d", i), "")
	}
	// Deeper than the kernel takes a path.
	dir, err := unix.Open(g.dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	g.must(err)
	deep := ""
	for range 25 {
		name := strings.Repeat("d", 200)
		g.must(unix.Mkdirat(dir, name, 0o755))
		next, err := unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		g.must(err)
		unix.Close(dir)
		dir, deep = next, deep+name+"/"
	}
	f, err := unix.Openat(dir, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	g.must(err)
	unix.Close(f)

	l := g.capture(see(map[string]What{long: Looked, "\xff\n\x01": Read, "large": Read, "exact": Read, "many": Listed, deep + "file": Read,
		long + "more": Absent})...)
	for _, e := range l.Entries {
		if e.Path == "large" && e.Content != sha256.Sum256([]byte(large)) || e.Path == "exact" && e.Content != sha256.Sum256([]byte(large[:64<<10])) {
			t.Errorf("%s has another digest", e.Path)
		}
		if e.Path == "many" && len(e.Listing) != 3000 {
			t.Errorf("%d names", len(e.Listing))
		}
	}
	if d, err := l.Check(g.dir, time.Now().Add(time.Hour)); d != nil || err != nil {
		t.Fatal(d, err)
	}
	f, err = unix.Openat(dir, "file", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	g.must(err)
	_, err = unix.Write(f, []byte("x"))
	g.must(err)
	unix.Close(f)
	unix.Close(dir)
	if d, err := l.Check(g.dir, time.Now().Add(time.Hour)); err != nil || d == nil || d.Path != deep+"file" {
		t.Errorf("%v, %v", d, err)
	}
}

// TestOrderOfTime moves the times of two files, older and newer, all before the run.
func TestOrderOfTime(t *testing.T) {
	at := func(seconds int) time.Time { return longAgo.Add(time.Duration(seconds) * time.Second) }
	for _, test := range []struct {
		name        string
		older, same int // what longAgo and a second later become
		newer       int
		want        string
	}{
		{"as they were", 0, 0, 1, ""},
		{"all later, in the same order", 50, 50, 51, ""},
		{"closer", 0, 0, 2, ""},
		{"the other way", 5, 5, 1, "same and newer are in another order of time"},
		{"at once", 1, 1, 1, "same and newer are in another order of time"},
		{"no more at once", 0, 1, 2, "same and older are in another order of time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGround(t)
			for _, path := range []string{"newer", "older", "same", "not-seen"} {
				g.write(path, "")
			}
			g.touch("newer", at(1))
			seen := see(map[string]What{"older": Looked})
			seen = append(seen, Seen{"same", Looked, 2}, Seen{"newer", Looked, 3})
			l := g.capture(seen...)
			g.touch("older", at(test.older))
			g.touch("same", at(test.same))
			g.touch("newer", at(test.newer))
			g.touch("not-seen", at(-100))
			got := ""
			d, err := l.Check(g.dir, started)
			if err != nil {
				t.Fatal(err)
			}
			if d != nil {
				got = d.String()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestOrderAcrossLayers has two files in two layers that change places.
func TestOrderAcrossLayers(t *testing.T) {
	a, b := newGround(t), newGround(t)
	a.write("main.c", "")
	b.write("main.o", "")
	b.touch("main.o", longAgo.Add(time.Second))
	tr := Trace{Started: started, Layers: []Layer{a.capture(Seen{"main.c", Read, 1}), b.capture(Seen{"main.o", Looked, 2})}}
	if d, err := tr.Check([]string{a.dir, b.dir}); d != nil || err != nil {
		t.Fatal(d, err)
	}
	a.touch("main.c", longAgo.Add(time.Minute))
	d, err := tr.Check([]string{a.dir, b.dir})
	if err != nil || d == nil || d.Kind != OrderChanged {
		t.Errorf("got %v, %v", d, err)
	}
	b.write("main.o", "new")
	if d, err := tr.Check([]string{a.dir, b.dir}); err != nil || d == nil || d.Layer != 1 || d.Path != "main.o" || d.Kind != ContentChanged {
		t.Errorf("got %v, %v", d, err)
	}
}

// TestCheckExcept leaves a layer out of which all is known, but for the order of time.
func TestCheckExcept(t *testing.T) {
	a, b := newGround(t), newGround(t)
	a.write("main.c", "")
	b.write("main.o", "")
	b.touch("main.o", longAgo.Add(time.Second))
	tr := Trace{Started: started, Layers: []Layer{a.capture(Seen{"main.c", Read, 1}), b.capture(Seen{"main.o", Looked, 2})}}
	if d, err := tr.CheckExcept([]string{a.dir, ""}, map[int]bool{1: true}); d != nil || err != nil {
		t.Errorf("got %v, %v", d, err)
	}
	if _, err := tr.CheckExcept([]string{a.dir, ""}, nil); err == nil {
		t.Error("got no error for a layer that is nowhere")
	}
	a.touch("main.c", longAgo.Add(time.Minute))
	if d, err := tr.CheckExcept([]string{a.dir, ""}, map[int]bool{1: true}); err != nil || d == nil || d.Kind != OrderChanged {
		t.Errorf("got %v, %v", d, err)
	}
	a.write("main.c", "new")
	if d, err := tr.CheckExcept([]string{a.dir, ""}, map[int]bool{1: true}); err != nil || d == nil || d.Layer != 0 || d.Kind != ContentChanged {
		t.Errorf("got %v, %v", d, err)
	}
}

// TestCountTimes has what was asked for for its own sake, and directories on the way to something.
func TestCountTimes(t *testing.T) {
	g, other := newGround(t), newGround(t)
	for _, dir := range []string{"mods", "way", "merged", "asked", "root/.npm/_logs"} {
		g.mkdir(dir)
	}
	g.write("way/file", "x")
	g.link("link", "source")
	other.mkdir("merged")
	other.write("merged/source", "x")
	other.write("source", "x")
	at := func(g ground, path string, after time.Duration) {
		t.Helper()
		when := unix.NsecToTimespec(longAgo.Add(after).UnixNano())
		g.must(unix.UtimesNanoAt(unix.AT_FDCWD, g.path(path), []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW))
	}
	counting := []string{"mods", "asked", "link"}
	for _, path := range counting {
		at(g, path, time.Second)
	}
	at(other, "source", 2*time.Second)
	layers := []Layer{
		g.capture(Seen{"mods", Looked, 1}, Seen{"way/file", Read, 2}, Seen{"none", Absent, 3}, Seen{"merged/source", Absent, 4}, Seen{"asked/none", Absent, 5}, Seen{"link", Looked, 6},
			Seen{"root/.npm/_logs", Listed, 9}),
		other.capture(Seen{"source", Looked, 7}, Seen{"merged/source", Looked, 8}),
	}
	if err := CountTimes(layers, []string{g.dir, other.dir}, map[int]bool{0: true}); err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		for _, e := range l.Entries {
			if want := e.kind() == unix.S_IFREG || i == 0 && slices.Contains(counting, e.Path); e.timed() != want {
				t.Errorf("%s of layer %d has the time %d", e.Path, i, e.Modified)
			}
		}
	}
	tr := Trace{Started: started, Layers: layers}
	check := func(path string, want Kind) {
		t.Helper()
		switch d, err := tr.Check([]string{g.dir, other.dir}); {
		case err != nil:
			t.Error(err)
		case path == "" && d != nil, path != "" && (d == nil || d.Path != path || d.Kind != want):
			t.Errorf("got %v, want %q", d, path)
		}
	}
	check("", 0)
	for _, dir := range []string{"way", "merged", "root/.npm/_logs"} {
		at(g, dir, time.Minute)
		check("", 0)
	}
	for _, path := range counting {
		at(g, path, 3*time.Second)
		check(path, OrderChanged)
		at(g, path, started.Sub(longAgo)+time.Second)
		check(path, BecameNewer)
		at(g, path, time.Second)
		check("", 0)
	}
	dated, err := tr.Layers[0].Dated(g.dir)
	if err != nil || !reflect.DeepEqual(dated, layers[0]) {
		t.Errorf("got %v, %v, want %v", dated, err, layers[0])
	}
}

// TestFuture has a file that was newer than the run, as long as it keeps its time.
func TestFuture(t *testing.T) {
	g := newGround(t)
	g.write("main.c", "")
	g.touch("main.c", started.Add(time.Hour))
	l := g.capture(Seen{"main.c", Read, 1})
	if d, err := l.Check(g.dir, started); d != nil || err != nil {
		t.Error(d, err)
	}
	g.touch("main.c", longAgo) // no longer newer: make would leave what it made anew then
	if d, err := l.Check(g.dir, started); err != nil || d == nil || d.Kind != BecameNewer {
		t.Error(d, err)
	}
}

func TestText(t *testing.T) {
	d := &Difference{Path: "app/src", Kind: ListingChanged, Name: "tests", Is: "a directory"}
	got := d.Text(func(path string) string { return strings.TrimPrefix(path, "app/") })
	if want := "src was listed and has a new entry: tests"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTree changes one thing in each row: the identity must change with it, and with the twins it must not.
func TestTree(t *testing.T) {
	limits := Limits{Entries: 10, Bytes: 1000}
	for _, test := range []struct {
		name   string
		change func(g ground)
		same   bool
	}{
		{"nothing", func(g ground) {}, true},
		{"times", func(g ground) { g.touch("a/file", time.Now()); g.touch("a", time.Now()) }, true},
		{"the same again", func(g ground) { g.remove("a/file"); g.write("a/file", "x") }, true},
		{"content", func(g ground) { g.write("a/file", "y") }, false},
		{"mode", func(g ground) { g.chmod("a/file", 0o600) }, false},
		{"mode of the root", func(g ground) { g.chmod(".", 0o700) }, false},
		{"name", func(g ground) { g.must(os.Rename(g.path("a/file"), g.path("a/fild"))) }, false},
		{"another directory", func(g ground) { g.must(os.Rename(g.path("a/file"), g.path("file"))) }, false},
		{"target", func(g ground) { g.remove("link"); g.link("link", "b") }, false},
		{"type", func(g ground) { g.remove("link"); g.write("link", "a") }, false},
		{"added", func(g ground) { g.mkdir("b") }, false},
		{"attribute", func(g ground) { g.setxattr("a", "user.mime", "text") }, false},
		{"owner", func(g ground) { g.chown("link", 7, 8) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGround(t)
			g.chmod(".", 0o755)
			g.write("a/file", "x")
			g.link("link", "a")
			before, ok, err := Tree(g.dir, limits)
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			test.change(g)
			after, ok, err := Tree(g.dir, limits)
			if !ok || err != nil || (before == after) != test.same {
				t.Errorf("%x, %x, %v, %v", before, after, ok, err)
			}
		})
	}
}

func TestTreeLimits(t *testing.T) {
	g := newGround(t)
	g.root() // whom the empty layer's root belongs to
	g.chmod(".", 0o755)
	if digest, ok, err := Tree(g.dir, Limits{}); digest != EmptyTree || !ok || err != nil {
		t.Errorf("an empty layer: %x, %v, %v", digest, ok, err)
	}
	// Stored identities rest on this value: it changes only with what is part of an identity.
	if got := hex.EncodeToString(EmptyTree[:]); got != "439680093feceecacaaa79c2183b23c870a4a3957e8524b982affebc1a2a9131" {
		t.Errorf("EmptyTree is %s", got)
	}
	g.write("a/b", "12345")
	for limits, want := range map[Limits]bool{
		{Entries: 2, Bytes: 5}: true, {Entries: 1, Bytes: 5}: false, {Entries: 2, Bytes: 4}: false, {}: false,
	} {
		if _, ok, err := Tree(g.dir, limits); ok != want || err != nil {
			t.Errorf("%+v: %v, %v", limits, ok, err)
		}
	}
	if _, _, err := Tree(g.path("nowhere"), Limits{}); err == nil {
		t.Error("a layer that is not there")
	}
}
