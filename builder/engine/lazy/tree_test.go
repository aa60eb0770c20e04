package lazy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moby/buildkit/solver/pb"
)

// fill makes a small file system: names that end in a slash are directories, "a -> b" is a link.
func fill(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		var err error
		from, to, link := strings.Cut(name, " -> ")
		at := filepath.Join(root, from)
		switch {
		case link:
			err = os.Symlink(to, at)
		case strings.HasSuffix(name, "/"):
			if err = os.Mkdir(at, 0o755); err == nil {
				err = os.Chmod(at, 0o755|os.ModeSetgid)
			}
		default:
			if err = os.WriteFile(at, []byte("content of "+name), 0o644); err == nil {
				err = os.Chmod(at, 0o640)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func (t *Tree) String() string {
	var names []string
	for _, e := range t.Entries {
		names = append(names, strings.TrimSuffix(fmt.Sprintf("%s %o %s", e.Path, e.Mode, e.Link), " "))
	}
	return strings.Join(names, "; ")
}

func TestList(t *testing.T) {
	root := fill(t, "srv/", "srv/a", "srv/d/", "srv/d/b", "srv/l -> /elsewhere", "link -> srv", "other")
	for place, want := range map[string]string{
		"/srv":         ". 40755; srv 42755; srv/a 100640; srv/d 42755; srv/d/b 100640; srv/l 120777 /elsewhere",
		"/srv/d":       ". 40755; srv 42755; srv/d 42755; srv/d/b 100640",
		"/srv/a":       ". 40755; srv 42755; srv/a 100640", // it is replaced
		"/srv/new/sub": ". 40755; srv 42755",
		"/new":         ". 40755",
		"/":            ". 40755; link 120777 srv; other 100640; srv 42755; srv/a 100640; srv/d 42755; srv/d/b 100640; srv/l 120777 /elsewhere",
		"/link":        "link is no directory",
		"/link/d":      "link is no directory",
		"/srv/l":       "srv/l is no directory",
		"/srv/a/sub":   "srv/a is no directory",
	} {
		tree, err := List(root, place)
		if err != nil {
			if !errors.Is(err, ErrUnsure) || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%s: %v, want %s", place, err, want)
			}
			continue
		}
		if got := tree.String(); got != want {
			t.Errorf("%s: got  %s\nwant %s", place, got, want)
		}
		again, err := tree.Encode()
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := DecodeTree(again)
		if err != nil || !reflect.DeepEqual(decoded, tree) {
			t.Errorf("%s: %v, decoded %v", place, err, decoded)
		}
	}
}

func TestListUnsure(t *testing.T) {
	root := fill(t, "pipe/", "attributes/", "file/", "file/f")
	if err := unix.Mkfifo(filepath.Join(root, "pipe", "x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(root, "attributes"), "user.of", []byte("mine"), 0); err != nil {
		t.Skipf("this file system has no attributes: %v", err)
	}
	if err := unix.Setxattr(filepath.Join(root, "file", "f"), "user.of", []byte("mine"), 0); err != nil {
		t.Fatal(err)
	}
	for place, unsure := range map[string]bool{"/pipe": true, "/attributes": true, "/attributes/below": true, "/": true, "/file": false} {
		if _, err := List(root, place); errors.Is(err, ErrUnsure) != unsure || !unsure && err != nil {
			t.Errorf("%s: %v", place, err)
		}
	}
}

// TestWrite: what is written has the names, modes and times, and no content.
func TestWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root, who can give files away")
	}
	root := fill(t, "srv/", "srv/a", "srv/l -> /elsewhere", "srv/dir/", "srv/dir/b")
	then := time.Unix(1_000_000_000, 5)
	for _, name := range []string{"srv/a", "srv/dir", "srv"} {
		if err := os.Chtimes(filepath.Join(root, name), then, then); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Lchown(filepath.Join(root, "srv/l"), 5, 6); err != nil {
		t.Fatal(err)
	}
	tree, err := List(root, "/srv")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := tree.write(dir); err != nil {
		t.Fatal(err)
	}
	again, err := List(dir, "/srv")
	if err != nil || !reflect.DeepEqual(again, tree) {
		t.Errorf("%v: got %+v\nwant %+v", err, again, tree)
	}
	// A file that an operation takes over is found out, and so is what it makes at a place that it was led to.
	if err := within(dir, []string{"/srv"}); err == nil || !strings.Contains(err.Error(), "content of /srv/a is needed") {
		t.Error(err)
	}
	for place, want := range map[string]string{"/srv": "", "/": "", "/srv/a": "led to /srv/dir", "/srv/dir": "led to /srv/a", "/sr": "led to /srv", "/srv/dir/b/c": "led to /srv/a"} {
		err := within(root, []string{place})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", place, err, want)
		}
	}
}

// TestHostileTrees has what List does not make: nothing of it is written, and none of it outside the directory.
func TestHostileTrees(t *testing.T) {
	outside := t.TempDir()
	for name, entries := range map[string]string{
		"no root":           `{"p":"a","t":33188}`,
		"a way out":         `{"p":".","t":16877},{"p":"../x","t":33188}`,
		"an absolute one":   `{"p":".","t":16877},{"p":"/x","t":33188}`,
		"below a link":      `{"p":".","t":16877},{"p":"l","t":41471,"l":"` + outside + `"},{"p":"l/x","t":33188}`,
		"below a file":      `{"p":".","t":16877},{"p":"f","t":33188},{"p":"f/x","t":33188}`,
		"nowhere":           `{"p":".","t":16877},{"p":"d/x","t":33188}`,
		"a device":          `{"p":".","t":16877},{"p":"null","t":8630}`,
		"a root of a file":  `{"p":".","t":33188}`,
		"a link to nothing": `{"p":".","t":16877},{"p":"l","t":41471}`,
		"too many":          `{"p":".","t":16877}` + strings.Repeat(`,{"p":"x","t":33188}`, maxTree),
	} {
		if _, err := DecodeTree([]byte(`{"place":"/","entries":[` + entries + `]}`)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// A directory that becomes a link can be decoded, and not written.
	tree, err := DecodeTree([]byte(`{"place":"/","entries":[{"p":".","t":16877},{"p":"d","t":16877},{"p":"d","t":41471,"l":"` + outside + `"},{"p":"d/x","t":33188}]}`))
	if err == nil {
		err = tree.write(t.TempDir())
	}
	if err == nil {
		t.Error("a directory has become a link")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside is %v, %v", left, err)
	}
}

func TestPlaces(t *testing.T) {
	mkdir := func(p string) *pb.FileAction {
		return &pb.FileAction{Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: p}}}
	}
	to := func(p string, output int64) *pb.FileAction {
		return &pb.FileAction{Output: output, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Dest: p}}}
	}
	inside := mkdir("/a")
	inside.Output = -1
	rm := &pb.FileAction{Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/a"}}}
	for i, c := range []struct {
		actions []*pb.FileAction
		want    []string
	}{
		{[]*pb.FileAction{mkdir("/a/b/../c")}, []string{"/a/c"}},
		{[]*pb.FileAction{inside, to("/b/", 0)}, []string{"/a", "/b"}},
		{[]*pb.FileAction{to("/b", -1), to("/b/", 0)}, []string{"/b"}},
		{[]*pb.FileAction{to("/a", 0), to("/b", 1)}, nil},
		{[]*pb.FileAction{to("relative", 0)}, nil},
		{[]*pb.FileAction{rm}, nil},
	} {
		if got := places(&pb.FileOp{Actions: c.actions}); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d: got %q, want %q", i, got, c.want)
		}
	}
}
