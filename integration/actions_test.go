package integration

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/optbuild/optbuild/builder/engine/actionscache/actionstest"
)

// newActions is GitHub Actions' cache service at /actions/ of a server.
func newActions(addr string) (*actionstest.Service, http.Handler) {
	s := &actionstest.Service{URL: "http://" + addr + "/actions/"}
	return s, http.StripPrefix("/actions", s)
}

// actionsToken is that of a job which may write the first of the branches and read all.
func actionsToken(branches ...string) string {
	var list []actionstest.Branch
	for i, name := range branches {
		name, readOnly := strings.CutSuffix(name, ":ro")
		b := actionstest.Branch{Scope: name, Permission: actionstest.Read}
		if i == 0 && !readOnly {
			b.Permission |= actionstest.Write
		}
		list = append(list, b)
	}
	return actionstest.Token(list...)
}

// actions-job BRANCH[:ro] [BRANCH]...: from now on the script is a job of GitHub Actions, for the first branch.
func actionsJob(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 0, "actions-job BRANCH[:ro] [BRANCH]...")
	ts.Setenv("ACTIONS_CACHE_SERVICE_V2", "true")
	ts.Setenv("ACTIONS_RESULTS_URL", worldOf(ts).server.actions.URL)
	ts.Setenv("ACTIONS_RUNTIME_TOKEN", actionsToken(args...))
}

// actions-evict REGEXP: entries whose keys match are no longer there.
func actionsEvict(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "actions-evict REGEXP")
	if worldOf(ts).server.actions.Evict(regexp.MustCompile(args[0])) == 0 {
		ts.Fatalf("there is no such entry")
	}
}

// actions-damage REGEXP [cut]: entries whose keys match have another byte in the middle, or end there.
func actionsDamage(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1 || len(args) == 2 && args[1] == "cut", "actions-damage REGEXP [cut]")
	n := worldOf(ts).server.actions.Change(regexp.MustCompile(args[0]), func(b []byte) []byte {
		if len(args) == 2 {
			return b[:len(b)/2]
		}
		b[len(b)/2] ^= 1
		return b
	})
	if n == 0 {
		ts.Fatalf("there is no such entry")
	}
}

// keeps-no-secret VARIABLE DIR...: no file below the directories has the variable's value in it.
func keepsNoSecret(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 1 && ts.Getenv(args[0]) != "", "keeps-no-secret VARIABLE DIR...")
	for _, dir := range args[1:] {
		ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // another namespace's user may have made it
			}
			b, err := os.ReadFile(path)
			if err == nil && strings.Contains(string(b), ts.Getenv(args[0])) {
				ts.Fatalf("%s is in %s", args[0], path)
			}
			return nil
		}))
	}
}
