package replay

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/snapshot"
)

// A directory goes if what is seen without it is the same. Those of a layer have a later time if "later" is among them, an earlier one if "earlier" is, one after the run if "future" is.
func TestDropBare(t *testing.T) {
	for _, c := range []struct {
		name  string
		layer string   // names: directories end with a slash, modes follow a colon, whiteouts a question mark, opaque directories have an exclamation mark
		below []string // layers, the topmost first
		want  string
	}{
		{"as it was", "etc/ tmp/", []string{"etc/ tmp/"}, ""},
		{"in the second layer below", "tmp/", []string{"etc/", "tmp/"}, ""},
		{"new", "left/", []string{"etc/"}, "left"},
		{"of another mode", "tmp/:700", []string{"tmp/"}, "tmp"},
		{"as the topmost layer has it", "tmp/:700", []string{"tmp/:700", "tmp/"}, ""},
		{"as a lower one has it", "tmp/", []string{"tmp/:700", "tmp/"}, "tmp"},
		{"of another time", "later/", []string{"later/"}, "later"},
		{"of another time, which says nothing", "later/ tmp/ var/ var/tmp/", []string{"later/ tmp/ var/ var/tmp/"}, "later var"},
		{"of a time that was set", "earlier/ tmp/", []string{"earlier/ tmp/"}, "earlier tmp"},
		{"of a time to come", "future/ tmp/", []string{"future/ tmp/"}, "future tmp"},
		{"something is in it", "tmp/ tmp/file", []string{"tmp/"}, "tmp tmp/file"},
		{"something is in the one above", "app/ app/file app/tmp/", []string{"app/ app/tmp/"}, "app app/file"},
		{"one in another", "var/ var/tmp/", []string{"var/ var/tmp/"}, ""},
		{"one in a new one", "var/ var/tmp/", []string{"tmp/"}, "var var/tmp"},
		{"new in one that was there", "var/ var/tmp/", []string{"var/"}, "var var/tmp"},
		{"it was removed", "tmp/", []string{"tmp?", "tmp/"}, "tmp"},
		{"the one above was removed", "var/ var/tmp/", []string{"var?", "var/ var/tmp/"}, "var var/tmp"},
		{"the one above was a file", "var/ var/tmp/", []string{"var", "var/ var/tmp/"}, "var var/tmp"},
		{"it hides what is below", "tmp/!", []string{"tmp/"}, "tmp"},
		{"the one above hides what is below", "var/! var/tmp/", []string{"var/ var/tmp/"}, "var var/tmp"},
		{"both hide what is below", "tmp/!", []string{"tmp/!"}, "tmp"},
		{"the one above hides it", "var/ var/tmp/", []string{"var/!", "var/ var/tmp/"}, "var var/tmp"},
		{"something was removed", "tmp/ tmp/file?", []string{"tmp/"}, "tmp tmp/file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			layer := layerOf(t, c.layer)
			var below []snapshot.Directory
			for _, l := range c.below {
				below = append(below, snapshot.Directory{Path: layerOf(t, l)})
			}
			then := time.Unix(1_000_000_000, 5)
			age(t, layer, then)
			for _, l := range below {
				age(t, l.Path, then)
			}
			begun := then
			for name, by := range map[string]time.Duration{"later": 1, "earlier": -1, "future": 2} {
				if _, err := os.Lstat(filepath.Join(layer, name)); err == nil {
					then = then.Add(by)
					age(t, layer, then)
				}
			}
			if err := dropBare(layer, below, begun, begun.Add(1)); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(namesIn(t, layer), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			for _, p := range append(namesIn(t, layer), ".") {
				if fi, err := os.Lstat(filepath.Join(layer, p)); err != nil || !fi.ModTime().Equal(then) {
					t.Errorf("%s has another time, %v", p, err)
				}
			}
		})
	}
}

func age(t *testing.T, dir string, at time.Time) {
	t.Helper()
	for _, p := range append(namesIn(t, dir), ".") {
		if err := os.Chtimes(filepath.Join(dir, p), at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// A layer with very many names stays what it is.
func TestDropBareOfMany(t *testing.T) {
	layer, below := layerOf(t, "tmp/ tmp/many/"), layerOf(t, "tmp/ tmp/many/")
	for name := range sized(mostBare) {
		if err := os.WriteFile(filepath.Join(layer, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := dropBare(layer, []snapshot.Directory{{Path: below}}, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(layer, "tmp")); err != nil {
		t.Error(err)
	}
}

// layerOf makes the directory of a layer, see TestDropBare.
func layerOf(t *testing.T, names string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range strings.Fields(names) {
		name, mode, _ := strings.Cut(name, ":")
		name, opaque := strings.CutSuffix(name, "!")
		at := filepath.Join(dir, strings.TrimSuffix(name, "?"))
		var err error
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.Mkdir(at, 0o755)
		case strings.HasSuffix(name, "?"):
			err = unix.Mknod(at, unix.S_IFCHR, 0)
		default:
			err = os.WriteFile(at, nil, 0o644)
		}
		if err == nil && mode == "700" {
			err = os.Chmod(at, 0o700)
		}
		if err == nil && opaque {
			if err = unix.Setxattr(at, "user.overlay.opaque", []byte("y"), 0); err == unix.ENOTSUP {
				t.Skip("this file system has no extended attributes")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}
