package opt

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
)

// TestMergedText runs pairs of RUNs by the shells of this machine, as two processes and as the one that joinRuns makes: the files,
// and whether it failed, must be the same. The first ones are what the pass takes as the earlier RUN, the second ones are anything.
func TestMergedText(t *testing.T) {
	first := []string{
		"mkdir a", "mkdir a && touch a/x", "set -e; mkdir a; rm none; touch b", "rm none; mkdir a", "rm none || true", "echo one | tee a | tee b", "rm none && mkdir a",
		"set -eux; \\\n  # a comment\n  mkdir a; \\\n  touch a/b;", "false | true", "grep -q x none || echo x >> a",
	}
	second := []string{
		"echo two >> a", "set -e; test -e a; touch two", "set -eux; \\\n  touch one; \\\n  false; \\\n  touch two", "touch one; false; touch two", "test -d a || touch two",
		"test -d a && touch one; touch two", "if test -e a; then touch one; else touch two; fi", "touch one & wait", "exit 3", "trap 'touch two' EXIT; touch one", "false | touch one && touch two",
		"{ touch one; false; } && touch two; # end", "set -e && touch one; false; touch two", "f() { touch one; return 1; }; f && touch two",
	}
	for _, shell := range [][]string{{"/bin/sh", "-c"}, {"/bin/bash", "-eo", "pipefail", "-c"}} {
		if _, err := os.Stat(shell[0]); err != nil {
			t.Logf("%s is not tested: %v", shell[0], err)
			continue
		}
		for i, a := range first {
			for j, b := range second {
				if (i+j)%5 == 0 || shell[0] == "/bin/sh" && (i+j)%5 == 2 { // each with several others is enough
					mergedText(t, shell, a, b)
				}
			}
		}
	}
}

func mergedText(t *testing.T, shell []string, a, b string) {
	t.Helper()
	src := fmt.Sprintf("FROM scratch\nSHELL [\"%s\"]\nRUN %s\nRUN %s\n", strings.Join(shell, `", "`), a, b)
	p, err := plan.Parse("Dockerfile", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	res := run(p, &plan.Facts{}, Options{}, []Pass{{Name: "merge-run", Keeps: Files, Run: mergeRun}})
	if res.Err != nil {
		t.Fatal(src, res.Err)
	}
	if len(res.After) == 0 { // the one pair here that is refused: a comment has no place in parentheses
		if !strings.Contains(b, "#") || strings.Contains(b, "\\\n") {
			t.Errorf("%s is not merged: %v", src, res.Remarks)
		}
		return
	}
	wantStatus, wantFiles := shellRuns(t, shell, p)
	gotStatus, gotFiles := shellRuns(t, shell, res.Plan)
	if gotStatus != wantStatus || wantStatus && gotFiles != wantFiles { // what a failed step leaves is thrown away
		text, _ := res.Plan.Text()
		t.Errorf("%s: success %v, files:\n%s, want success %v, files:\n%s", text, gotStatus, gotFiles, wantStatus, wantFiles)
	}
}

// shellRuns runs the RUNs of a plan, each in a shell of its own, in an empty directory.
func shellRuns(t *testing.T, shell []string, p *plan.Plan) (success bool, files string) {
	t.Helper()
	dir := t.TempDir()
	for _, s := range p.Stages[0].Steps {
		if r, ok := s.Cmd.(*instructions.RunCommand); ok {
			cmd := exec.Command(shell[0], append(shell[1:len(shell):len(shell)], r.CmdLine...)...)
			cmd.Dir = dir
			if cmd.Run() != nil {
				return false, ""
			}
		}
	}
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, strings.TrimPrefix(path, dir), d.IsDir())
		if !d.IsDir() {
			data, err := os.ReadFile(path)
			b.Write(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return true, b.String()
}
