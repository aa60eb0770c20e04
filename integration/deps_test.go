package integration

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module   = "github.com/optbuild/optbuild"
	buildkit = "github.com/moby/buildkit"
)

// directions says which of our own packages the packages below a folder may import, as folders; nothing else. The first row
// that matches a package holds.
var directions = []struct {
	from string
	to   []string
}{
	{"cache", []string{"cache"}},
	{"snapshot", []string{"snapshot"}},
	{"frontend", []string{"frontend"}},
	{"builder", []string{"builder", "cache", "snapshot"}},
	{"cmd", []string{"builder", "cache", "cmd", "frontend", "snapshot"}},
	{"integration", []string{"builder", "cache", "frontend", "integration", "snapshot"}},
}

// enginePackages are the parts of BuildKit that only the engine may use, so that a new BuildKit is one folder's work.
var enginePackages = []string{"worker", "solver", "control", "executor"}

// ignorant are folders that know nothing of BuildKit, as their package comments promise.
var ignorant = []string{"cache", "snapshot", "builder/process", "builder/runtime", "builder/ledger"}

// wireTypes are what clients and frontends of any BuildKit speak: LLB, the errors that come back, attestations of results, the names of worker labels.
var wireTypes = []string{
	buildkit + "/solver/pb",
	buildkit + "/solver/errdefs",
	buildkit + "/solver/result",
	buildkit + "/worker/label",
}

// TestImportDirections parses the sources itself: a `go list` in a subprocess would hide them from go test's cache.
func TestImportDirections(t *testing.T) {
	found := 0
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") {
			return err
		}
		rel, err := filepath.Rel("..", file)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		found++
		for _, spec := range f.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if complaint := checkImport(path.Dir(filepath.ToSlash(rel)), target); complaint != "" {
				t.Errorf("%s: %s", rel, complaint)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Fatal("no Go files found")
	}
}

// checkImport says what is wrong with a package of ours (a folder) importing target; "" if nothing is.
func checkImport(folder, target string) string {
	if own, ok := strings.CutPrefix(target, module+"/"); ok {
		for _, d := range directions {
			if !below(folder, d.from) {
				continue
			}
			for _, to := range d.to {
				if below(own, to) {
					return ""
				}
			}
			return fmt.Sprintf("%s may not import %s", d.from, own)
		}
		return fmt.Sprintf("%s has no row in directions", folder)
	}
	if below(target, buildkit) && slices.ContainsFunc(ignorant, func(f string) bool { return below(folder, f) }) {
		return fmt.Sprintf("%s knows nothing of BuildKit and may not import %s", folder, target)
	}
	if below(folder, "builder/engine") || slices.Contains(wireTypes, target) || folder == "builder/export" && target == buildkit+"/solver" { // for solver.Remote: what a result says its layers are
		return ""
	}
	for _, p := range enginePackages {
		if below(target, buildkit+"/"+p) {
			return fmt.Sprintf("only builder/engine may import %s", target)
		}
	}
	return ""
}

func below(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

func TestCheckImport(t *testing.T) {
	for _, c := range []struct{ folder, target, want string }{
		{"frontend", module + "/frontend/plan", ""},
		{"frontend/opt", module + "/builder", "frontend may not import builder"},
		{"builder/engine", module + "/snapshot", ""},
		{"builder", module + "/frontend", "builder may not import frontend"},
		{"snapshot", module + "/cache", "snapshot may not import cache"},
		{"cache", module + "/snapshot", "cache may not import snapshot"},
		{"cmd/optbuild", module + "/frontend", ""},
		{"tools", module + "/cache", "tools has no row in directions"},
		{"frontend", buildkit + "/solver", "only builder/engine may import " + buildkit + "/solver"},
		{"frontend", buildkit + "/solver/pb", ""},
		{"cmd/optbuild", buildkit + "/executor/oci", "only builder/engine may import " + buildkit + "/executor/oci"},
		{"builder/engine", buildkit + "/control", ""},
		{"builder", buildkit + "/control", "only builder/engine may import " + buildkit + "/control"},
		{"builder/request", buildkit + "/client", ""},
		{"builder/request", buildkit + "/solver/pb", ""},
		{"snapshot", buildkit + "/snapshot", "snapshot knows nothing of BuildKit and may not import " + buildkit + "/snapshot"},
		{"builder/process", buildkit + "/client", "builder/process knows nothing of BuildKit and may not import " + buildkit + "/client"},
		{"cmd/optbuild", buildkit + "/solver/errdefs", ""},
	} {
		if got := checkImport(c.folder, c.target); got != c.want {
			t.Errorf("checkImport(%q, %q) = %q, want %q", c.folder, c.target, got, c.want)
		}
	}
}
