package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/optbuild/optbuild/builder/store"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, full, familiar string }{
		{"app", "docker.io/library/app:latest", "app:latest"},
		{"team/app:1", "docker.io/team/app:1", "team/app:1"},
		{"localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"},
		{"docker.io/library/app:1", "docker.io/library/app:1", "app:1"},
		{"app:1@" + sum('a'), "docker.io/library/app@" + sum('a'), "app@" + sum('a')},
		{"App", "", ""},
		{"", "", ""},
		{"../app", "", ""},
	} {
		named, err := store.ParseName(c.in)
		if c.full == "" {
			if err == nil {
				t.Errorf("%q is taken for %s", c.in, named)
			}
			continue
		}
		ok(t, err)
		equal(t, c.in, named.String(), c.full)
		equal(t, c.full, store.Familiar(c.full), c.familiar)
	}
}

func sum(c byte) string { return "sha256:" + strings.Repeat(string(c), 64) }

// loadAs loads a new image under names and returns its id.
func loadAs(t *testing.T, s *store.Store, names ...string) string {
	t.Helper()
	archive, id := saved(t)
	_, err := s.Load(t.Context(), bytes.NewReader(archive))
	ok(t, err)
	for _, n := range names {
		ok(t, s.Tag(t.Context(), "app:1", n))
	}
	_, err = s.Remove(t.Context(), "app:1", false)
	ok(t, err)
	return id
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	s := newStore(t, store.Options{})
	loadAs(t, s, "web:1", "web:2", "team/web:1", "localhost:5000/db")
	all := "db latest,team/web 1,web 1,web 2"
	yes, no := true, false
	for _, c := range []struct {
		o    store.ListOptions
		want string
	}{
		{store.ListOptions{}, all},
		{store.ListOptions{References: []string{"web"}}, "web 1,web 2"},
		{store.ListOptions{References: []string{"web:2"}}, "web 2"},
		{store.ListOptions{References: []string{"*:1"}}, "web 1"},
		{store.ListOptions{References: []string{"*/web:1", "web:2"}}, "team/web 1,web 2"},
		{store.ListOptions{References: []string{"nope"}}, ""},
		{store.ListOptions{Dangling: &no}, all},
		{store.ListOptions{Dangling: &yes}, ""},
	} {
		got := strings.NewReplacer("localhost:5000/", "", " ["+host()+"]\n", ",").Replace(list(t, s, c.o))
		lines := strings.Split(strings.TrimSuffix(got, ","), ",")
		equal(t, fmt.Sprintf("%+v", c.o), strings.Join(slices.Sorted(slices.Values(lines)), ","), c.want)
	}
	_, err := s.List(t.Context(), store.ListOptions{References: []string{"["}})
	failsWith(t, err, "match pattern")
}

func TestRemove(t *testing.T) {
	t.Parallel()
	s := newStore(t, store.Options{})
	id := loadAs(t, s, "web:1", "web:2", "team/web:1")
	short := strings.TrimPrefix(id, "sha256:")[:12]
	for _, c := range []struct {
		ref   string
		force bool
		want  string
	}{
		{"nope", false, "no such image"},
		{"ffffffffffff", false, "no such image"},
		{short, false, "image has several names"},
		{"web:2", false, "[{Untagged:web:2 Deleted:}]"},
		{"web:2", false, "no such image"},
		{short, true, "[{Untagged:web:1 Deleted:} {Untagged:team/web:1 Deleted:} {Untagged: Deleted:" + id + "}]"},
		{short, true, "no such image"},
	} {
		removed, err := s.Remove(t.Context(), c.ref, c.force)
		if err != nil {
			failsWith(t, err, c.want)
			continue
		}
		equal(t, c.ref, fmt.Sprintf("%+v", removed), c.want)
	}
	equal(t, "store", dump(t, s), nothing)
}

// The content of an image lives as long as one of its names.
func TestContentLivesWithItsNames(t *testing.T) {
	t.Parallel()
	s := newStore(t, store.Options{})
	id := loadAs(t, s, "web:1", "web:2")
	loadAs(t, s, "db")
	_, err := s.Remove(t.Context(), "web:1", false)
	ok(t, err)
	_, err = s.Remove(t.Context(), "db", false) // collects
	ok(t, err)
	equal(t, "store", dump(t, s, id, "id"), "docker.io/library/web:2 id\n5 blobs, 0 unfinished\n")
	_, err = s.Inspect(t.Context(), "web:2", nil)
	ok(t, err)
	// A name that goes to another image does not keep the first.
	loadAs(t, s, "other")
	ok(t, s.Tag(t.Context(), "other", "web:2"))
	_, err = s.Remove(t.Context(), "other", false)
	ok(t, err)
	_, err = s.Remove(t.Context(), "web:2", false)
	ok(t, err)
	equal(t, "store", dump(t, s), nothing)
}

func TestTagRefusals(t *testing.T) {
	t.Parallel()
	s := newStore(t, store.Options{})
	loadAs(t, s, "web:1")
	before := dump(t, s)
	for _, c := range []struct{ source, target, want string }{
		{"nope", "x", "no such image"},
		{"web:1", "X", "parse image name"},
		{"web:1", "x@" + sum('a'), "a name with a digest"},
	} {
		failsWith(t, s.Tag(t.Context(), c.source, c.target), c.want)
	}
	equal(t, "store", dump(t, s), before)
}

func TestInspect(t *testing.T) {
	t.Parallel()
	s := newStore(t, store.Options{})
	id := loadAs(t, s, "web:1", "web:2")
	i, err := s.Inspect(t.Context(), strings.TrimPrefix(id, "sha256:")[:5], nil)
	ok(t, err)
	equal(t, "inspection", fmt.Sprintln(i.ID, i.RepoTags, i.RepoDigests, i.Os+"/"+i.Architecture, len(i.RootFS.Layers), i.RootFS.Type),
		fmt.Sprintln(id, "[web:1 web:2]", "[web@"+id+"]", host(), 2, "layers"))
	byConfig, err := s.Inspect(t.Context(), i.Manifest.Config.Digest.String(), nil)
	ok(t, err)
	equal(t, "id of the image with this configuration", byConfig.ID.String(), id)
	var manifests []string
	for _, m := range i.Manifests {
		manifests = append(manifests, fmt.Sprint(m.Kind, " ", m.Platform, " ", m.Available))
	}
	equal(t, "manifests", strings.Join(manifests, ", "), "image linux/s390x false, image "+host()+" true")
	_, err = s.Inspect(t.Context(), "web:1", &other)
	failsWith(t, err, "no image for platform linux/s390x")
	if _, err = s.Inspect(t.Context(), "nope", nil); !errors.Is(err, store.ErrNoImage) {
		t.Error(err)
	}
}
