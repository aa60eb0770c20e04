package cases

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

const text = `Two lines about it,
with a colon: here.

opt: build-arg A=b c
opt: context lib
second: build-arg A=d
never: cross-build
rewrite: link,merge-run
-- Dockerfile --
FROM scratch
ADD $HTTP/x /
-- src/file --
one
-- src/link -> file --
-- named/lib/a --
a
-- http/x --
x
-- second/src/file --
two
-- second/src/link (gone) --
-- setup.sh --
chmod 600 src/file
`

func TestRoundTrip(t *testing.T) {
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Format()); got != text {
		t.Errorf("got:\n%s\nwant:\n%s", got, text)
	}
	if !c.Listed || c.Rewrite() != "link,merge-run" || !c.HasSecond() {
		t.Errorf("read wrongly: %+v", c)
	}
}

func TestWrite(t *testing.T) {
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p := Place{Dir: t.TempDir(), HTTP: "http://h/files"}
	if err := c.Write(p); err != nil {
		t.Fatal(err)
	}
	want := func(name, content string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil || string(b) != content {
			t.Errorf("%s: got %q, %v; want %q", name, b, err, content)
		}
	}
	want("context/Dockerfile", "FROM scratch\nADD http://h/files/http/x /\n")
	want("context/src/file", "one\n")
	want("context/src/link", "one\n")
	want("named/lib/a", "a\n")
	want("http/x", "x\n")
	if fi, err := os.Stat(filepath.Join(p.Dir, "context/src/file")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("setup.sh was not run: %v %v", fi, err)
	}
	if _, err := os.Stat(filepath.Join(p.Dir, "context/setup.sh")); err == nil {
		t.Error("setup.sh is in the context")
	}
	if err := c.WriteSecond(p); err != nil {
		t.Fatal(err)
	}
	want("context/src/file", "two\n")
	if _, err := os.Lstat(filepath.Join(p.Dir, "context/src/link")); err == nil {
		t.Error("a file that goes is still there")
	}
	attrs, contexts := c.Attrs(p, true)
	if w := map[string]string{"build-arg:A": "d", "context:lib": "local:lib"}; !reflect.DeepEqual(attrs, w) {
		t.Errorf("got the attributes %q, want %q", attrs, w)
	}
	if w := map[string]string{"lib": filepath.Join(p.Dir, "named/lib")}; !reflect.DeepEqual(contexts, w) {
		t.Errorf("got the contexts %q, want %q", contexts, w)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"opt: nonsense x\n-- Dockerfile --\n": `unknown option "nonsense"`,
		"About.\n":                            "no Dockerfile",
	} {
		if _, err := Parse([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
