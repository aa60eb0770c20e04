package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/builder/export"
	"github.com/optbuild/optbuild/builder/export/strip"
	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/explain"
	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// accountOf is the account of a Dockerfile in which merge, if it is given, stands for its two RUNs.
func accountOf(t *testing.T, merge string) *explain.Account {
	t.Helper()
	p, err := plan.Parse("Dockerfile", []byte("FROM a\nRUN one\nRUN two\nRUN one\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := opt.Result{Plan: p}
	if merge != "" {
		q := p.Clone()
		steps := q.Stages[0].Steps
		s, err := q.NewStep(merge, steps[0], steps[1])
		if err != nil {
			t.Fatal(err)
		}
		q.Stages[0].Steps = []*plan.Step{s, steps[2]}
		r = opt.Result{Plan: q, After: []opt.Step{{Pass: "merge-run", Plan: q}}}
	}
	return explain.New(p, &plan.Facts{}, opt.Options{}, r)
}

// TestLearned: what a step took is found for the same step of the same Dockerfile, also where it was a part of another one; not of another
// file, and not for another step of the same text.
func TestLearned(t *testing.T) {
	state := t.TempDir()
	whenever := time.Unix(1e9, 0).UTC()
	merged := accountOf(t, "RUN one && two")
	var m learned
	if !m.add(merged, "/a/Dockerfile", map[int]explain.Measure{5: {State: explain.Ran, Seconds: 7, Bytes: 9}, 4: {State: explain.Cached, Seconds: 1}}, whenever) {
		t.Fatal("nothing changed")
	}
	if err := m.write(state); err != nil {
		t.Fatal(err)
	}
	took := func(path string, a *explain.Account) string {
		m := readLearned(state)
		return fmt.Sprint(m.find(a, path))
	}
	seven := explain.Measure{Seconds: 7, Bytes: 9}
	plain := accountOf(t, "")
	if got, want := took("/a/Dockerfile", merged), fmt.Sprint(map[int]explain.Measure{5: seven}); got != want {
		t.Errorf("merged: got %s, want %s", got, want)
	}
	if got, want := took("/a/Dockerfile", plain), fmt.Sprint(map[int]explain.Measure{2: seven, 3: seven}); got != want {
		t.Errorf("alone: got %s, want %s", got, want)
	}
	if got := took("/b/Dockerfile", plain); got != "map[]" {
		t.Errorf("another file: %s", got)
	}

	m = readLearned(state)
	m.add(plain, "/a/Dockerfile", map[int]explain.Measure{2: {State: explain.Ran, Seconds: 2}}, whenever)
	if got, want := fmt.Sprint(m.find(plain, "/a/Dockerfile")), fmt.Sprint(map[int]explain.Measure{2: {Seconds: 2}}); got != want {
		t.Errorf("run again alone: got %s, want %s", got, want)
	}
}

// TestLearnedImages: a base image is known as the last build saw it.
func TestLearnedImages(t *testing.T) {
	state := t.TempDir()
	seen := func(img plan.Image) (changed bool) {
		m := readLearned(state)
		changed = m.addImages(&explain.Account{Images: map[string]plan.Image{"a": img}}, time.Unix(1e9, 0))
		if err := m.write(state); err != nil {
			t.Fatal(err)
		}
		return changed
	}
	first, second := plan.Image{Env: []string{"A=1"}}, plan.Image{Env: []string{"A=2"}, User: "u"}
	if !seen(first) || seen(first) || !seen(second) {
		t.Error("what changed was not noticed, or what did not was")
	}
	second.Remembered = true
	m := readLearned(state)
	if got, want := fmt.Sprint(m.images()), fmt.Sprint(map[string]plan.Image{"a": second}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestLearnedDamaged: a file that is not one of ours is an empty one, and is replaced by the next build.
func TestLearnedDamaged(t *testing.T) {
	state := t.TempDir()
	for _, text := range []string{"", "{", `{"Version":2,"Steps":[{"Of":["x"]}]}`, `{"Version":1,"Steps":7}`, "\x00\xff"} {
		if err := os.WriteFile(filepath.Join(state, learnedName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if m := readLearned(state); len(m.Steps) > 0 {
			t.Errorf("%q: got %v", text, m)
		}
	}
	var m learned
	for i := range learnedSteps + 10 {
		m.Steps = append(m.Steps, learnedStep{Of: []string{fmt.Sprint(i)}, When: time.Unix(int64(i), 0)})
	}
	if err := m.write(state); err != nil {
		t.Fatal(err)
	}
	if m := readLearned(state); len(m.Steps) != learnedSteps || m.Steps[0].Of[0] != "10" {
		t.Errorf("%d steps from %v on", len(m.Steps), m.Steps[0])
	}
}

// TestStepTimes: what a build's events say of steps.
func TestStepTimes(t *testing.T) {
	start := time.Unix(1e9, 0)
	at := func(s int) *time.Time {
		v := start.Add(time.Duration(s) * time.Second)
		return &v
	}
	d := func(name string) digest.Digest { return digest.FromString(name) }
	times := newStepTimes()
	times.observe(&client.SolveStatus{
		Vertexes: []*client.Vertex{
			{Digest: d("run"), Name: "[1/2] RUN x", Started: at(0)},
			{Digest: d("run"), Name: "[1/2] RUN x", Started: at(0), Completed: at(1)},
			{Digest: d("run"), Name: "[1/2] RUN x", Started: at(5), Completed: at(7)},
			{Digest: d("run-arm"), Started: at(0), Completed: at(10)},
			{Digest: d("cached"), Started: at(0), Completed: at(1), Cached: true},
			{Digest: d("image"), Started: at(0), Completed: at(1)},
			{Digest: d("pulled"), Started: at(0), Completed: at(1)},
			{Digest: d("failed"), Started: at(0), Completed: at(1), Error: "x"},
			{Digest: d("internal"), Started: at(0), Completed: at(1)},
			{Digest: d("copy"), Name: "[2/2] COPY . .", Started: at(7), Completed: at(8)},
		},
		Statuses: []*client.VertexStatus{
			{ID: "resolve a", Vertex: d("image")}, {ID: "resolve b", Vertex: d("pulled")},
			{ID: string(d("layer")), Vertex: d("pulled"), Current: 10}, {ID: string(d("layer")), Vertex: d("pulled"), Current: 40},
		},
	})
	steps := map[string]frontend.Vertex{
		string(d("run")): {Step: 2, Record: "mount / from exec x"}, string(d("run-arm")): {Step: 2}, string(d("cached")): {Step: 3}, string(d("image")): {Step: 4},
		string(d("pulled")): {Step: 5}, string(d("failed")): {Step: 6}, string(d("copy")): {Step: 7}, string(d("never")): {Step: 8},
	}
	got := times.measures(&frontend.Report{Steps: steps}, []*client.UsageInfo{
		{Description: "mount / from exec x", CreatedAt: *at(6), Size: 100},
		{Description: "mount / from exec x", CreatedAt: *at(20), Size: 1000}, // another build's
		{Description: "[2/2] COPY . .", CreatedAt: *at(7), Size: 1}, {Description: "[2/2] COPY . .", CreatedAt: *at(8), Size: 2},
	})
	want := map[int]explain.Measure{
		2: {State: "ran", Seconds: 13, Bytes: 100}, 3: {State: "cached"}, 4: {State: "cached"}, 5: {State: "ran", Seconds: 1, Bytes: 40}, 7: {State: "ran", Seconds: 1},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestParseRemarks(t *testing.T) {
	list := []opt.Remark{{Kind: opt.Passed, Pass: "link", Name: "linked"}, {Kind: opt.Missed, Pass: "link", Name: "user"}, {Kind: opt.Missed, Pass: "merge-run", Name: "mounts"}}
	for flag, want := range map[string]string{
		"": "", "passed": "linked", "missed": "user mounts", "passed,missed": "linked user mounts", "missed:^merge": "mounts", "missed:/user$": "user", "analysis:": "",
	} {
		f, err := parseRemarks(flag)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range list {
			if f.wants(r) {
				got = append(got, r.Name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("--remarks %q: got %q, want %q", flag, got, want)
		}
	}
	for _, flag := range []string{"all", "passed,", "missed:(", ":link"} {
		if _, err := parseRemarks(flag); err == nil || exitCode(err) != exitUsage {
			t.Errorf("--remarks %q: %v", flag, err)
		}
	}
}

// TestBrokenReport: when a pass broke a plan, the page for a report is where the warning says.
func TestBrokenReport(t *testing.T) {
	a := accountOf(t, "")
	a.Broken, a.Error = "merge-run", "stage x is new\nand a stack"
	state := t.TempDir()
	var out strings.Builder
	if err := (told{quiet: true}).tell(&out, a, state); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(state, "logs", "explain.html"))
	if err != nil || !strings.Contains(string(page), "stage x is new\nand a stack") || !strings.Contains(string(page), "pass merge-run broke the plan") {
		t.Errorf("%v: %s", err, page)
	}
	if want := "optbuild: warning: pass merge-run broke the plan (stage x is new); the Dockerfile was built as it is written; please report it with " + state + "/logs/explain.html\n"; out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

// What the last export did to layers is known by file and target; one that did nothing is forgotten, and one that was no image changes nothing.
func TestLearnedLayers(t *testing.T) {
	response := func(layers ...export.Layer) map[string]string {
		text, err := json.Marshal(export.Report{Images: []export.Image{{Layers: layers}}})
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{export.ReportKey: base64.StdEncoding.EncodeToString(text)}
	}
	var m learned
	merged, want := export.Layer{Steps: []string{"RUN a", "RUN b"}}, "2 became 1"
	if !m.addLayers("d/Dockerfile", "", response(merged), time.Now()) || m.addLayers("d/Dockerfile", "", response(merged), time.Now()) {
		t.Error("the first says nothing new, or the second does")
	}
	state := t.TempDir()
	if err := m.write(state); err != nil {
		t.Fatal(err)
	}
	m = readLearned(state)
	if got := m.layers("./d/Dockerfile", ""); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := m.layers("d/Dockerfile", "other") + m.layers("Dockerfile", "") + m.layers("", ""); got != "" {
		t.Errorf("another file or target has %q", got)
	}
	if m.addLayers("d/Dockerfile", "", nil, time.Now()) || m.layers("d/Dockerfile", "") != want {
		t.Error("a build without an image changes it")
	}
	if !m.addLayers("d/Dockerfile", "", response(), time.Now()) || m.layers("d/Dockerfile", "") != "" {
		t.Error("an image with its own layers is not noted")
	}
}

// The frontend names rules that there are, and that are on by default.
func TestLeavings(t *testing.T) {
	on, err := strip.Parse("default")
	if err != nil {
		t.Fatal(err)
	}
	for program, rules := range explain.Leavings {
		for _, r := range rules {
			if !slices.Contains(on, r) {
				t.Errorf("%s: %s is not left out", program, r)
			}
		}
	}
}
