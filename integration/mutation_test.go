package integration

import (
	"slices"
	"strings"
	"testing"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/integration/oracle/cases"
)

// mutation is a wrong pass, and a Dockerfile that shows that it is.
type mutation struct {
	name    string
	keeps   opt.Keeps // what it claims
	residue []string  // what it claims
	run     func(p *plan.Plan, st *plan.Stage)
	text    string // of the case
	want    string // what is found: a part of the first difference; "" for a pass that is right
}

var mutations = []mutation{
	{name: "right", keeps: opt.Files, run: replace("RUN echo a > /f", "RUN printf 'a\\n' > /f"),
		text: "FROM busybox:1\nRUN echo a > /f\n"},
	{name: "drop-chmod", keeps: opt.Files, run: replace("chmod 700 /f", "true"),
		text: "FROM busybox:1\nRUN echo a > /f\nRUN chmod 700 /f\n", want: "/f: mode"},
	{name: "drop-copy-owner", keeps: opt.Files, run: replace("--chown=3:4 ", ""),
		text: "FROM busybox:1\nCOPY --chown=3:4 a /a\n", want: "/a: "},
	{name: "drop-run", keeps: opt.Files, run: replace("RUN mkdir /empty", "RUN true"),
		text: "FROM busybox:1\nRUN mkdir /empty\n", want: "/empty"},
	{name: "change-content", keeps: opt.Files, run: replace("echo a", "echo b"),
		text: "FROM busybox:1\nRUN echo a > /f\n", want: "/f: content"},
	{name: "leave-something", keeps: opt.Files, run: replace("rm /f", "true"),
		text: "FROM busybox:1\nRUN echo a > /f\nRUN rm /f\n", want: "/f"},
	{name: "sink-read-arg", keeps: opt.Files, run: swap("ARG V=1", "RUN echo"),
		text: "FROM busybox:1\nARG V=1\nRUN echo \"v$V\" > /v\n", want: "/v: content"},
	{name: "sink-user", keeps: opt.Files, run: swap("USER 7", "RUN echo"),
		text: "FROM busybox:1\nUSER 7\nRUN echo a > /tmp/f\n", want: "/tmp/f: "},
	{name: "lift-copy", keeps: opt.Files, run: swap("RUN rm", "COPY a"),
		text: "FROM busybox:1\nRUN rm -rf /app && mkdir /app\nCOPY a /app/a\n", want: "/app/a"},
	{name: "copy-hard-link", keeps: opt.Files, run: replace("ln /f /g", "cp -p /f /g"),
		text: "FROM busybox:1\nRUN echo a > /f && ln /f /g\n", want: "/f: "},
	{name: "follow-link", keeps: opt.Files, run: replace("ln -s f /g", "cp -p /f /g"),
		text: "FROM busybox:1\nRUN echo a > /f && ln -s f /g\n", want: "want a symbolic link"},
	{name: "hide-state", keeps: opt.Files, run: replace("RUN mkdir", "RUN --mount=type=cache,target=/var/state mkdir"),
		text: "FROM busybox:1\nRUN mkdir -p /var/state && echo a > /var/state/f\n", want: "/var/state/f"},
	{name: "understate-residue", keeps: opt.Files, residue: []string{"/var/state/cache"}, run: replace("RUN mkdir", "RUN --mount=type=cache,target=/var/state mkdir"),
		text: "FROM busybox:1\nRUN mkdir -p /var/state/cache && echo a > /var/state/f\n", want: "/var/state/f"},
	{name: "mount-stale-cache", keeps: opt.Files, residue: []string{"/made"}, run: replace("RUN mkdir", "RUN --mount=type=cache,target=/made mkdir"),
		text: "FROM busybox:1\nCOPY a /a\nRUN mkdir -p /made && { [ -e /made/b ] || cp /a /made/b; } && cp /made/b /b\n", want: "second build: "},
	{name: "hide-failure", keeps: opt.Files, run: replace("RUN false", "RUN true"),
		text: "FROM busybox:1\nRUN false\n", want: "ends with the error"},
	{name: "claim-image", keeps: opt.Image, run: replace("RUN echo a > /f && rm /f", "RUN echo a > /g && rm /g && true"),
		text: "FROM busybox:1\nRUN echo a > /f && rm /f\n", want: "config"},
	{name: "lose-label", keeps: opt.Files, run: replace("LABEL a=1", "LABEL a=2"),
		text: "FROM busybox:1\nLABEL a=1\n", want: "a pass broke it"},
	{name: "lose-env-value", keeps: opt.Files, run: replace("RUN echo", "RUN unset GREETING; echo"),
		text: "FROM test/env\nRUN echo \"$GREETING\" > /g\n", want: "/g: content"},
}

// replace puts another text into the steps that have a text.
func replace(old, by string) func(*plan.Plan, *plan.Stage) {
	return func(p *plan.Plan, st *plan.Stage) {
		for i, s := range st.Steps {
			if strings.Contains(s.Text, old) {
				made, err := p.NewStep(strings.ReplaceAll(s.Text, old, by), s)
				if err != nil {
					panic(err)
				}
				st.Steps[i] = made
			}
		}
	}
}

// swap lets a step and the one below it, which begin so, change places.
func swap(first, second string) func(*plan.Plan, *plan.Stage) {
	return func(_ *plan.Plan, st *plan.Stage) {
		for i := 1; i < len(st.Steps); i++ {
			if strings.HasPrefix(st.Steps[i-1].Text, first) && strings.HasPrefix(st.Steps[i].Text, second) {
				st.Steps[i-1], st.Steps[i] = st.Steps[i], st.Steps[i-1]
				return
			}
		}
	}
}

// TestMutations is the test of TestEquivalence: passes that are wrong are found out, each in what it does wrong, whatever it claims.
func TestMutations(t *testing.T) {
	r := newRig(t)
	table := opt.Passes
	t.Cleanup(func() { opt.Passes = table })
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			opt.Passes = []opt.Pass{{Name: m.name, Keeps: m.keeps, Run: func(w *opt.Work) {
				st := w.Plan.Stages[0]
				w.Do(opt.Change{Steps: st.Steps[:1], Name: "made", Message: "this is wrong", Residue: m.residue, Apply: func() { m.run(w.Plan, st) }})
			}}}
			c, err := cases.Parse([]byte("-- Dockerfile --\n" + m.text + "-- a --\na\n-- second/a --\nb\n"))
			if err != nil {
				t.Fatal(err)
			}
			c.Name = m.name
			var n tally
			v, err := check(t.Context(), r, c, &n)
			if err != nil {
				t.Fatal(err)
			}
			if m.want == "" && len(v.differences) > 0 {
				t.Errorf("differs, and is right: %s", v.differences)
			}
			if m.want != "" && !slices.ContainsFunc(v.differences, func(d string) bool { return strings.Contains(d, m.want) }) {
				t.Errorf("not found: want %q in %q", m.want, v.differences)
			}
		})
	}
}
