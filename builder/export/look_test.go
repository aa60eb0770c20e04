package export

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/export/strip"
)

// Where a variable moves a cache to, there are other files, too: they stay, and so do directories that have them, or that were empty.
func TestMovedCache(t *testing.T) {
	s := newStack(t)
	digest := strings.Repeat("0", 56)
	gem := func(root string) {
		write(t, root, "srv/cache/rack-3.0.0.gem", "gem")
		write(t, root, "srv/cache/vendored-1.0.0.gem", "gem")
		write(t, root, "srv/specifications/rack-3.0.0.gemspec", "spec")
	}
	s.layer(func(root string) {
		write(t, root, "srv/http/index.html", "copied")
		must(t, os.Mkdir(filepath.Join(root, "srv/selfcheck"), 0o755))
	})
	s.layer(func(root string) {
		write(t, root, "srv/http/0/1/2/3/4/"+digest, "cache")
		write(t, root, "srv/http/0/1/2/x/own", "mine")
		write(t, root, "srv/http/own.html", "mine")
		write(t, root, "srv/selfcheck/"+digest, "cache")
		must(t, os.Chmod(filepath.Join(root, "srv/selfcheck"), 0o700)) // which the COPY's directory keeps
		write(t, root, "srv/wheels/"+digest[:2]+"/"+digest[:2]+"/own", "mine")
		must(t, os.MkdirAll(filepath.Join(root, "srv/http-v2/0"), 0o755)) // of nobody knows whom
		gem(root)
	})
	u := s.union(2, nil, func(i int) bool { return i == 2 })
	var c dockerspec.DockerOCIImageConfig
	c.Env = []string{"PIP_CACHE_DIR=/srv", "GEM_HOME=/srv"}
	rules := strip.New(strip.Set{"pip", "bundler"}, strip.Config(c))
	look := u.looker()
	u.residue = func(path string) strip.Residue { return rules.Find(path, look) }
	got := entries(t, s.tar(u))
	want := []string{
		"srv/", "srv/cache/", "srv/cache/vendored-1.0.0.gem", "srv/http/", "srv/http/0/", "srv/http/0/1/", "srv/http/0/1/2/", "srv/http/0/1/2/x/", "srv/http/0/1/2/x/own", "srv/http/own.html",
		"srv/http-v2/", "srv/http-v2/0/", "srv/selfcheck/", "srv/specifications/", "srv/specifications/rack-3.0.0.gemspec", "srv/wheels/", "srv/wheels/00/", "srv/wheels/00/00/", "srv/wheels/00/00/own",
	}
	if !slices.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
}

// TestLook finds what can be seen, in the layers that a key has in full only.
func TestLook(t *testing.T) {
	s := newStack(t)
	s.layer(func(root string) {
		write(t, root, "d/below", "below")
		write(t, root, "d/deleted", "x")
		write(t, root, "e/hidden", "x")
	})
	s.layer(func(root string) { write(t, root, "d/copied", "x") })
	s.layer(func(root string) {
		must(t, os.Remove(filepath.Join(root, "d/deleted")))
		must(t, os.RemoveAll(filepath.Join(root, "e")))
		write(t, root, "e/new", strings.Repeat("n", 100))
		must(t, os.Symlink("below", filepath.Join(root, "d/link")))
	})
	u := s.union(3, nil, every)
	u.lower[0].projected = true
	look := u.looker()
	for path, want := range map[string]string{
		"/d": "", "/d/below": "below", "/d/deleted": "none", "/d/copied": "none", "/e/hidden": "none", "/e/new": strings.Repeat("n", strip.Head), "/d/link": "none", "/none/x": "none",
		"/d/below/x": "none",
	} {
		head, ok := look(path)
		if got := string(head); ok && got != want || !ok && want != "none" {
			t.Errorf("%s: %q, %t, want %q", path, got, ok, want)
		}
	}
}
