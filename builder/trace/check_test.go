package trace

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCheck makes one change of a layer in each row, and says what the reason is; "" in the twins that must not fire.
func TestCheck(t *testing.T) {
	seen := see(map[string]What{
		"package.json": Looked | Read, "src": Looked | Listed, "src/main.c": Looked, "src/deep/x.h": Looked | Read,
		".npmrc": Absent, "src/none": Absent, "run.sh": Looked | Read, "link": Looked, "dead": Looked, "lib": Looked,
		"pipe": Looked, "empty": Looked | Listed,
	})
	me := ownerText(uint32(os.Getuid()), uint32(os.Getgid()))
	future := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name   string
		change func(g ground)
		want   string
	}{
		{"nothing", func(g ground) {}, ""},

		{"content, other size", func(g ground) { g.write("package.json", "{ }") }, "package.json changed"},
		{"content, same size and time", func(g ground) { g.write("package.json", "[]") }, "package.json changed"},
		{"content of a file that was looked up only", func(g ground) { g.write("src/main.c", "long") }, "src/main.c changed"},
		{"content of a file beside", func(g ground) { g.write("README", "new") }, ""},
		{"content of a file that was listed only", func(g ground) { g.write("src/other.c", "new") }, ""},
		{"content of a file in a directory that was looked up", func(g ground) { g.write("lib/y", "new") }, ""},
		{"made empty", func(g ground) { g.write("run.sh", "") }, "run.sh changed"},
		{"the same file again", func(g ground) { g.remove("run.sh"); g.write("run.sh", "#!/bin/sh\n") }, ""},

		{"mode", func(g ground) { g.chmod("run.sh", 0o755) }, "run.sh: mode 0644 -> 0755"},
		{"mode, set user id", func(g ground) { g.chmod("run.sh", 0o644|os.ModeSetuid) }, "run.sh: mode 0644 -> 4644"},
		{"mode of a directory", func(g ground) { g.chmod("src/deep", 0o700) }, "src/deep: mode 0755 -> 0700"},
		{"mode of the root", func(g ground) { g.chmod(".", 0o711) }, "/: mode 0755 -> 0711"},
		{"mode of a file that was listed only", func(g ground) { g.chmod("src/other.c", 0o600) }, ""},
		{"owner", func(g ground) { g.chown("run.sh", 7, 8) }, "run.sh: owner " + me + " -> 7:8"},
		{"owner of a link", func(g ground) { g.chown("link", 7, 8) }, "link: owner " + me + " -> 7:8"},

		{"appeared", func(g ground) { g.write(".npmrc", "") }, ".npmrc is there now"},
		{"appeared as a dangling link", func(g ground) { g.link(".npmrc", "nowhere") }, ".npmrc is there now"},
		{"appeared, with what it is in", func(g ground) { g.write("src/none/at/all", "") }, "src/none is there now"},
		{"appeared beside", func(g ground) { g.write(".yarnrc", "") }, ""},
		{"gone", func(g ground) { g.remove("run.sh") }, "run.sh is gone"},
		{"gone, with what it is in", func(g ground) { g.remove("src") }, "src is gone"},
		{"gone, beside", func(g ground) { g.remove("README") }, ""},
		{"renamed", func(g ground) { g.must(os.Rename(g.path("src/main.c"), g.path("src/new.c"))) }, "src/main.c is gone"},

		{"a file is a directory", func(g ground) { g.remove("run.sh"); g.mkdir("run.sh") }, "run.sh was a file and is a directory now"},
		{"a file is a link to it", func(g ground) { g.must(os.Rename(g.path("run.sh"), g.path("r"))); g.link("run.sh", "r") },
			"run.sh was a file and is a symbolic link now"},
		{"a directory is a link to it", func(g ground) { g.must(os.Rename(g.path("src"), g.path("s"))); g.link("src", "s") },
			"src was a directory and is a symbolic link now"},
		{"a directory is a file", func(g ground) { g.remove("src"); g.write("src", "") }, "src was a directory and is a file now"},
		{"a pipe is a file", func(g ground) { g.remove("pipe"); g.write("pipe", "") }, "pipe was a pipe and is a file now"},

		{"a link leads elsewhere", func(g ground) { g.remove("link"); g.link("link", "README") }, "link changed"},
		{"a dead link leads elsewhere", func(g ground) { g.remove("dead"); g.link("dead", "nowhera") }, "dead changed"},
		{"a link's target changed, and was not looked up", func(g ground) { g.write("target", "new") }, ""},

		{"listing, added", func(g ground) { g.mkdir("src/tests") }, "src was listed and has a new entry: tests"},
		{"listing, added to an empty one", func(g ground) { g.write("empty/x", "") }, "empty was listed and has a new entry: x"},
		{"listing, removed", func(g ground) { g.remove("src/other.c") }, "src was listed and lacks an entry: other.c"},
		{"listing, other type", func(g ground) { g.remove("src/other.c"); g.mkdir("src/other.c") },
			"src was listed and has an entry of another type: other.c was a file and is a directory now"},
		{"listing, odd name", func(g ground) { g.write("src/a\nb\xff", "") }, `src was listed and has a new entry: "a\nb\xff"`},
		{"listing of a directory that was not listed", func(g ground) { g.write("lib/new", "") }, ""},

		{"newer", func(g ground) { g.touch("src/main.c", future) }, "src/main.c is newer than what was made from it"},
		{"another time before the run", func(g ground) { g.touch("src/main.c", longAgo.Add(time.Second)) },
			"src/main.c and src/deep/x.h are in another order of time"},
		{"the time of a directory", func(g ground) { g.touch("src", future); g.touch("empty", future) }, ""},
		{"the time of a file beside", func(g ground) { g.touch("README", future) }, ""},

		{"a hard link", func(g ground) { g.must(os.Link(g.path("run.sh"), g.path("hard"))) }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGround(t)
			g.write("package.json", "{}")
			g.write("README", "read me")
			g.write("target", "old")
			g.write("run.sh", "#!/bin/sh\n")
			g.write("src/main.c", "int")
			g.write("src/other.c", "int")
			g.write("src/deep/x.h", "int")
			g.write("lib/y", "")
			g.mkdir("empty")
			g.chmod(".", 0o755)
			g.link("link", "target")
			g.link("dead", "nowhere")
			g.must(unix.Mkfifo(g.path("pipe"), 0o600))
			l := g.capture(seen...)
			test.change(g)
			d, err := l.Check(g.dir, started)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if d != nil {
				got = d.String()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestXattrs compares layers by their extended attributes.
func TestXattrs(t *testing.T) {
	otherPrefix := map[string]string{"trusted.overlay.": "user.overlay.", "user.overlay.": "trusted.overlay."}[overlayPrefix()]
	seen := see(map[string]What{"file": Looked, "dir": Looked, "link": Looked})
	for _, test := range []struct {
		name, path, attribute, value string
		want                         string
	}{
		{name: "user", path: "file", attribute: "user.mime", value: "text", want: "file: extended attributes changed"},
		{name: "user, of a directory", path: "dir", attribute: "user.mime", value: "text", want: "dir: extended attributes changed"},
		{name: "capability", path: "file", attribute: "security.capability",
			value: "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", want: "file: extended attributes changed"},
		{name: "access list", path: "file", attribute: "system.posix_acl_access",
			value: "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x01\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff" +
				"\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff", want: "file: extended attributes changed"},
		{name: "opaque", path: "dir", attribute: overlayPrefix() + "opaque", value: "y", want: "dir: extended attributes changed"},
		{name: "of a link", path: "link", attribute: "trusted.any", value: "y", want: "link: extended attributes changed"},
		{name: "overlayfs's bookkeeping", path: "dir", attribute: overlayPrefix() + "impure", value: "y"},
		{name: "overlayfs's origin", path: "file", attribute: overlayPrefix() + "origin", value: "\x00\xfb\x05"},
		{name: "an overlay's that is none here", path: "dir", attribute: otherPrefix + "impure", value: "y", want: "dir: extended attributes changed"},
		{name: "of a file beside", path: "beside", attribute: "user.mime", value: "text"},
		{name: "large", path: "file", attribute: "user.large", value: strings.Repeat("x", 3000), want: "file: extended attributes changed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGround(t)
			g.write("file", "")
			g.write("beside", "")
			g.mkdir("dir")
			g.link("link", "file")
			before := g.capture(seen...)
			g.setxattr(test.path, test.attribute, test.value)
			after := g.capture(seen...)
			for _, l := range []Layer{before, after} {
				d, err := l.Check(g.dir, started)
				if err != nil {
					t.Fatal(err)
				}
				got, want := "", test.want
				if d != nil {
					got = d.String()
				}
				if &l.Entries[0] == &after.Entries[0] {
					want = "" // the same attributes again
				}
				if got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}

func TestDevices(t *testing.T) {
	g := newGround(t)
	g.mkdir("dir")
	null := unix.Mkdev(1, 3)
	g.node("dir/null", null)
	l := g.capture(see(map[string]What{"dir/null": Looked})...)
	g.node("dir/null", unix.Mkdev(1, 5))
	wantDifference(t, l, g, "dir/null: device 1:3 -> 1:5")
	g.node("dir/null", 0)
	wantDifference(t, l, g, "dir/null: device 1:3 -> 0:0")

	// Only the listing tells: a whiteout has a type of its own.
	g.node("dir/null", null)
	l = g.capture(Seen{"dir", Listed, 1})
	g.node("dir/null", 0)
	wantDifference(t, l, g, "dir was listed and has an entry of another type: null was a device and is deleted now")
}

func TestWhiteouts(t *testing.T) {
	g := newGround(t)
	g.mkdir("dir")
	g.node("dir/gone", 0)
	l := g.capture(see(map[string]What{"dir": Listed, "dir/gone": Looked})...)
	wantDifference(t, l, g, "")
	g.node("dir/gone", 0)
	wantDifference(t, l, g, "")
	g.remove("dir/gone")
	wantDifference(t, l, g, "dir/gone is gone")
	g.write("dir/gone", "")
	wantDifference(t, l, g, "dir/gone was deleted and is a file now")
}

func wantDifference(t *testing.T, l Layer, g ground, want string) {
	t.Helper()
	got := ""
	d, err := l.Check(g.dir, started)
	if d != nil {
		got = d.String()
	}
	if err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// TestFailClosed has layers that can't be compared: none of them holds.
func TestFailClosed(t *testing.T) {
	g := newGround(t)
	g.write("a/b", "x")
	l := g.capture(see(map[string]What{"a/b": Read, "a/c": Absent})...)
	if d, err := l.Check(g.path("nowhere"), started); err == nil {
		t.Errorf("a layer that is not there: %v", d)
	}
	if d, err := l.Check(g.path("a/b"), started); err == nil {
		t.Errorf("a layer that is no directory: %v", d)
	}
	if d, err := l.Check(g.dir, time.Time{}); d != nil || err != nil {
		t.Errorf("times that are equal need no time of the run: %v, %v", d, err)
	}
	g.touch("a/b", longAgo.Add(-time.Hour))
	if d, err := l.Check(g.dir, time.Time{}); err != nil || d == nil || d.Kind != BecameNewer {
		t.Errorf("a run whose time is not known: %v, %v", d, err)
	}
	if os.Geteuid() != 0 {
		g.touch("a/b", longAgo)
		g.chmod("a", 0)
		defer g.chmod("a", 0o755)
		l.Entries = l.Entries[2:] // without the directory, whose mode has changed
		if d, err := l.Check(g.dir, started); err == nil {
			t.Errorf("a directory that can't be searched: %v", d)
		}
	}
	tr := Trace{Layers: []Layer{l}}
	if _, err := tr.Check(nil); err == nil {
		t.Error("a trace with more layers than directories")
	}
}

// TestNothingLeadsOut replaces a directory on the way by a link to one of equal content outside of the layer.
func TestNothingLeadsOut(t *testing.T) {
	outside, g := newGround(t), newGround(t)
	outside.write("b", "x")
	g.write("a/b", "x")
	l := g.capture(Seen{"a/b", Read, 1})
	l.Entries = l.Entries[2:] // without the directory, which would give it away
	g.remove("a")
	g.link("a", outside.dir)
	if d, err := l.Check(g.dir, started); err != nil || d == nil || d.Kind != Vanished {
		t.Errorf("got %v, %v", d, err)
	}
	if _, err := Capture(g.dir, []Seen{{"a/b", Read, 1}}); err == nil {
		t.Error("captured through a link")
	}
}

// TestFirstOfMany finds the lowest of several differences, whatever the goroutines do.
func TestFirstOfMany(t *testing.T) {
	g := newGround(t)
	var seen []Seen
	for i := range 300 {
		path := strings.Repeat("dir/", i%3) + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		g.write(path, "one")
		seen = append(seen, Seen{path, Read, uint32(i + 1)})
	}
	l := g.capture(seen...)
	if d, err := l.Check(g.dir, started); d != nil || err != nil {
		t.Fatal(d, err)
	}
	for _, e := range l.Entries[150:] {
		if e.kind() == syscall.S_IFREG {
			g.write(e.Path, "two")
		}
	}
	var first string
	for _, e := range l.Entries[150:] {
		if first == "" && e.kind() == syscall.S_IFREG {
			first = e.Path
		}
	}
	for range 5 {
		if d, err := l.Check(g.dir, started); err != nil || d == nil || d.Path != first {
			t.Fatalf("got %v, %v, want %s", d, err, first)
		}
	}
}
