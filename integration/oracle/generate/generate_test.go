package generate

import (
	"bytes"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/optbuild/optbuild/integration/oracle/cases"
)

// TestCases makes many cases: a seed stands for one case, which reads back as it was written and which BuildKit's parser takes.
func TestCases(t *testing.T) {
	words := map[string]int{}
	for seed := range uint64(2000) {
		c := Case(seed)
		text := c.Format()
		if !bytes.Equal(text, Case(seed).Format()) {
			t.Fatalf("the seed %d stands for several cases", seed)
		}
		back, err := cases.Parse(text)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		if !bytes.Equal(back.Format(), text) {
			t.Fatalf("seed %d reads back as\n%s\nwritten was\n%s", seed, back.Format(), text)
		}
		res, err := parser.Parse(strings.NewReader(c.Dockerfile()))
		if err == nil {
			_, _, err = instructions.Parse(res.AST, nil)
		}
		if err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, c.Dockerfile())
		}
		if got := strings.Join(instructionsOf(c.Dockerfile()), ""); !strings.HasPrefix(c.Dockerfile(), got) {
			t.Errorf("seed %d: cut and joined it is\n%s", seed, got)
		}
		for _, n := range res.AST.Children {
			words[strings.ToLower(n.Value)]++
		}
	}
	for _, w := range strings.Fields("from arg env label workdir user copy add run cmd entrypoint expose volume stopsignal healthcheck shell onbuild") {
		if words[w] == 0 {
			t.Errorf("no case has the instruction %s", w)
		}
	}
}

func TestShrink(t *testing.T) {
	c, err := cases.Parse([]byte(`x

opt: build-arg A=b
opt: target x
second: build-arg A=c
-- Dockerfile --
# a comment
FROM debian:12
RUN echo a
# why
RUN echo b && \
    bad && echo c
COPY a b
-- a --
-- second/a --
`))
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	got := Shrink(c, 100, func(c *cases.Case) bool {
		asked++
		return strings.Contains(c.Dockerfile(), "bad") && strings.HasPrefix(strings.TrimPrefix(c.Dockerfile(), "# a comment\n"), "FROM")
	})
	want := "x\n\n-- Dockerfile --\nFROM debian:12\nRUN \\\n    bad\n"
	if string(got.Format()) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got.Format(), want)
	}
	if asked > 100 {
		t.Errorf("asked %d times", asked)
	}
	if again := Shrink(c, 0, func(*cases.Case) bool { t.Error("asked"); return true }); again != c {
		t.Error("shrunk without asking")
	}
}
