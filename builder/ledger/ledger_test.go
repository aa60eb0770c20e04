package ledger

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"
)

// long ago is when the files of a test were changed last, as far as their times of modification say.
var longAgo = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// ground is a context and a store of ledgers, with a clock that says that all changes are settled.
type ground struct {
	t          testing.TB
	dir, store string
	boot       string
	now        func() time.Time
}

func newGround(t testing.TB) *ground {
	g := &ground{
		t: t, dir: filepath.Join(t.TempDir(), "context"), store: filepath.Join(t.TempDir(), "store"),
		boot: "one", now: func() time.Time { return time.Now().Add(time.Hour) },
	}
	g.write("a", "one", longAgo)
	g.write("sub/b", "one", longAgo)
	g.write("sub/c", "one", longAgo)
	g.settle()
	return g
}

func (g *ground) write(path, content string, mtime time.Time) {
	g.t.Helper()
	path = filepath.Join(g.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Chtimes(path, mtime, mtime); err != nil {
		g.t.Fatal(err)
	}
}

// settle returns when the kernel stamps changes with a later time than those before.
func (g *ground) settle() {
	g.t.Helper()
	probe := filepath.Join(g.t.TempDir(), "probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		g.t.Fatal(err)
	}
	for first := g.changed(probe); g.changed(probe).Equal(first); {
		if err := os.Chmod(probe, 0o600); err != nil {
			g.t.Fatal(err)
		}
	}
}

// changed is the time of the last change of an inode.
func (g *ground) changed(path string) time.Time {
	g.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		g.t.Fatal(err)
	}
	return time.Unix(st.Ctim.Unix())
}

func (g *ground) open() (*Ledger, fsutil.FS) {
	g.t.Helper()
	l := New(g.store)
	l.boot, l.now = g.boot, g.now
	base, err := fsutil.NewFS(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	f := l.FS("context", g.dir, base)
	l.Open()
	return l, f
}

// send reads the context as BuildKit would.
func (g *ground) send(f fsutil.FS, o *fsutil.FilterOpt) {
	g.t.Helper()
	f, err := fsutil.NewFilterFS(f, o)
	if err != nil {
		g.t.Fatal(err)
	}
	err = f.Walk(context.Background(), "/", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		r, err := f.Open(path)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(io.Discard, r)
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// build sends the context and returns the generation that it used.
func (g *ground) build() string {
	g.t.Helper()
	l, f := g.open()
	g.send(f, &fsutil.FilterOpt{})
	if err := l.Close(true); err != nil {
		g.t.Fatal(err)
	}
	return l.Key()
}

// TestGenerations changes a context between two builds and says whether the second starts a new generation.
func TestGenerations(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		change func(g *ground)
		want   bool
	}{
		"nothing":                      {func(g *ground) {}, false},
		"edit":                         {func(g *ground) { g.write("a", "two", now) }, false},
		"edit of another size":         {func(g *ground) { g.write("a", "three", longAgo) }, false},
		"new file":                     {func(g *ground) { g.write("d", "one", longAgo) }, false},
		"deleted file":                 {func(g *ground) { os.Remove(filepath.Join(g.dir, "a")) }, false},
		"edit with its time set back":  {func(g *ground) { g.write("a", "two", longAgo) }, true},
		"deep edit with its time back": {func(g *ground) { g.write("sub/c", "two", longAgo) }, true},
		"file moved over": {func(g *ground) {
			g.write("new", "two", longAgo)
			os.Rename(filepath.Join(g.dir, "new"), filepath.Join(g.dir, "a"))
		}, true},
		"directories exchanged": {func(g *ground) {
			g.write("new/b", "two", longAgo)
			g.write("new/c", "two", longAgo)
			os.Rename(filepath.Join(g.dir, "sub"), filepath.Join(g.dir, "old"))
			os.Rename(filepath.Join(g.dir, "new"), filepath.Join(g.dir, "sub"))
		}, true},
		"ignore file":                 {func(g *ground) { g.write(".dockerignore", "x", now) }, true},
		"ignore file that is a pipe":  {func(g *ground) { unix.Mkfifo(filepath.Join(g.dir, ".dockerignore"), 0o600) }, false},
		"ignore file that is endless": {func(g *ground) { os.Symlink("/dev/zero", filepath.Join(g.dir, ".dockerignore")) }, false},
		"killed build": {func(g *ground) {
			l, f := g.open()
			g.send(f, &fsutil.FilterOpt{})
			l.file.Close() // as the kernel does
		}, true},
		"interrupted build": {func(g *ground) {
			l, f := g.open()
			g.send(f, &fsutil.FilterOpt{})
			l.Close(false)
		}, true},
		"build that sent nothing": {func(g *ground) {
			l, _ := g.open()
			l.Close(false)
		}, false},
		"edit, time back, unseen by a build that sent another file": {func(g *ground) {
			l, f := g.open()
			g.send(f, &fsutil.FilterOpt{IncludePatterns: []string{"sub"}})
			l.Close(true)
			g.write("a", "two", longAgo)
		}, true},
		"edit, time back, between the look before the build and the walk": {func(g *ground) {
			l, f := g.open()
			g.write("a", "two", longAgo)
			g.settle()
			g.send(f, &fsutil.FilterOpt{})
			l.Close(true)
		}, true},
		"edit, time back, between two walks of a build": {func(g *ground) {
			l, f := g.open()
			g.write("a", "three", longAgo)
			g.settle()
			g.send(f, &fsutil.FilterOpt{})
			g.write("a", "seven", longAgo)
			g.settle()
			g.send(f, &fsutil.FilterOpt{})
			l.Close(true)
		}, true},
		"edit back to a time and size that another of BuildKit's copies may have": {func(g *ground) {
			g.write("a", "three", now)
			g.settle()
			g.build()
			g.write("a", "two", longAgo)
		}, true},
		"damaged ledger": {func(g *ground) {
			files, _ := filepath.Glob(g.store + "/*")
			b, _ := os.ReadFile(files[0])
			os.WriteFile(files[0], b[:len(b)-3], 0o600)
		}, true},
		"another boot": {func(g *ground) { g.boot = "two" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t)
			first := g.build()
			test.change(g)
			second := g.build()
			if first == "" || (first != second) != test.want {
				t.Errorf("generations %s, %s: new is %v, want %v", first, second, first != second, test.want)
			}
			if third, fourth := g.build(), g.build(); third != fourth {
				t.Errorf("builds of an unchanged context have the generations %s, %s", third, fourth)
			}
		})
	}
}

// TestRacy: a file that changed just before it was sent is not relied upon, since its next change may have the same ctime.
func TestRacy(t *testing.T) {
	g := newGround(t)
	g.write("a", "two", longAgo)
	soon, later := g.changed(filepath.Join(g.dir, "a")).Add(tick/2), g.now
	g.now = func() time.Time { return soon }
	if first, second := g.build(), g.build(); first == second {
		t.Errorf("a context that has just changed has the generation %s twice", first)
	}
	g.now = later
	if third, fourth := g.build(), g.build(); third != fourth {
		t.Errorf("a settled context has the generations %s, %s", third, fourth)
	}
}

// TestAtOnce: builds that run at once have copies of their own, which later builds use again.
func TestAtOnce(t *testing.T) {
	g := newGround(t)
	first, f1 := g.open()
	second, f2 := g.open()
	g.send(f1, &fsutil.FilterOpt{})
	g.send(f2, &fsutil.FilterOpt{})
	if first.Key() == second.Key() {
		t.Fatal("two builds at once share a copy")
	}
	second.Close(true)
	first.Close(true)
	third, _ := g.open()
	fourth, _ := g.open()
	defer third.Close(false)
	defer fourth.Close(false)
	if third.Key() != first.Key() || fourth.Key() != second.Key() {
		t.Errorf("got generations %s and %s, want %s and %s", third.Key(), fourth.Key(), first.Key(), second.Key())
	}
}

// TestOtherDirectories: equal files in another directory, or under another name, are another copy.
func TestOtherDirectories(t *testing.T) {
	g := newGround(t)
	first := g.build()
	other := newGround(t)
	other.store = g.store
	if second := other.build(); first == second {
		t.Error("two directories share a copy")
	}
}

// TestOrder: the files of directories that are named in another order are not looked for in each other's place.
func TestOrder(t *testing.T) {
	g, other := newGround(t), newGround(t)
	os.RemoveAll(other.dir) // nothing that the first has as well
	other.write("d", "one", longAgo)
	other.settle()
	build := func(dirs ...string) string {
		l := New(g.store)
		var all []fsutil.FS
		for _, dir := range dirs {
			base, err := fsutil.NewFS(dir)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, l.FS("name of "+dir, dir, base))
		}
		l.Open()
		for _, f := range all {
			g.send(f, &fsutil.FilterOpt{})
		}
		if err := l.Close(true); err != nil {
			t.Fatal(err)
		}
		return l.Key()
	}
	first := build(g.dir, other.dir)
	other.write("d", "two", longAgo)
	if second := build(other.dir, g.dir); first == second {
		t.Error("an edit that keeps size and time was missed")
	}
}

func TestNoStore(t *testing.T) {
	g := newGround(t)
	g.store = ""
	if first, second := g.build(), g.build(); first == second {
		t.Error("without a store, nothing may be relied upon")
	}
	l := New(g.store)
	l.Open()
	if l.Key() != "" {
		t.Error("without directories there is nothing to name")
	}
}

// BenchmarkUnchanged reports the processor time that an unchanged context of 10,000 files costs: before the build (Open),
// and while it is walked, with and without a ledger.
func BenchmarkUnchanged(b *testing.B) {
	g := newGround(b)
	for i := range 10_000 {
		g.write(fmt.Sprintf("src/%c/%c/file%d", 'a'+i%26, 'a'+i/26%26, i), "", longAgo)
	}
	g.build()
	walk := func(f fsutil.FS) {
		f.Walk(context.Background(), "/", func(_ string, d fs.DirEntry, _ error) error { _, err := d.Info(); return err })
	}
	plain, _ := fsutil.NewFS(g.dir)
	for name, f := range map[string]func(){
		"Open": func() { l, _ := g.open(); l.Close(false) },
		"Ledger": func() {
			l, f := g.open()
			walk(f)
			l.Close(true)
		},
		"Walk": func() { walk(plain) },
	} {
		b.Run(name, func(b *testing.B) {
			before := cpuTime()
			for b.Loop() {
				f()
			}
			b.ReportMetric(float64((cpuTime()-before).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
