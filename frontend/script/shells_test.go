package script

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestLiteralInShells: what is literal has the same value in the shells of this machine. The words are random, from pieces that mean
// something to a shell, with a fixed seed.
func TestLiteralInShells(t *testing.T) {
	pieces := []string{
		"a", "b=", "\\", "'", "\"", "$", "$A", "${A}", "{", "}", ",", "..", "*", "?", "[", "]", "~", "/", ":", "!", "#", "-", "=", " ", "\\\n", "`", "(", ")", "é", "\\\\", "\\\"", "\\$", "1", "^", "%", "@",
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, shell := range [][]string{{"/bin/sh", "-c"}, {"/bin/bash", "-c"}} {
		if _, err := os.Stat(shell[0]); err != nil {
			t.Logf("%s is not tested: %v", shell[0], err)
			continue
		}
		var texts, want []string
		for range 10_000 {
			var b strings.Builder
			for range 1 + r.IntN(6) {
				b.WriteString(pieces[r.IntN(len(pieces))])
			}
			s, err := Parse("printf '%s\\0' "+b.String(), shell)
			if err != nil || len(s.Commands()) != 1 || len(s.comments) > 0 || !s.Commands()[0].Literal() || len(s.Commands()[0].Redirects) > 0 || !s.Chain() {
				continue
			}
			texts = append(texts, b.String())
			var values []string
			for _, w := range s.Commands()[0].Args()[1:] {
				values = append(values, w.Value+"\x00")
			}
			if len(values) == 0 {
				values = []string{"\x00"}
			}
			want = append(want, strings.Join(values, ""))
		}
		if len(texts) < 500 {
			t.Errorf("only %d literal texts", len(texts))
		}
		compareValues(t, shell, texts, want)
	}
}

func compareValues(t *testing.T, shell []string, texts, want []string) {
	t.Helper()
	var script strings.Builder
	for _, text := range texts {
		script.WriteString("printf '%s\\0' " + text + "\nprintf '\\1'\n")
	}
	cmd := exec.Command(shell[0])
	cmd.Dir = t.TempDir()
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(shell[0], err)
	}
	got := strings.Split(string(out), "\x01")
	for i, text := range texts {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("%s: %q is %q, want %q", shell[0], text, got[min(i, len(got)-1)], want[i])
		}
	}
}

// TestChecksInShells: a script that succeeds has run, with success, each command that is neither conditional nor unchecked. The
// scripts are random, with a fixed seed, and run by the shells of this machine.
func TestChecksInShells(t *testing.T) {
	const define = `ok() { echo "ok $1" >> log; }; no() { echo "no $1" >> log; return 1; }; `
	r := rand.New(rand.NewPCG(3, 4))
	for _, shell := range [][]string{{"/bin/sh", "-c"}, {"/bin/sh", "-ec"}, {"/bin/bash", "-eo", "pipefail", "-c"}} {
		if _, err := os.Stat(shell[0]); err != nil {
			t.Logf("%s is not tested: %v", shell[0], err)
			continue
		}
		checked := 0
		for range 60 {
			n := 0
			text := randomList(r, 3, &n)
			s, err := Parse(text, shell)
			if err != nil { // ! behind a pipe
				continue
			}
			dir := t.TempDir()
			cmd := exec.Command(shell[0], append(shell[1:len(shell):len(shell)], define+text)...)
			cmd.Dir = dir
			if cmd.Run() != nil {
				continue
			}
			log, _ := os.ReadFile(dir + "/log") // none if nothing ran
			for _, c := range s.Commands() {
				if name := c.Name(); name != "ok" && name != "no" || c.Conditional || c.Unchecked {
					continue
				}
				checked++
				if line := "ok " + c.Args()[0].Value + "\n"; !strings.Contains("\n"+string(log), "\n"+line) {
					t.Errorf("%s %q succeeds without success of %s, which is said to be needed; it ran:\n%s", shell, text, s.Text[c.Start:c.End], log)
				}
			}
		}
		if checked < 10 {
			t.Errorf("%s: only %d commands were to be checked", shell, checked)
		}
	}
}

// randomList is a list of commands ok N and no N.
func randomList(r *rand.Rand, depth int, n *int) string {
	var b strings.Builder
	if r.IntN(4) == 0 {
		b.WriteString("set -e; ")
	}
	for i := range 1 + r.IntN(3) {
		if i > 0 {
			b.WriteString([]string{" && ", " && ", " || ", "; ", "; ", "\n", " | "}[r.IntN(7)])
		}
		inner := func() string { return randomList(r, depth-1, n) }
		kind := r.IntN(16)
		if depth == 0 {
			kind = r.IntN(9)
		}
		switch kind {
		case 9:
			b.WriteString("( " + inner() + " )")
		case 10:
			b.WriteString("{ " + inner() + "; }")
		case 11:
			b.WriteString("if " + inner() + "; then " + inner() + "; else " + inner() + "; fi")
		case 12:
			b.WriteString("! " + "{ " + inner() + "; }")
		case 13:
			b.WriteString("x=$( " + inner() + ")")
		case 14:
			b.WriteString("echo $( " + inner() + ") > /dev/null")
		case 15:
			b.WriteString([]string{"set +e", "exit 0", "( exit 1 )", "eval ok x", "f() { " + inner() + "; }; f"}[r.IntN(5)])
		default:
			*n++
			b.WriteString([]string{"ok ", "ok ", "no "}[r.IntN(3)] + strings.Repeat("i", *n))
		}
	}
	return b.String()
}
