package plan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

var sources = []string{
	"FROM scratch\n",
	"FROM scratch",
	"\ufeff# syntax=docker/dockerfile:1\r\nFROM scratch\r\nRUN a \\\r\n  b\r\n",
	"# escape=`\n\nARG A=1\n# about the stage\nFROM a`\n  AS b\nRUN x `\n # inside\n\n y\n# end\n",
	"FROM a\nRUN <<EOF\n# optbuild: keep\nx\nEOF\nCOPY <<A <<-B /x/\n1\nA\n\t2\n\tB\nENV A=1\n\n\n# tail\n  ",
	"# check=skip=all;error=true\nFROM a\n# check=skip=JSONArgsRecommended\nCMD x\n",
	"from a as B\nonbuild run <<EOF\nx\nEOF\nrun --mount=type=cache,target=/x [\"a\", \"b\"]\n",
}

// TestRoundTrip: a plan that nobody changed prints as its source.
func TestRoundTrip(t *testing.T) {
	for _, src := range sources {
		roundTrip(t, src)
	}
	files, _ := filepath.Glob("../../integration/testdata/*/Dockerfile*")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, string(b))
	}
}

func roundTrip(t *testing.T, src string) {
	t.Helper()
	p, err := Parse("Dockerfile", []byte(src))
	if err != nil {
		t.Fatalf("%q: %v", src, err)
	}
	text, lines := p.Text()
	if text != src {
		t.Errorf("got %q\nwant %q", text, src)
	}
	for i, l := range lines {
		if i > 0 && l.First > i && i <= strings.Count(src, "\n") && !strings.HasPrefix(strings.TrimSpace(splitLines(src)[i-1]), "#") && strings.TrimSpace(splitLines(src)[i-1]) != "" {
			t.Errorf("%q: line %d maps to %v", src, i, l)
		}
	}
	if err := Check(p, p, &Facts{}); err != nil {
		t.Errorf("%q: %v", src, err)
	}
}

// TestNoStages: a file of arguments only is an error here, and not a panic of those who look for the target.
func TestNoStages(t *testing.T) {
	if _, err := Parse("Dockerfile", []byte("ARG A=1\n")); err == nil {
		t.Error("a plan without stages")
	}
}

// TestErrors: what BuildKit refuses is refused with its message.
func TestErrors(t *testing.T) {
	for src, want := range map[string]string{
		"RUN x\nFROM a\n":        "no build stage in current context",
		"ARG A\n":                "dockerfile contains no stages to build",
		"":                       "file with no instructions",
		"FROM a\nFRUM b\n":       "unknown instruction: FRUM",
		"FROM a\nRUN <<E\nx\n":   "unterminated heredoc",
		"FROM a\nCOPY a\n":       "COPY requires at least two arguments",
		"FROM a b c\nRUN x\n":    "FROM requires either one or three arguments",
		"ARG A\nCOPY a b\nARG\n": "no build stage in current context",
	} {
		_, err := Parse("Dockerfile", []byte(src))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", src, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, src := range sources {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, err := Parse("Dockerfile", []byte(src))
		if err != nil {
			return
		}
		if text, _ := p.Text(); text != src {
			t.Errorf("got %q\nwant %q", text, src)
		}
	})
}

func TestPragmas(t *testing.T) {
	p, err := Parse("Dockerfile", []byte(`# a comment
FROM a
# optbuild: off=link, split-copy
COPY a b
RUN x \
  # OptBuild: keep
  y
RUN z
# optbuild: keep
FROM b
RUN q
`))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, st := range p.Stages {
		for _, s := range st.Steps {
			for _, pass := range []string{"link", "split-copy", "merge-run"} {
				if s.Kept(pass) {
					got[s.Text[:1]+s.Text[len(s.Text)-1:]+" "+pass] = true
				}
			}
		}
	}
	for _, want := range []string{"Cb link", "Cb split-copy", "Ry link", "Ry merge-run", "Rq link"} {
		if !got[want] {
			t.Errorf("%s is not kept", want)
		}
	}
	for _, not := range []string{"Cb merge-run", "Rz link"} {
		if got[not] {
			t.Errorf("%s is kept", not)
		}
	}
}

func TestFlow(t *testing.T) {
	p, err := Parse("Dockerfile", []byte(`ARG V=1
ARG BASE=node:$V
FROM $BASE AS base
ENV A=$V B=b
ARG V
ENV C=${A:-none} D=$UNSET
USER $B
WORKDIR /x
WORKDIR y
SHELL ["/bin/bash", "-c"]
FROM base
RUN x
`))
	if err != nil {
		t.Fatal(err)
	}
	f := &Facts{BuildArgs: map[string]string{"V": "2"}, Images: map[string]Image{"node:2": {Env: []string{"PATH=/bin"}, User: "node"}}, Build: ocispecs.Platform{OS: "linux", Architecture: "amd64"}}
	states := p.Flow(p.Stages[1], f)
	s := states[0]
	if s.User != "b" || s.Dir != "/x/y" || s.Shell[0] != "/bin/bash" || !s.Known {
		t.Errorf("got %+v", s)
	}
	for name, want := range map[string]string{"PATH": "/bin", "A": "", "B": "b", "V": "2", "C": "none", "D": ""} {
		if v, _, known := s.Lookup(name); v.Value != want || !known {
			t.Errorf("%s = %q (%v), want %q", name, v.Value, known, want)
		}
	}
	var config []string
	for _, v := range s.Config {
		config = append(config, v.Name)
	}
	if got := strings.Join(config, " "); got != "PATH A B C D" {
		t.Errorf("config has %s", got)
	}
	f.Images = nil
	if s := p.Flow(p.Stages[1], f)[0]; s.Known {
		t.Error("an unknown base is known")
	} else if _, _, known := s.Lookup("D"); known {
		t.Error("a value that the base may set is known")
	}
}

// TestCheck: what a pass must not do to a plan is noticed.
func TestCheck(t *testing.T) {
	const src = "FROM a AS one\nENV A=1\nENV B=2\nLABEL x=$A\nRUN r\nFROM one AS two\nCOPY --from=0 /x /y\nCMD x\n"
	f := &Facts{}
	for name, damage := range map[string]func(p *Plan){
		"a stage that is needed is gone": func(p *Plan) { p.Stages = p.Stages[1:] },
		"the target is gone":             func(p *Plan) { p.Stages = p.Stages[:1] },
		"ENV is gone":                    func(p *Plan) { p.Stages[0].Steps = p.Stages[0].Steps[1:] },
		"ENVs change places": func(p *Plan) {
			s := p.Stages[0].Steps
			s[0], s[1] = s[1], s[0]
		},
		"CMD is gone": func(p *Plan) { p.Stages[1].Steps = p.Stages[1].Steps[:1] },
		"text and command differ": func(p *Plan) {
			s := *p.Stages[0].Steps[3]
			s.Text = "RUN r\nRUN q"
			p.Stages[0].Steps[3] = &s
		},
		"LABEL before what it reads": func(p *Plan) {
			s := p.Stages[0].Steps
			s[0], s[1], s[2] = s[2], s[0], s[1]
		},
	} {
		p, err := Parse("Dockerfile", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(p, p.Clone(), f); err != nil {
			t.Fatal(err)
		}
		q := p.Clone()
		damage(q)
		if Check(p, q, f) == nil {
			t.Errorf("%s, and nobody notices", name)
		}
	}
}
