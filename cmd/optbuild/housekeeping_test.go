package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/housekeeping"
	"github.com/optbuild/optbuild/cache"
)

func TestParseConfig(t *testing.T) {
	var got strings.Builder
	for _, text := range []string{"", "max-cache = \"20GB\"", "# limits\nmax-cash = \"20GB\"\n", "\nmax-cache = \"much\"\n", "max-cache = [\n", "[cache]\nmax = 1"} {
		var c configFile
		err := parseConfig("config.toml", []byte(text), &c)
		fmt.Fprintf(&got, "%q: %d %v\n", text, c.MaxCache, err)
	}
	want := `"": 0 <nil>
"max-cache = \"20GB\"": 20000000000 <nil>
"# limits\nmax-cash = \"20GB\"\n": 0 config.toml:2: unknown key "max-cash"
"\nmax-cache = \"much\"\n": 0 config.toml:2: "much" is not a size (like 20GB or 500MiB)
"max-cache = [\n": 0 config.toml:1: array is incomplete
"[cache]\nmax = 1": 0 config.toml:1: unknown key "cache"
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}

func TestPruneRequest(t *testing.T) {
	var got strings.Builder
	for _, c := range []struct{ filters, keep string }{
		{"until=24h", ""}, {"type=exec.cachemount", ""}, {"id=abc private", ""}, {"until=1h shared", ""}, {"", "5GB"},
		{"until=soon", ""}, {"size=3", ""}, {"type", ""}, {"shared=false", ""}, {"", "much"}, {"until=1h", "5GB"},
	} {
		r, err := pruneRequest(false, strings.Fields(c.filters), c.keep)
		if err != nil {
			fmt.Fprintf(&got, "%v\n", err)
			continue
		}
		fmt.Fprintf(&got, "%v %v %d\n", r.Filters, r.Unused, r.Keep)
	}
	want := `[] 24h0m0s 0
[type=="exec.cachemount"] 0s 0
[id~="^abc",private] 0s 0
[shared] 1h0m0s 0
[] 0s 5000000000
--filter until=soon: is not a time like 24h
--filter size=3: unknown key (until, id, type, description, parents, inuse, mutable, immutable, shared or private)
--filter type: needs a value
--filter shared=false: takes no value (mutable and immutable, shared and private are opposites)
--keep-bytes much: "much" is not a size (like 20GB or 500MiB)
--keep-bytes: can't be combined with --filter
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}

func TestPrintUsage(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	u := cache.Usage{Images: 2_000_000, Snapshots: 30_000_000, CacheMounts: 4_000_000, Blobs: 500_000, Databases: 60_000, Other: 7_000,
		Reclaimable: 34_500_000, ImageCount: 2, Records: []cache.Record{
			{ID: "a", Type: "regular", Bytes: 30_000_000, LastUsed: now.Add(-3 * time.Hour), Description: "mount / from\n  exec make"},
			{ID: "b", Type: "exec.cachemount", Bytes: 4_000_000, InUse: true},
			{ID: "c", Type: "source.local"},
		}}.Sum()
	var got strings.Builder
	for _, f := range []usageFormat{{}, {verbose: true}, {template: "{{size .Total}}"}, {verbose: true, template: "{{.ID}} {{.Bytes}}"}, {json: true}} {
		if err := printUsage(&got, u, f, now); err != nil {
			t.Error(err)
		}
	}
	want := `TYPE                 COUNT   SIZE
Images               2       2MB
Build cache          2       30MB
Cache mounts         1       4MB
Blobs of the cache           500kB
Databases                    60kB
Other                        7kB
Total                        36.6MB
Reclaimable                  34.5MB
ID   TYPE              SIZE   LAST USED     DESCRIPTION
a    regular           30MB   3 hours ago   mount / from exec make
b    exec.cachemount   4MB    in use        
c    source.local      0B     never         
36.6MB
a 30000000
b 4000000
c 0
{
    "images": 2000000,
    "snapshots": 30000000,
    "cacheMounts": 4000000,
    "blobs": 500000,
    "databases": 60000,
    "other": 7000,
    "total": 36567000,
    "reclaimable": 34500000,
    "imageCount": 2
}
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}

func TestPrintPruned(t *testing.T) {
	var got strings.Builder
	p := housekeeping.Pruned{FreedBytes: 31_000_000, Removed: []cache.Record{{ID: "a", Type: "regular", Bytes: 30_000_000, Description: "pulled from x"}}}
	if err := printPruned(&got, p); err != nil {
		t.Error(err)
	}
	want := "ID   TYPE      SIZE   DESCRIPTION\na    regular   30MB   pulled from x\nFreed: 31MB\n"
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}
