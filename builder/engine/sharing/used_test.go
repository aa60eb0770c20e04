package sharing

import (
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/scope"
	"github.com/optbuild/optbuild/cache/remote"
)

// What a build has used of the scope that it writes is added as new, however old it is, so that bounds of age leave it there; what is of other scopes stays theirs.
func TestUsedStaysYoung(t *testing.T) {
	old := time.Now().AddDate(0, -6, 0)
	entry := func(scope, key string) remote.Entry {
		return remote.Entry{Kind: kindTrace, Key: key, Scope: scope, Created: old}
	}
	b := &build{}
	b.reads(reading{}, []*solved{{entry: entry("main", "solved")}})
	b.uses(entry("main", "trace"))
	b.uses(entry("other", "trace of another scope"))
	e := &exporter{store: &store{options: scope.Options{Write: "main"}}, builds: []*build{b}}
	var got []string
	used, due := e.used()
	if !due {
		t.Error("nothing is due of what is old")
	}
	for _, u := range used {
		got = append(got, u.Key)
		if time.Since(u.Created) > time.Hour {
			t.Errorf("%s was made %s", u.Key, u.Created)
		}
	}
	if len(got) != 2 || got[0] != "solved" || got[1] != "trace" {
		t.Errorf("used: %q", got)
	}

	// What was added today is not due.
	young := entry("main", "young")
	young.Created = time.Now().Add(-time.Hour)
	e.builds = []*build{{used: []remote.Entry{young}}}
	if used, due := e.used(); due || len(used) != 1 {
		t.Errorf("due %v: %v", due, used)
	}
}
