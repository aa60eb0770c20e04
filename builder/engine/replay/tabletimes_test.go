package replay

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A table gives back the times of what has not changed and looks newer, and of nothing else.
func TestTimesApply(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(dir, name, content string, mode os.FileMode) {
		file := filepath.Join(dir, name)
		must(os.MkdirAll(filepath.Dir(file), 0o755))
		must(os.WriteFile(file, []byte(content), mode))
		must(os.Chmod(file, mode))
	}
	then, now := time.Unix(1_000_000_000, 5), time.Unix(1_700_000_000, 7)
	make := func(at time.Time, change bool) string {
		dir := t.TempDir()
		write(dir, "same", "same", 0o644)
		write(dir, "sub/same", "same", 0o644)
		write(dir, "changed", "one", 0o644)
		write(dir, "mode", "mode", 0o644)
		write(dir, "older", "older", 0o644)
		must(os.Symlink("same", filepath.Join(dir, "link")))
		if change {
			write(dir, "changed", "two", 0o644)
			write(dir, "mode", "mode", 0o755)
			write(dir, "new", "new", 0o644)
		}
		must(filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
			if err != nil || e.Type()&os.ModeSymlink != 0 || e.IsDir() {
				return err
			}
			return os.Chtimes(p, at, at)
		}))
		must(os.Chtimes(filepath.Join(dir, "sub"), at, at))
		return dir
	}
	table, err := tableOf(t.Context(), make(then, false))
	must(err)
	b, err := table.Encode()
	must(err)
	table, err = DecodeTimes(b)
	must(err)
	dir := make(now, true)
	must(os.Chtimes(filepath.Join(dir, "older"), then.Add(-time.Hour), then.Add(-time.Hour)))
	must(table.apply(dir))
	for name, want := range map[string]time.Time{
		"same": then, "sub/same": then, "sub": then, "changed": now, "mode": now, "new": now, "older": then.Add(-time.Hour),
	} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		must(err)
		if !fi.ModTime().Equal(want) {
			t.Errorf("%s was modified at %s, want %s", name, fi.ModTime().UTC(), want.UTC())
		}
	}
	link, err := os.Lstat(filepath.Join(dir, "link"))
	must(err)
	for _, f := range table.Files {
		if f.Path == "link" && f.Modified != link.ModTime().UnixNano() {
			t.Errorf("the link was modified at %s", link.ModTime().UTC())
		}
	}
}

// What could lead out of a layer is no table.
func TestDecodeTimesRefuses(t *testing.T) {
	for _, text := range []string{`{"files":[{"p":"../x"}]}`, `{"files":[{"p":"/x"}]}`, `{"files":[{"p":"a/../../x"}]}`, `{"files":[{"p":""}]}`, `[`} {
		if _, err := DecodeTimes([]byte(text)); err == nil {
			t.Errorf("%s is taken for a table", text)
		}
	}
}
