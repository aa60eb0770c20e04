package script

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", os.Getenv("UPDATE") != "", "write what comes out into the case files")

// TestCases runs the files in testdata: pairs of a text (its file's name is the shell and what the case is about) and what is
// known of it.
func TestCases(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range cases {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out []txtar.File
		for i := 0; i < len(a.Files); i++ {
			in := a.Files[i]
			if strings.HasPrefix(in.Name, "=> ") {
				t.Fatalf("%s: %s without a text", file, in.Name)
			}
			want := ""
			if i+1 < len(a.Files) && strings.HasPrefix(a.Files[i+1].Name, "=> ") {
				i++
				want = string(a.Files[i].Data)
			}
			got := describe(in.Name, strings.TrimSuffix(string(in.Data), "\n"))
			if got != want && !*update {
				t.Errorf("%s: %s:\n%sgot:\n%s\nwant:\n%s", file, in.Name, in.Data, got, want)
			}
			out = append(out, in, txtar.File{Name: "=> " + in.Name, Data: []byte(got)})
		}
		if *update {
			if err := os.WriteFile(file, txtar.Format(&txtar.Archive{Comment: a.Comment, Files: out}), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// describe prints all that a script knows.
func describe(name, text string) string {
	shells := map[string][]string{
		"sh": nil, "bash": {"/bin/bash", "-c"}, "bash-e": {"/bin/bash", "-eo", "pipefail", "-c"}, "sh-e": {"/bin/sh", "-ec"},
	}
	shell, _, _ := strings.Cut(name, " ")
	var s *Script
	if shell == "exec" {
		s = Exec(strings.Split(text, "\n"))
	} else {
		words, ok := shells[shell]
		if !ok {
			return "no such shell: " + shell + "\n"
		}
		var err error
		if s, err = Parse(text, words); err != nil {
			return fmt.Sprintf("error: %v\n", err)
		}
	}
	var b strings.Builder
	for _, c := range s.Commands() {
		fmt.Fprintf(&b, "%q", c.Name())
		for _, w := range c.Args() {
			b.WriteString(" " + show(w))
		}
		for _, a := range c.Assigns {
			fmt.Fprintf(&b, " %s=%s", a.Name, show(a.Value))
		}
		for _, r := range c.Redirects {
			fmt.Fprintf(&b, " %s%s%s", r.FD, r.Op, show(r.Target))
			if r.Heredoc.Raw != "" {
				fmt.Fprintf(&b, "(%s)", show(r.Heredoc))
			}
		}
		for mark, on := range marks(c) {
			if on {
				b.WriteString(" " + []string{"conditional", "unchecked", "background", "piped", "subshell", "function"}[mark])
			}
		}
		if len(c.Wrappers) > 0 {
			fmt.Fprintf(&b, " through %s", strings.Join(c.Wrappers, ","))
		}
		fmt.Fprintf(&b, " @%d-%d\n", c.Start, c.End)
	}
	if straight, ok := s.Straight(); ok {
		fmt.Fprintf(&b, "straight: %d\n", len(straight))
	}
	if s.Chain() {
		b.WriteString("chain\n")
	}
	if !s.Simple() {
		b.WriteString("not simple\n")
	}
	writeNames(&b, "reads", s.Reads)
	writeNames(&b, "sets", s.Sets)
	for _, h := range s.Hazards() {
		fmt.Fprintf(&b, "hazard: %s target=%q nested=%t %q\n", h.Kind, h.Target, h.Nested, h.Text)
	}
	for _, c := range s.Comments() {
		fmt.Fprintf(&b, "comment: %q\n", s.Text[c.Start:c.End])
	}
	return b.String()
}

func marks(c Command) []bool {
	return []bool{c.Conditional, c.Unchecked, c.Background, c.Piped, c.Subshell, c.Function}
}

func writeNames(b *strings.Builder, what string, f func() ([]string, bool)) {
	list, all := f()
	if all {
		list = append(list, "(all)")
	}
	if len(list) > 0 {
		fmt.Fprintf(b, "%s: %s\n", what, strings.Join(list, " "))
	}
}

func show(w Word) string {
	if w.Literal {
		return fmt.Sprintf("%q", w.Value)
	}
	return fmt.Sprintf("<%s %v>", w.Raw, w.Vars)
}

func TestShell(t *testing.T) {
	for _, c := range []struct {
		shell string
		ok    bool
	}{
		{"", true}, {"/bin/sh -c", true}, {"sh -c", true}, {"/bin/ash -eo pipefail -c", true}, {"/bin/bash -o pipefail -c", true},
		{"/usr/bin/bash -euxo pipefail -c", true}, {"/usr/bin/dash -ec", true}, {"bash --noprofile --norc -c", true}, {"sh -c -e", true},
		{"bash -o errexit -o nounset -c", true},
		{"/bin/bash -lc", false}, {"bash --login -c", false}, {"bash -ic", false}, {"bash", false}, {"bash -e", false}, {"sh -o", false},
		{"sh -nc", false}, {"sh +e -c", false}, {"bash -O extglob -c", false}, {"bash -o posix -c", false}, {"/opt/sh -c", false},
		{"powershell -Command", false}, {"cmd /S /C", false}, {"python -c", false}, {"/bin/zsh -c", false}, {"/busybox/sh -c", false},
		{"env bash -c", false}, {"sh -c --", false},
	} {
		_, err := Parse("true", strings.Fields(c.shell))
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrShell) {
			t.Errorf("%s: %v", c.shell, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, text := range []string{"a\r\nb", "a \\\r\n b", "a\x00b", "-x", "+x a", "a $\\\nB", "a \\\\\\\nb", strings.Repeat("a ", 1<<16)} {
		if _, err := Parse(text, nil); !errors.Is(err, ErrText) {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := Parse("true\nif x", nil)
	var e *SyntaxError
	if !errors.As(err, &e) || e.Line != 2 || e.Offset != 5 {
		t.Errorf("%v %+v", err, e)
	}
	if _, err := Parse("echo \xff", nil); err == nil {
		t.Error("text that is not UTF-8 was read")
	}
}

func TestExpand(t *testing.T) {
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"A": "a", "SPACE": "a b", "EMPTY": "", "STAR": "*", "DIR": "/d"}[name]
		return v, ok
	}
	for word, want := range map[string]string{
		`$A`: "a", `"$A"`: "a", `x${A}y`: "xay", `"$SPACE"`: "a b", `"$EMPTY"`: "", `"$STAR"`: "*", `'$A'`: "$A", `\$A`: "$A",
		`"\$A $A"`: "$A a", `${A:-b}`: "a", `${EMPTY:-b}`: "b", `"${EMPTY:-$A}"`: "a", `x${A:+y}`: "xy", `$DIR/x`: "/d/x",
		`$SPACE`: "-", `$EMPTY`: "-", `$STAR`: "-", `$NONE`: "-", `"$NONE"`: "-", `"${NONE:-x}"`: "-", `$A*`: "-", `~/$A`: "-", `$(A)`: "-",
		`${A#x}`: "-", `${#A}`: "-", `$1`: "-", `$?`: "-", `{$A,b}`: "-", `"${EMPTY-b}"`: "-", `$((A))`: "-",
	} {
		s, err := Parse("echo "+word, nil)
		if err != nil {
			t.Fatal(word, err)
		}
		got, ok := s.Commands()[0].Args()[0].Expand(env)
		if !ok {
			got = "-"
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
	s, err := Parse("A=c; echo $A", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := s.Commands()[1].Args()[0].Expand(s.Lookup(env)); ok {
		t.Errorf("a variable of the script's own has the value %q", got)
	}
}

func TestFlags(t *testing.T) {
	s, err := Parse(`apt-get -qqy -o Dpkg=x install --no-install-recommends --dir=$D -- -a b`, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := s.Commands()[0]
	for flag, want := range map[string]bool{
		"-y": true, "-q": true, "--no-install-recommends": true, "-o": true, "-a": false, "--dir": true, "--di": false, "-n": false, "--yes": false,
	} {
		if c.HasFlag(flag) != want {
			t.Errorf("%s: %t", flag, !want)
		}
	}
	if v, ok := c.Flag("-o", "--option"); !ok || v.Value != "Dpkg=x" {
		t.Error("-o", v, ok)
	}
	v, ok := c.Flag("--dir")
	if got, known := v.Expand(func(string) (string, bool) { return "/x", true }); !ok || !known || got != "/x" {
		t.Error("--dir", v, ok, got, known)
	}
	if _, ok := c.Flag("--none"); ok {
		t.Error("--none is there")
	}
	var operands []string
	for _, w := range c.Operands("-o") {
		operands = append(operands, w.Raw)
	}
	if got := strings.Join(operands, " "); got != "install -a b" {
		t.Error("operands:", got)
	}
	if !c.Is("apt-get") || c.Is("apt") {
		t.Error("Is")
	}
	s, err = Parse(`go build -trimpath -ldflags=-s ./...`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Commands()[0]; c.HasFlag("-t") || !c.HasFlag("-trimpath") || !c.HasFlag("-ldflags") || !c.Is("go", "build") {
		t.Error("go's flags have one dash")
	}
}
