package request

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// fooled is a file system in which each file but the first has the same inode number as the first.
type fooled struct{ fsutil.FS }

func (f fooled) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	first := ""
	return f.FS.Walk(ctx, target, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return fn(path, d, err)
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*types.Stat).Clone()
		if st.Linkname = first; first == "" {
			first = path
		}
		return fn(path, &fsutil.DirEntryInfo{Stat: st}, nil)
	})
}

// TestHardlinks: files that are not the same one are not sent as one.
func TestHardlinks(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"a", "b", "m/d"} {
		write(t, filepath.Join(dir, f), f)
	}
	for link, file := range map[string]string{"c": "a", "m/e": "m/d", "m/f": "m/d"} {
		if err := os.Link(filepath.Join(dir, file), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	var got strings.Builder
	err := hardlinks{fooled{must(fsutil.NewFS(dir))}, dir}.Walk(t.Context(), "", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		for range 2 { // as filters do
			st := must(d.Info()).Sys().(*types.Stat)
			fmt.Fprintf(&got, "%s %d %q\n", st.Path, st.Size, st.Linkname)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, line := range []string{`a 1 ""`, `b 1 ""`, `c 1 "a"`, `m/d 3 ""`, `m/e 3 "m/d"`, `m/f 3 "m/d"`} {
		want += line + "\n" + line + "\n"
	}
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}
