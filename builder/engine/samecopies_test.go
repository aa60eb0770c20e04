package engine

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestSameTrees: what a stage gives is the same if paths, types, modes, owners and content are; times are not looked at.
func TestSameTrees(t *testing.T) {
	make := func(change func(dir string) error) string {
		t.Helper()
		dir := t.TempDir()
		for _, err := range []error{
			os.MkdirAll(filepath.Join(dir, "web/empty"), 0o755),
			os.WriteFile(filepath.Join(dir, "web/index.html"), []byte("page"), 0o644),
			os.WriteFile(filepath.Join(dir, "web/none"), nil, 0o644),
			os.Symlink("index.html", filepath.Join(dir, "web/start")),
			syscall.Mkfifo(filepath.Join(dir, "web/pipe"), 0o644),
			os.Chtimes(filepath.Join(dir, "web/index.html"), time.Now(), time.Now().Add(-time.Hour*time.Duration(len(dir)))),
			change(filepath.Join(dir, "web")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	none := func(string) error { return nil }
	first := make(none)
	for name, c := range map[string]struct {
		change func(dir string) error
		want   bool
	}{
		"nothing": {none, true},
		"time":    {func(d string) error { return os.Chtimes(filepath.Join(d, "none"), time.Now(), time.Unix(1, 0)) }, true},
		"content": {func(d string) error { return os.WriteFile(filepath.Join(d, "index.html"), []byte("Page"), 0o644) }, false},
		"size":    {func(d string) error { return os.WriteFile(filepath.Join(d, "index.html"), []byte("pages"), 0o644) }, false},
		"mode":    {func(d string) error { return os.Chmod(filepath.Join(d, "index.html"), 0o600) }, false},
		"setuid":  {func(d string) error { return os.Chmod(filepath.Join(d, "none"), 0o644|os.ModeSetuid) }, false},
		"link": {func(d string) error {
			return replace(filepath.Join(d, "start"), func(p string) error { return os.Symlink("none", p) })
		}, false},
		"type": {func(d string) error {
			return replace(filepath.Join(d, "pipe"), func(p string) error { return os.WriteFile(p, nil, 0o644) })
		}, false},
		"missing": {func(d string) error { return os.Remove(filepath.Join(d, "none")) }, false},
		"more":    {func(d string) error { return os.WriteFile(filepath.Join(d, "more"), nil, 0o644) }, false},
		"empty":   {func(d string) error { return os.Remove(filepath.Join(d, "empty")) }, false},
	} {
		other := make(c.change)
		for _, pair := range [][2]string{{first, other}, {other, first}} {
			if got, err := sameTrees(t.Context(), pair[0], pair[1], &compareLeft{100, 1 << 20}); err != nil || got != c.want {
				t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
			}
		}
	}
	for name, left := range map[string]compareLeft{"files": {3, 1 << 20}, "bytes": {100, 3}} {
		if got, err := sameTrees(t.Context(), first, make(none), &left); err != nil || got {
			t.Errorf("more %s than are compared: %v, %v", name, got, err)
		}
	}
}

func replace(path string, with func(string) error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return with(path)
}

// TestComparedLayer: a step that has made two layers is compared to none.
func TestComparedLayer(t *testing.T) {
	i := comparedImage{steps: []string{"COPY a /", "RUN x", "COPY a /", "COPY b /"}, dirs: []string{"/4", "/3", "/2", "/1"}}
	for step, want := range map[string]string{"COPY b /": "/4", "RUN x": "/2", "COPY a /": "", "COPY c /": ""} {
		if got := i.layer(step); got != want {
			t.Errorf("%s: %q, want %q", step, got, want)
		}
	}
}
