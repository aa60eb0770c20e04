package cache

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseBytes(t *testing.T) {
	var got strings.Builder
	for _, s := range []string{"20GB", "20gb", "1.5GiB", "500 MB", "0", "17", "1k", "", "-1", "20XB", "GB"} {
		n, err := ParseBytes(s)
		fmt.Fprintf(&got, "%q %d %v\n", s, n, err)
	}
	want := `"20GB" 20000000000 <nil>
"20gb" 20000000000 <nil>
"1.5GiB" 1610612736 <nil>
"500 MB" 500000000 <nil>
"0" 0 <nil>
"17" 17 <nil>
"1k" 1000 <nil>
"" 0 "" is not a size (like 20GB or 500MiB)
"-1" 0 "-1" is not a size (like 20GB or 500MiB)
"20XB" 0 "20XB" is not a size (like 20GB or 500MiB)
"GB" 0 "GB" is not a size (like 20GB or 500MiB)
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
}

func TestLimits(t *testing.T) {
	const gb = gigabyte
	var got strings.Builder
	for _, c := range []struct {
		total, free, used int64
	}{
		{total: 20 * gb, free: 15 * gb, used: 1 * gb},        // small disk: the least
		{total: 20 * gb, free: 3 * gb, used: 8 * gb},         // the least would leave too little free
		{total: 200 * gb, free: 150 * gb, used: 30 * gb},     // a fifth
		{total: 4000 * gb, free: 2000 * gb, used: 30 * gb},   // the most
		{total: 200 * gb, free: 5 * gb, used: 30 * gb},       // others fill the disk: the cache makes room
		{total: 200 * gb, free: 0, used: 3 * gb},             // but not down to nothing
		{total: 4000 * gb, free: 30 * gb, used: 30 * gb},     // a large disk needs no twentieth free
		{total: 300_000_000, free: 200_000_000, used: 5_000}, // a tmpfs
	} {
		d := Disk{Total: c.total, Free: c.free}
		l := DefaultLimit(d)
		fmt.Fprintf(&got, "%s disk, %s free, %s used: %s, here %s, short %v\n", FormatBytes(c.total), FormatBytes(c.free), FormatBytes(c.used),
			FormatBytes(l.Bytes), FormatBytes(l.On(d, c.used).Bytes), Short(d))
	}
	want := `20GB disk, 15GB free, 1GB used: 10GB, here 10GB, short false
20GB disk, 3GB free, 8GB used: 10GB, here 10GB, short false
200GB disk, 150GB free, 30GB used: 40GB, here 40GB, short false
4TB disk, 2TB free, 30GB used: 100GB, here 100GB, short false
200GB disk, 5GB free, 30GB used: 40GB, here 25GB, short true
200GB disk, 0B free, 3GB used: 40GB, here 10GB, short true
4TB disk, 30GB free, 30GB used: 100GB, here 100GB, short false
300MB disk, 200MB free, 5kB used: 10GB, here 185MB, short false
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
	files := Disk{Total: 100 * gb, Free: 90 * gb, Inodes: 1000, FreeInodes: 40}
	if l := DefaultLimit(files).On(files, 8*gb); !Short(files) || l.Bytes != 7.2*gb {
		t.Errorf("short of inodes: %v, %s", Short(files), FormatBytes(l.Bytes))
	}
}

// A small build: base <- apt <- copy <- build, a context, a cache mount, and an old branch base <- old.
func records() []Record {
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	return []Record{
		{ID: "base", Bytes: 100, LastUsed: at(1)},
		{ID: "apt", Bytes: 50, LastUsed: at(2), Parents: []string{"base"}},
		{ID: "copy", Bytes: 10, LastUsed: at(8), Parents: []string{"apt"}},
		{ID: "build", Bytes: 20, LastUsed: at(9), Parents: []string{"copy"}},
		{ID: "old", Bytes: 30, LastUsed: at(3), Parents: []string{"base"}},
		{ID: "context", Bytes: 5, LastUsed: at(5)},
		{ID: "mount", Bytes: 40, LastUsed: at(4)},
	}
}

func TestCutoff(t *testing.T) {
	for _, c := range []struct {
		name    string
		limit   Limit
		most    int
		records func(r []Record) []Record
		want    string // minute of the cutoff and number of records
	}{
		{name: "below the limit", limit: Limit{Bytes: 255, Records: 7}, want: "none"},
		{name: "the longest unused leaf goes first", limit: Limit{Bytes: 250}, want: "minute 3, 1 records"},
		{name: "goes on until there is enough", limit: Limit{Bytes: 200}, want: "minute 4, 2 records"},
		{name: "down to the target, not the limit", limit: Limit{Bytes: 226}, want: "minute 4, 2 records"},
		{name: "a parent counts as used when its last child was", limit: Limit{Bytes: 160}, want: "minute 9, 7 records"},
		{name: "number of records", limit: Limit{Bytes: 1000, Records: 6}, want: "minute 3, 1 records"},
		{name: "at most so many", limit: Limit{Bytes: 1}, most: 3, want: "minute 5, 3 records"},
		{name: "what is in use stays, and what it builds on", limit: Limit{Bytes: 1}, records: func(r []Record) []Record {
			r[3].InUse = true
			return r
		}, want: "minute 5, 3 records"},
		{name: "nothing can go", limit: Limit{Bytes: 1}, records: func(r []Record) []Record {
			for i := range r {
				r[i].InUse = true
			}
			return r
		}, want: "none"},
		{name: "what images hold does not come free", limit: Limit{Bytes: 250}, records: func(r []Record) []Record {
			r[4].HeldBytes = 28
			return r
		}, want: "minute 4, 2 records"},
		{name: "never used goes first", limit: Limit{Bytes: 300}, records: func(r []Record) []Record {
			return append(r, Record{ID: "crashed", Bytes: 100})
		}, want: "never used, 1 records"},
		{name: "a cycle stays", limit: Limit{Bytes: 1}, records: func([]Record) []Record {
			return []Record{{ID: "a", Bytes: 9, Parents: []string{"b"}}, {ID: "b", Bytes: 9, Parents: []string{"a"}}}
		}, want: "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := records()
			if c.records != nil {
				r = c.records(r)
			}
			var bytes int64
			for _, r := range r {
				bytes += r.Bytes
			}
			most := c.most
			if most == 0 {
				most = 100
			}
			got := "none"
			if cutoff, n := Cutoff(c.limit, bytes, r, most); n > 0 {
				got = fmt.Sprintf("minute %d, %d records", cutoff.Minute(), n)
				if cutoff.IsZero() {
					got = fmt.Sprintf("never used, %d records", n)
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// Whatever goes, BuildKit can remove: no record stays that builds on one that went.
func TestCutoffIsClosed(t *testing.T) {
	for limit := int64(1); limit < 255; limit++ {
		r := records()
		cutoff, n := Cutoff(Limit{Bytes: limit}, 255, r, 100)
		last := lastUses(r)
		gone := 0
		for _, r := range r {
			goes := !last[r.ID].After(cutoff)
			if goes {
				gone++
			}
			for _, p := range r.Parents {
				if !last[p].After(cutoff) && !goes {
					t.Errorf("limit %d: %s goes before %s", limit, p, r.ID)
				}
			}
		}
		if gone != n {
			t.Errorf("limit %d: %d records go, %d were announced", limit, gone, n)
		}
	}
}

func TestDuCountsLinksOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "a"), 64<<20); err != nil { // a hole takes nothing
		t.Fatal(err)
	}
	var files []string
	var sum int64
	err := Du(dir, nil, func(path string, bytes int64) { files, sum = append(files, filepath.Base(path)), sum+bytes })
	if err != nil || len(files) != 2 || files[1] != "a" || sum < 1<<20 || sum > 2<<20 {
		t.Errorf("%v, %d bytes, %v", files, sum, err)
	}
}
