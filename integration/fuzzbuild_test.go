package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/optbuild/optbuild/integration/bases"
	"github.com/optbuild/optbuild/integration/fakes"
	"github.com/optbuild/optbuild/integration/fuzzbuild"
	"github.com/optbuild/optbuild/integration/tree"
)

// TestFuzzBuild compares what optbuild builds after changes of a context, with the state directory that it has had all along, with clean builds
// of stock BuildKit (package fuzzbuild). SEED chooses what is done, DIFFERENCES names the directory for what differs, OPTIMIZE is optbuild's
// --optimize.
func TestFuzzBuild(t *testing.T) {
	r := newFuzzRig(t)
	t.Run("finds", r.finds)
	t.Run("mutations", r.mutations)
	t.Run("sequences", r.sequences)
	t.Run("runners", r.runners)
}

// mutations changes each project in MUTATIONS ways (2), in all that there are if it is 0. PROJECTS=name,name and KINDS=kind,kind limit it.
func (r *fuzzRig) mutations(t *testing.T) {
	c := r.campaign(t)
	c.Most = number(t, "MUTATIONS", "2")
	if only := os.Getenv("KINDS"); only != "" {
		c.Kinds = strings.Split(only, ",")
	}
	c.Projects = fuzzProjects(t)
	report, err := r.Run(t.Context(), c)
	r.verdict(t, "mutations", report, err)
}

// sequences edits generated projects at random, with kills, prunes and a second state directory in between: SEQUENCES of them (3), from the
// seeds SEED, SEED+1, ...; each is changed STEPS times (12).
func (r *fuzzRig) sequences(t *testing.T) {
	s := fuzzbuild.Sequences{Campaign: r.campaign(t), Steps: number(t, "STEPS", "12")}
	for i := range uint64(number(t, "SEQUENCES", "3")) {
		s.Projects = append(s.Projects, fuzzbuild.Generate(s.Seed+i))
	}
	report, err := r.RunSequences(t.Context(), s)
	r.verdict(t, "sequences", report, err)
}

// number is a variable of the environment.
func number(t *testing.T, name, otherwise string) int {
	n, err := strconv.Atoi(env(name, otherwise))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// fuzzProjects are those that PROJECTS names, or all.
func fuzzProjects(t *testing.T) []*fuzzbuild.Project {
	all, err := fuzzbuild.Projects()
	if err != nil {
		t.Fatal(err)
	}
	if only := os.Getenv("PROJECTS"); only != "" {
		all = slices.DeleteFunc(all, func(p *fuzzbuild.Project) bool { return !slices.Contains(strings.Split(only, ","), p.Name) })
	}
	return all
}

// fuzzRig is optbuild, stock BuildKit and a registry for both.
type fuzzRig struct {
	*fuzzbuild.Rig
	optbuild *fuzzbuild.Optbuild
	images   map[string]error
	registry string // where what the tests push is
}

func newFuzzRig(t *testing.T) *fuzzRig {
	t.Helper()
	g := prepare(t)
	if os.Geteuid() != 0 {
		skipped.skip(t, "not root, which stock buildkitd needs here")
	}
	for _, name := range []string{"STOCK_BUILDKITD", "STOCK_RUNC"} {
		if os.Getenv(name) == "" {
			skipped.skip(t, name+" does not name a binary of stock BuildKit to compare with")
		}
	}
	dir, err := os.MkdirTemp(rigParent(g), "optbuild-fuzz-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("OPTBUILD_TEST_KEEP") != "" {
			fmt.Println("kept:", dir)
		} else if err := tree.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	server, err := newServer(g, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	cache, err := bases.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	busybox := bases.Base{Name: "busybox", Dir: filepath.Join(g.Dir, "bases", "busybox")}
	if err := fakes.Push(t.Context(), server.Addr, busybox); err != nil {
		t.Fatal(err)
	}
	images := fuzzbuild.PushImages(t.Context(), cache, server.Addr, busybox)
	home := filepath.Join(dir, "home")
	config := filepath.Join(home, ".config", "buildkit", "buildkitd.toml")
	mirror := fmt.Sprintf("[registry.\"docker.io\"]\n  mirrors = [\"%[1]s\"]\n[registry.\"%[1]s\"]\n  http = true\n", server.Addr)
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(mirror), 0o644); err != nil {
		t.Fatal(err)
	}
	stock, err := fuzzbuild.StartStock(t.Context(), fuzzbuild.StockOptions{Buildkitd: os.Getenv("STOCK_BUILDKITD"), Runc: os.Getenv("STOCK_RUNC"),
		Dir: filepath.Join(dir, "stock"), Config: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stock.Close)
	r := &fuzzRig{optbuild: &fuzzbuild.Optbuild{Bin: filepath.Join(g.Dir, "bin", "optbuild"), Home: home, Level: os.Getenv("OPTIMIZE")}, images: images, registry: server.Addr}
	r.Rig = &fuzzbuild.Rig{Dir: dir, Contexts: g.Dir, Keep: os.Getenv("DIFFERENCES"), Stock: stock, Product: r.optbuild}
	if r.Keep == "" {
		r.Keep = filepath.Join(os.TempDir(), fmt.Sprintf("optbuild-fuzz-differences-%d", os.Getpid()))
	}
	return r
}

// campaign is what is common to all campaigns of a run.
func (r *fuzzRig) campaign(t *testing.T) fuzzbuild.Campaign {
	seed, err := strconv.ParseUint(env("SEED", "1"), 10, 63)
	if err != nil {
		t.Fatal(err)
	}
	return fuzzbuild.Campaign{Seed: seed, Workers: maxParallel, Images: r.images, Progress: func(line string) { fmt.Println("fuzz-build:", line) }}
}

// verdict prints what came of a campaign.
func (r *fuzzRig) verdict(t *testing.T, what string, report *fuzzbuild.Report, err error) {
	t.Helper()
	report.Print(os.Stdout)
	fmt.Printf("fuzz-build: %s: %s\n", what, report.Line())
	for _, row := range report.Rows {
		if row.Skipped != "" {
			skipped.add(t.Name()+"/"+row.Project, row.Skipped)
		}
		if row.Err != nil {
			t.Error(row.Err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range report.Bad() {
		t.Error(d)
	}
}

// finds is the test of the others: products that miss a change are found out, where the change matters and nowhere else.
func (r *fuzzRig) finds(t *testing.T) {
	all, err := fuzzbuild.Projects()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range fuzzbuild.Breakages {
		t.Run(b.Name, func(t *testing.T) {
			c := r.campaign(t)
			c.Progress = nil
			c.Projects = slices.DeleteFunc(slices.Clone(all), func(p *fuzzbuild.Project) bool { return p.Name != "shell_tests" })
			if c.Most = 4; b.Shows != nil {
				c.Kinds, c.Most = slices.Concat(b.Shows, b.Not), 0
				c.Once = true
			}
			broken := *r.Rig
			broken.Product = &fuzzbuild.Broken{Of: r.optbuild, Sees: b.Sees}
			broken.Keep = t.TempDir()
			report, err := broken.Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range report.Rows {
				if row.Err != nil {
					t.Fatal(row.Err)
				}
			}
			total := report.Total()
			found := map[string]bool{}
			for _, d := range total.Differences {
				if d.Kind != fuzzbuild.Stale {
					t.Errorf("not stale: %s", d)
				}
				kind, _, _ := strings.Cut(d.Change, " ") // "undo", where a change was not undone
				found[kind] = true
			}
			if b.Shows == nil && (len(total.Differences) != total.Mattered || total.Mattered == 0) {
				t.Errorf("%d differences of %d builds that mattered", len(total.Differences), total.Mattered)
			}
			for _, kind := range b.Shows {
				if !found[kind] {
					t.Errorf("%s: not found", kind)
				}
			}
			for _, kind := range b.Not {
				if found[kind] {
					t.Errorf("%s: found, and is right", kind)
				}
			}
		})
	}
}
