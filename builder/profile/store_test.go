package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/distribution/reference"
)

func named(t *testing.T, name string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// of is a profile that can be told from others by its first file.
func of(image, platform, file string) *Profile {
	return &Profile{Image: image, Platform: platform, Files: []File{{Path: file, Type: Regular, Read: true}}}
}

func TestStore(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "profiles"))
	find := func(name, platform string) string {
		t.Helper()
		p, err := s.Find(named(t, name), platform)
		if errors.Is(err, ErrNone) {
			return "none"
		}
		if err != nil {
			t.Fatal(err)
		}
		return p.Files[0].Path
	}
	put := func(p *Profile) {
		t.Helper()
		if err := s.Put(p); err != nil {
			t.Fatal(err)
		}
	}
	if got := find("app", "linux/amd64"); got != "none" {
		t.Errorf("got %s of an empty store", got)
	}
	put(of("docker.io/library/app:1", "linux/amd64", "/one"))
	put(of("docker.io/library/app:2", "linux/amd64", "/two"))
	put(of("docker.io/library/app:1", "linux/arm64", "/arm"))
	put(of("r.example/app:1", "linux/amd64", "/other"))
	for _, c := range []struct{ name, platform, want string }{
		{"app:1", "linux/amd64", "/one"},
		{"app:2", "linux/amd64", "/two"},
		{"app:3", "linux/amd64", "/two"}, // the repository's newest
		{"app", "linux/amd64", "/two"},
		{"app:1", "linux/arm64", "/arm"},
		{"app:2", "linux/arm64", "/arm"},
		{"app:1", "linux/s390x", "none"},
		{"other", "linux/amd64", "none"},
		{"r.example/app:1", "linux/amd64", "/other"},
	} {
		if got := find(c.name, c.platform); got != c.want {
			t.Errorf("%s for %s: got %s, want %s", c.name, c.platform, got, c.want)
		}
	}
	put(of("docker.io/library/app:1", "linux/amd64", "/again"))
	if got := find("app:1", "linux/amd64"); got != "/again" {
		t.Errorf("got %s", got)
	}
	if err := s.Put(&Profile{}); err == nil {
		t.Error("a profile without a name was kept")
	}

	// A damaged file is an error, and no profile.
	path := s.path("docker.io/library/app:2", "linux/amd64")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Find(named(t, "app:2"), "linux/amd64"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("got %v, %v", p, err)
	}
}

// The oldest files go.
func TestStoreIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range maxStored + 20 {
		path := filepath.Join(dir, fmt.Sprintf("%04d.json", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1e9+i), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	s := NewStore(dir)
	if err := s.Put(of("docker.io/library/app:1", "linux/amd64", "/one")); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != maxStored {
		t.Fatalf("got %d files, %v", len(left), err)
	}
	if left[0].Name() != "0022.json" { // two are new
		t.Errorf("the oldest is %s", left[0].Name())
	}
	if _, err := s.Find(named(t, "app:1"), "linux/amd64"); err != nil {
		t.Error(err)
	}
}
