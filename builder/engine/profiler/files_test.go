package profiler

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/profile"
	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/builder/trace/view/viewer"
)

// layers makes two layers, the topmost first.
func layers(t *testing.T) []viewer.Directory {
	t.Helper()
	top, bottom := t.TempDir(), t.TempDir()
	for _, f := range []string{top + "/d/new", bottom + "/d/old", bottom + "/d/hidden", bottom + "/e/f"} {
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("old", bottom+"/d/link"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(bottom+"/e/pipe", 0o644); err != nil {
		t.Fatal(err)
	}
	return []viewer.Directory{{Path: top}, {Path: bottom}}
}

func text(files []profile.File) string {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "%d %s %s %d %v\n", f.Layer, f.Type, f.Path, f.Bytes, f.Read)
	}
	return b.String()
}

func TestFilesOf(t *testing.T) {
	const looked, read = trace.Looked, trace.Looked | trace.Read
	seen := [][]trace.Seen{
		{{Path: ".", What: looked, Order: 1}, {Path: "d", What: looked, Order: 3}, {Path: "d/old", What: trace.Absent, Order: 5}, {Path: "e", What: trace.Absent, Order: 7}, {Path: "d/new", What: read, Order: 12}, {Path: "end", What: trace.Absent, Order: 14}},
		{{Path: ".", What: looked | trace.Listed, Order: 2}, {Path: "d", What: looked, Order: 4}, {Path: "d/old", What: read, Order: 6}, {Path: "e", What: looked, Order: 8}, {Path: "e/f", What: looked, Order: 9}, {Path: "e/pipe", What: read, Order: 10}, {Path: "d/link", What: looked, Order: 11}, {Path: "e/\xff", What: looked, Order: 13}, {Path: "d/hidden", What: read, Order: 15}},
	}
	dirs := layers(t)
	if err := os.WriteFile(dirs[1].Path+"/e/\xff", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := filesOf(dirs, seen, "end")
	if err != nil {
		t.Fatal(err)
	}
	want := `1 directory /d 0 false
0 file /d/old 7 true
0 directory /e 0 false
0 file /e/f 7 false
0 other /e/pipe 0 true
0 symlink /d/link 0 false
1 file /d/new 7 true
`
	if got := text(files); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := profile.Encode(&profile.Profile{Files: files}); err != nil {
		t.Error(err)
	}
	if _, err := filesOf(dirs, [][]trace.Seen{{{Path: "gone", What: looked, Order: 1}}, nil}, "end"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A whiteout is seen through the layer that has it, and is no file.
func TestWhiteout(t *testing.T) {
	dirs := layers(t)
	if err := unix.Mknod(dirs[0].Path+"/d/hidden", unix.S_IFCHR, 0); err != nil {
		t.Skipf("make a whiteout: %v", err)
	}
	files, err := filesOf(dirs, [][]trace.Seen{{{Path: "d/hidden", What: trace.Looked, Order: 1}}, nil}, "end")
	if err != nil || len(files) != 0 {
		t.Errorf("got %v, %v", files, err)
	}
}

func TestParseConditions(t *testing.T) {
	c, err := parseConditions([]string{`{"port":80,"health":{"args":["true"],"timeout":5}}`})
	if want := (profile.Conditions{Port: 80, Health: &profile.Health{Args: []string{"true"}, Timeout: 5}}); err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, args := range [][]string{nil, {"x"}, {"{}", "{}"}} {
		if _, err := parseConditions(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
