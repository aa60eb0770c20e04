package actionscache

import (
	"fmt"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/gha"

	"github.com/optbuild/optbuild/builder/engine/actionscache/actionstest"
	"github.com/optbuild/optbuild/builder/engine/chains/chainstest"
)

var (
	index, blobs = regexp.MustCompile("^index-"), regexp.MustCompile("^buildkit-blob-")
	mainBranch   = actionstest.Branch{Scope: "refs/heads/main", Permission: actionstest.Read | actionstest.Write}
)

func start(t *testing.T) *actionstest.Service {
	s := &actionstest.Service{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL + "/"
	return s
}

func attrs(s *actionstest.Service, version string, branches ...actionstest.Branch) map[string]string {
	return map[string]string{"version": version, "url": s.URL, "url_v2": s.URL, "token": actionstest.Token(branches...)}
}

// write exports a cache in which each step has made the layer that is its name.
func write(t *testing.T, resolve remotecache.ResolveCacheExporterFunc, attrs map[string]string, steps ...string) error {
	t.Helper()
	e, err := resolve(t.Context(), nil, attrs)
	if err != nil {
		return err
	}
	if ours, ok := e.(*exporter); ok {
		ours.wait = time.Millisecond
	}
	return chainstest.Write(t, e, steps...)
}

// Whichever of BuildKit and this package has written, whichever reads finds the same.
func TestSameAsBuildKit(t *testing.T) {
	exporters := map[string]remotecache.ResolveCacheExporterFunc{"ours": Exporter(), "BuildKit": gha.ResolveCacheExporterFunc(nil, nil)}
	importers := map[string]remotecache.ResolveCacheImporterFunc{"ours": Importer(chainstest.Anything), "BuildKit": gha.ResolveCacheImporterFunc(nil, nil)}
	large := strings.Repeat("0123456789", 200_000) // several reads, and parts of an upload
	var keys []string
	for _, version := range []string{"1", "2"} {
		for from, exporter := range exporters {
			for to, importer := range importers {
				t.Run(fmt.Sprintf("%s to %s, version %s", from, to, version), func(t *testing.T) {
					s := start(t)
					a := attrs(s, version, mainBranch)
					a["scope"] = "app"
					for range 2 { // the second time everything but the index is there
						if err := write(t, exporter, a, "one", large); err != nil {
							t.Fatal(err)
						}
					}
					got, err := chainstest.Read(t, importer, a, "one", "unknown", large)
					if err != nil {
						t.Fatal(err)
					}
					if len(got.Texts) != 2 || got.Texts[0] != "one" || got.Texts[1] != large {
						t.Errorf("read %d layers: %.40q", len(got.Texts), got.Texts)
					}
					for i, layer := range []string{"one", large} {
						if want := chainstest.Describe(layer); fmt.Sprint(got.Layers[i]) != fmt.Sprint(want) {
							t.Errorf("described as\n%v\nwant\n%v", got.Layers[i], want)
						}
					}
					now := append(s.Keys(index), slices.Sorted(slices.Values(s.Keys(blobs)))...)
					if keys == nil {
						keys = now
					}
					if len(now) != 4 || !slices.Equal(now, keys) {
						t.Errorf("the service has\n%s\nbefore it had\n%s", strings.Join(now, "\n"), strings.Join(keys, "\n"))
					}
				})
			}
		}
	}
}

// A job reads its own branch's cache and the default branch's, and writes only the first.
func TestBranches(t *testing.T) {
	s := start(t)
	if err := write(t, Exporter(), attrs(s, "2", mainBranch), "main"); err != nil {
		t.Fatal(err)
	}
	branch := func(name string) []actionstest.Branch {
		return []actionstest.Branch{{Scope: "refs/heads/" + name, Permission: actionstest.Read | actionstest.Write}, {Scope: mainBranch.Scope, Permission: actionstest.Read}}
	}
	if err := write(t, Exporter(), attrs(s, "2", branch("a")...), "a"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "[main a]", "b": "[main]"} {
		if got, err := chainstest.Read(t, Importer(chainstest.Anything), attrs(s, "2", branch(name)...), "main", "a"); err != nil || fmt.Sprint(got.Texts) != want {
			t.Errorf("branch %s read %v (%v), want %s", name, got.Texts, err, want)
		}
	}
	if got, err := chainstest.Read(t, Importer(chainstest.Anything), attrs(s, "2", mainBranch), "main", "a"); err != nil || fmt.Sprint(got.Texts) != "[main]" {
		t.Errorf("main read %v (%v)", got.Texts, err)
	}
	err := write(t, Exporter(), attrs(s, "2", actionstest.Branch{Scope: mainBranch.Scope, Permission: actionstest.Read}), "fork")
	if err == nil || err.Error() != "this job's token may only read the cache" {
		t.Errorf("a fork's job may write: %v", err)
	}
}

// The newest index holds, whatever numbers others have taken; one that begins alike is another one.
func TestIndex(t *testing.T) {
	s := start(t)
	a := attrs(s, "2", mainBranch)
	if err := write(t, Exporter(), a, "old"); err != nil {
		t.Fatal(err)
	}
	key := s.Keys(index)[0]
	if !strings.HasSuffix(key, "#1") {
		t.Fatalf("the first index is %s", key)
	}
	// A job has died that had taken the next number, and one that signs its indexes has written after us.
	s.Reserve(mainBranch.Scope, strings.Replace(key, "#1", "#2", 1), s.Version())
	if err := write(t, Exporter(), a, "new"); err != nil {
		t.Fatal(err)
	}
	if keys := s.Keys(index); len(keys) != 2 || !strings.HasSuffix(keys[1], "#3") {
		t.Errorf("indexes are %v", keys)
	}
	other := attrs(s, "2", mainBranch)
	other["scope"] = "buildkit-1" // its keys begin with those of "buildkit"
	if err := write(t, Exporter(), other, "other"); err != nil {
		t.Fatal(err)
	}
	if got, err := chainstest.Read(t, Importer(chainstest.Anything), a, "old", "new", "other"); err != nil || fmt.Sprint(got.Texts) != "[new]" {
		t.Errorf("read %v, %v", got.Texts, err)
	}
}

func TestAttributes(t *testing.T) {
	token := actionstest.Token(mainBranch)
	for name, test := range map[string]struct {
		attrs map[string]string
		want  string
	}{
		"no token":  {map[string]string{"url": "http://x/"}, "token=… is missing: a job's is in ACTIONS_RUNTIME_TOKEN"},
		"no url":    {map[string]string{"token": token}, "url=… or url_v2=… is missing: a job's are in ACTIONS_CACHE_URL and ACTIONS_RESULTS_URL"},
		"version":   {map[string]string{"token": token, "url": "http://x/", "version": "3"}, "version=3 is not 1 or 2"},
		"timeout":   {map[string]string{"token": token, "url": "http://x/", "timeout": "10"}, "timeout=10 is no duration such as 10m"},
		"no branch": {map[string]string{"token": "x.y.z", "url": "http://x/"}, "read the token: "},
		"expired":   {map[string]string{"token": actionstest.Expired(mainBranch), "url": "http://x/"}, "read the token: cache token expired at "},
	} {
		if _, err := open(test.attrs); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want %s", name, err, test.want)
		}
	}
	for _, test := range []struct {
		attrs string // version url url_v2
		url   string
		v2    bool
	}{
		{"- old -", "old", false},
		{"- old new", "new", true},
		{"1 old new", "old", false},
		{"2 old -", "old", true},
		{"- https://results-receiver.actions.githubusercontent.com/ -", "https://results-receiver.actions.githubusercontent.com/", true},
	} {
		a := map[string]string{}
		for i, v := range strings.Fields(test.attrs) {
			if v != "-" {
				a[[]string{"version", "url", "url_v2"}[i]] = v
			}
		}
		if url, v2, err := address(a); err != nil || url != test.url || v2 != test.v2 {
			t.Errorf("%s: got %s, version 2 %v (%v)", test.attrs, url, v2, err)
		}
	}
}
