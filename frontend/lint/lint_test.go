package lint

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/world"
)

// A case of testdata/<rule>/*.txtar shows what one rule finds; in testdata/buildkit and testdata/all it is all rules. Its sections:
//
//	Dockerfile      what comes in
//	options         optional JSON of world.Options
//	context/<path>  files of the context; a path that ends in "/" is a directory
//	want            the findings, as text; nothing if there are none
//
// Cases named not_* must find nothing. UPDATE=1 go test writes want.
func TestRules(t *testing.T) {
	groups := []string{"buildkit", "all"}
	for _, r := range Rules() {
		groups = append(groups, r.Name)
	}
	for _, group := range groups {
		files, err := filepath.Glob("testdata/" + group + "/*.txtar")
		if err != nil {
			t.Fatal(err)
		}
		twin := func(f string) bool { return strings.HasPrefix(filepath.Base(f), "not_") }
		if !slices.ContainsFunc(files, twin) || !slices.ContainsFunc(files, func(f string) bool { return !twin(f) }) {
			t.Errorf("%s lacks a case, or the twin of one", group)
		}
		for _, file := range files {
			t.Run(group+"/"+strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runCase(t, group, file) })
		}
	}
}

func runCase(t *testing.T, group, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dockerfile, found := lintArchive(t, a)
	if group != "all" {
		ours := slices.ContainsFunc(Rules(), func(r Rule) bool { return r.Name == group })
		found = slices.DeleteFunc(found, func(f Finding) bool {
			return ours && f.Rule != group || !ours && slices.ContainsFunc(Rules(), func(r Rule) bool { return r.Name == f.Rule })
		})
	}
	var b bytes.Buffer
	if err := Text(&b, found, []byte(dockerfile)); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 0 && strings.HasPrefix(filepath.Base(file), "not_") {
		t.Errorf("a false alarm:\n%s", b.String())
	}
	i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "want" })
	if os.Getenv("UPDATE") != "" {
		if i < 0 {
			a.Files = append(a.Files, txtar.File{Name: "want"})
			i = len(a.Files) - 1
		}
		a.Files[i].Data = b.Bytes()
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if i < 0 {
		t.Fatal("no section want")
	}
	if want := string(a.Files[i].Data); b.String() != want {
		t.Errorf("--- got ---\n%s--- want ---\n%s", b.String(), want)
	}
}

// lintArchive checks the Dockerfile of an archive in a context of its files.
func lintArchive(t testing.TB, a *txtar.Archive) (string, []Finding) {
	t.Helper()
	dir := t.TempDir()
	s := &world.Source{Context: dir, Name: "Dockerfile"}
	var o world.Options
	for _, f := range a.Files {
		name, inContext := strings.CutPrefix(f.Name, "context/")
		switch {
		case f.Name == "Dockerfile":
			s.Data = f.Data
		case f.Name == "options":
			if err := json.Unmarshal(f.Data, &o); err != nil {
				t.Fatal(err)
			}
		case inContext:
			file := filepath.Join(dir, name)
			if strings.HasSuffix(name, "/") {
				file = filepath.Join(file, ".keep")
			}
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		case f.Name != "want":
			t.Fatalf("unknown section %s", f.Name)
		}
	}
	p, err := plan.Parse(s.Name, s.Data)
	if err != nil {
		t.Fatal(err)
	}
	o.Wants = Wants
	f, err := world.Local(p, s, o)
	if err != nil {
		t.Fatal(err)
	}
	_, ignore, err := s.Ignore()
	if err != nil {
		t.Fatal(err)
	}
	found, err := Run(context.Background(), p, f, string(ignore))
	if err != nil {
		t.Fatal(err)
	}
	return string(s.Data), found
}

// TestPages: every rule has its heading in the README, and every heading its rule; what the page calls bad is found, what it calls good is not.
func TestPages(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Rules\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(section, -1) {
		if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == m[1] }) {
			t.Errorf("the heading %s has no rule", m[1])
		}
	}
	for _, r := range Rules() {
		_, page, found := strings.Cut(section, "\n### "+r.Name+"\n\n")
		page, _, _ = strings.Cut(page, "\n### ")
		if !found {
			t.Errorf("%s has no heading in README.md", r.Name)
			continue
		}
		if !strings.HasPrefix(strings.ToLower(page), r.Severity.String()) {
			t.Errorf("the page of %s does not begin with its severity, %s", r.Name, r.Severity)
		}
		if want := "#" + strings.ToLower(r.Name); !strings.HasSuffix(r.URL, want) {
			t.Errorf("%s has the address %s, want %s at its end", r.Name, r.URL, want)
		}
		if r.run != nil {
			checkExample(t, r, example(page, "Bad"), true)
			checkExample(t, r, example(page, "Good"), false)
		}
	}
}

// example is the indented block below a line that begins with the word.
func example(page, word string) string {
	var block strings.Builder
	_, rest, _ := strings.Cut("\n"+page, "\n"+word)
	_, rest, _ = strings.Cut(rest, "\n\n")
	for line := range strings.Lines(rest) {
		code, ok := strings.CutPrefix(line, "    ")
		if !ok {
			break
		}
		block.WriteString(code)
	}
	return block.String()
}

// checkExample puts an example into a Dockerfile, in a context that has something for every rule.
func checkExample(t *testing.T, r Rule, text string, bad bool) {
	if text == "" {
		t.Errorf("the page of %s lacks an example, bad=%v", r.Name, bad)
		return
	}
	context := "-- context/.git/HEAD --\n-- context/node_modules/x --\n-- context/.npmrc --\n//r/:_authToken=0123456789abcdef\n"
	if r.Name == "NoDockerignore" && !bad { // an ignore file
		context += "-- context/.dockerignore --\n" + text
		text = "COPY . .\nRUN npm ci\n"
	}
	text = strings.ReplaceAll(text, "ghp_…", "ghp_0123456789abcdef0123456789abcdef0123")
	text = strings.ReplaceAll(text, "sha256:…", "sha256:"+strings.Repeat("a", 64))
	if !strings.Contains(text, "FROM ") {
		text = "FROM debian:12\n" + text
	}
	_, list := lintArchive(t, txtar.Parse([]byte("-- Dockerfile --\n"+text+context)))
	if found := slices.ContainsFunc(list, func(f Finding) bool { return f.Rule == r.Name }); found != bad {
		t.Errorf("%s: the example is said to be bad: %v, and is found: %v\n%s", r.Name, bad, found, text)
	}
}

const several = `
-- Dockerfile --
FROM node:latest
ADD https://example.com/a,b:c /x
COPY . .
RUN apt-get update && \
    apt-get install curl
CMD ["x"]
-- context/node_modules/x --
-- context/.git/x --
`

func findings(t *testing.T) []Finding {
	t.Helper()
	_, list := lintArchive(t, txtar.Parse([]byte(several)))
	if len(list) < 4 {
		t.Fatalf("only %d findings", len(list))
	}
	return list
}

// TestSARIF checks what the schema of SARIF 2.1.0 requires, and what references within it must hold.
func TestSARIF(t *testing.T) {
	var b bytes.Buffer
	if err := SARIF(&b, findings(t), "1.0", "."); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Schema  string `json:"$schema"`
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Name  string
					Rules []struct {
						ID               string
						ShortDescription struct{ Text string }
						HelpURI          string
					}
				}
			}
			Results []struct {
				RuleID    string
				RuleIndex *int
				Level     string
				Message   struct{ Text string }
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI, URIBaseID string }
						Region           map[string]int
					}
				}
				Fixes []struct {
					ArtifactChanges []struct {
						ArtifactLocation struct{ URI string }
						Replacements     []struct {
							DeletedRegion   map[string]int
							InsertedContent struct{ Text string }
						}
					}
				}
			}
		}
	}
	d := json.NewDecoder(&b)
	if err := d.Decode(&log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || len(log.Runs) != 1 || log.Runs[0].Tool.Driver.Name != "optbuild" {
		t.Fatalf("got %+v", log)
	}
	rules := log.Runs[0].Tool.Driver.Rules
	for i, r := range rules {
		if r.ID == "" || r.ShortDescription.Text == "" || slices.ContainsFunc(rules[:i], func(o struct {
			ID               string
			ShortDescription struct{ Text string }
			HelpURI          string
		}) bool {
			return o.ID == r.ID
		}) {
			t.Errorf("rule %+v", r)
		}
	}
	fixes := 0
	for _, r := range log.Runs[0].Results {
		if r.RuleIndex == nil || rules[*r.RuleIndex].ID != r.RuleID || !slices.Contains([]string{"error", "warning", "note"}, r.Level) || r.Message.Text == "" || len(r.Locations) != 1 {
			t.Errorf("result %+v", r)
			continue
		}
		at := r.Locations[0].PhysicalLocation
		if at.ArtifactLocation.URI != "Dockerfile" || at.ArtifactLocation.URIBaseID != "%SRCROOT%" || at.Region["startLine"] < 1 || at.Region["endLine"] < at.Region["startLine"] {
			t.Errorf("place %+v", at)
		}
		if c, given := at.Region["startColumn"]; given && (c < 1 || at.Region["endColumn"] <= c) {
			t.Errorf("columns %+v", at)
		}
		for _, f := range r.Fixes {
			fixes++
			if c := f.ArtifactChanges; len(c) != 1 || c[0].ArtifactLocation.URI != ".dockerignore" || len(c[0].Replacements) != 1 || c[0].Replacements[0].DeletedRegion["startLine"] != 1 || c[0].Replacements[0].InsertedContent.Text == "" {
				t.Errorf("fix %+v", f)
			}
		}
	}
	if fixes != 1 {
		t.Errorf("%d fixes, want the .dockerignore", fixes)
	}
}

// TestJSON: what is written can be read, and nothing found is an empty list.
func TestJSON(t *testing.T) {
	var b bytes.Buffer
	list := findings(t)
	if err := JSON(&b, list); err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for i := range list { // what JSON leaves out
		list[i].summary, list[i].secret = "", false
	}
	if want := (report{1, list}); fmt.Sprintf("%+v", got.Findings[0]) != fmt.Sprintf("%+v", want.Findings[0]) || len(got.Findings) != len(want.Findings) || got.Version != 1 {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	b.Reset()
	if err := JSON(&b, nil); err != nil || b.String() != "{\n  \"version\": 1,\n  \"findings\": []\n}\n" {
		t.Errorf("got %s, %v", b.String(), err)
	}
}

// TestStrict: `# check=error=true` makes warnings errors, and leaves what is only worth knowing.
func TestStrict(t *testing.T) {
	src := "# check=error=true\nFROM debian\nRUN cd /x\nCOPY --from=alpine:3 /a /b\n"
	_, list := lintArchive(t, txtar.Parse([]byte("-- Dockerfile --\n"+src)))
	got := map[string]Severity{}
	for _, f := range list {
		got[f.Rule] = f.Severity
	}
	for rule, want := range map[string]Severity{"UnpinnedBase": Error, "RunWithoutEffect": Error, "UndigestedBase": Info} {
		if got[rule] != want {
			t.Errorf("%s is %v, want %v", rule, got[rule], want)
		}
	}
	if _, found := got[buildError]; found {
		t.Error("what BuildKit makes of its own warnings is reported once more")
	}
}

// TestBadDirective: BuildKit refuses the file, and so does the check.
func TestBadDirective(t *testing.T) {
	p, err := plan.Parse("Dockerfile", []byte("# check=nonsense\nFROM scratch\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), p, &plan.Facts{}, ""); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
}

// TestSecretsAreNotShown: no output has a secret in it.
func TestSecretsAreNotShown(t *testing.T) {
	const secret = "ghp_0123456789abcdef0123456789abcdef0123"
	src := "FROM debian\nENV API_TOKEN=" + secret + " OTHER_PASSWORD=hunter22\nRUN curl https://me:hunter22@example.com/x " + secret + " \\\n  && sudo x\n"
	_, list := lintArchive(t, txtar.Parse([]byte("-- Dockerfile --\n"+src)))
	var b bytes.Buffer
	if err := Text(&b, list, []byte(src)); err != nil {
		t.Fatal(err)
	}
	if err := JSON(&b, list); err != nil {
		t.Fatal(err)
	}
	if err := SARIF(&b, list, "", "."); err != nil {
		t.Fatal(err)
	}
	if out := b.String(); strings.Contains(out, secret) || strings.Contains(out, "hunter22") || !strings.Contains(out, "SecretValue") {
		t.Errorf("got\n%s", out)
	}
}

// BenchmarkRun is what a check of an ordinary file takes.
func BenchmarkRun(b *testing.B) {
	a := txtar.Parse([]byte(several))
	for b.Loop() {
		lintArchive(b, a)
	}
}

// FuzzRun: no Dockerfile makes a rule panic, and every finding has a place in the file.
func FuzzRun(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.txtar")
	for _, file := range files {
		if a, err := txtar.ParseFile(file); err == nil && len(a.Files) > 0 {
			f.Add(string(a.Files[0].Data))
		}
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, err := plan.Parse("Dockerfile", []byte(src))
		if err != nil {
			return
		}
		facts := &plan.Facts{Context: &plan.Context{Complete: true, Paths: map[string]plan.Path{".git": {Exists: true, Mode: os.ModeDir}, "id_rsa": {Exists: true}}}}
		list, err := Run(context.Background(), p, facts, "")
		if err != nil {
			return
		}
		lines := strings.Count(src, "\n") + 1
		for _, f := range list {
			if r := f.Range; r.Line < 1 || r.EndLine < r.Line || r.EndLine > lines || r.Column > 0 && r.EndColumn <= r.Column {
				t.Errorf("%+v in %d lines", f, lines)
			}
		}
		if err := Text(&bytes.Buffer{}, list, []byte(src)); err != nil {
			t.Error(err)
		}
	})
}
