package opt

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/optbuild/optbuild/frontend/plan"
)

// everyCase calls f with each case of testdata.
func everyCase(t testing.TB, f func(name string, p *plan.Plan, facts *plan.Facts)) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c := readCase(t, a)
		p, err := plan.Parse("Dockerfile", []byte(c.dockerfile))
		if err != nil {
			t.Fatal(err)
		}
		f(file, p, c.facts(p))
	}
}

func outcome(p *plan.Plan, f *plan.Facts, o Options) string { return printed(Run(p, f, o)) }

func printed(res Result) string {
	text, lines := res.Plan.Text()
	return fmt.Sprint(text, lines, res.Remarks, res.Err)
}

// TestAllPasses: no pass is broken by what another made, whatever the case; the remarks and the text are the same each time, whatever the order of maps; and a
// Dockerfile that was fixed is not fixed again.
func TestAllPasses(t *testing.T) {
	everyCase(t, func(name string, p *plan.Plan, f *plan.Facts) {
		for _, o := range []Options{{Level: Safe}, {Level: All}, {Level: All, Fix: true}} {
			res := Run(p, f, o)
			if res.Err != nil {
				t.Errorf("%s: %+v: %v", name, o, res.Err)
				continue
			}
			if got, want := outcome(p, f, o), printed(res); got != want {
				t.Errorf("%s: %+v: one run says\n%s\nanother\n%s", name, o, want, got)
			}
			if !o.Fix {
				continue
			}
			text, _ := res.Plan.Text()
			q, err := plan.Parse("Dockerfile", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			again := Run(q, f, o)
			if twice, _ := again.Plan.Text(); twice != text {
				t.Errorf("%s: fixed once:\n%s\nfixed twice:\n%s\n%v", name, text, twice, again.Remarks)
			}
		}
	})
}

// TestRewrites: a limit of n makes the first n rewrites, and no other.
func TestRewrites(t *testing.T) {
	everyCase(t, func(name string, p *plan.Plan, f *plan.Facts) {
		all := passed(Run(p, f, Options{Level: All}))
		for n := range len(all) + 1 {
			o := Options{Level: All, Rewrites: n}
			if n == 0 {
				o.Rewrites = -1
			}
			if got := len(passed(Run(p, f, o))); got > n {
				t.Errorf("%s: %d rewrites at a limit of %d", name, got, n)
			}
		}
	})
}

func passed(res Result) (list []string) {
	for _, r := range res.Remarks {
		if r.Kind == Passed {
			list = append(list, r.Pass+"/"+r.Name)
		}
	}
	return list
}

// big is a Dockerfile of about n lines, of the usual kind.
func big(n int) string {
	var b strings.Builder
	b.WriteString("# syntax=docker/dockerfile:1\nARG VERSION=1\n")
	for i := 0; b.Len() == 0 || strings.Count(b.String(), "\n") < n; i++ {
		fmt.Fprintf(&b, `
FROM node:20 AS stage%[1]d
ARG GIT_SHA
ENV NODE_ENV=production REV=$GIT_SHA
WORKDIR /app
COPY . .
RUN apt-get update
RUN apt-get install -y --no-install-recommends curl ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN npm ci
RUN npm run build
RUN mkdir -p /x && \
    echo "a b c" > /x/y && \
    if [ -f /etc/passwd ]; then chmod 644 /x/y; fi
COPY run.sh /run.sh
RUN chmod 755 /run.sh
LABEL rev=$GIT_SHA
USER node
EXPOSE 8080
CMD ["node", "server.js"]
`, i)
	}
	fmt.Fprintln(&b, "FROM scratch")
	for i := range strings.Count(b.String(), "node:20") {
		fmt.Fprintf(&b, "COPY --from=stage%d /app /app%d\n", i, i)
	}
	return b.String()
}

// TestDeterministic: a hundred runs over one large file agree to the byte.
func TestDeterministic(t *testing.T) {
	p, err := plan.Parse("Dockerfile", []byte(big(60)))
	if err != nil {
		t.Fatal(err)
	}
	f := (&testCase{}).facts(p)
	want := outcome(p, f, Options{Level: All})
	for range 100 {
		if got := outcome(p, f, Options{Level: All}); got != want {
			t.Fatalf("one run says\n%s\nanother\n%s", want, got)
		}
	}
}

// BenchmarkCompile is what every build of a 300-line Dockerfile pays: read, all passes, print.
func BenchmarkCompile(b *testing.B) {
	src := []byte(big(300))
	for b.Loop() {
		p, err := plan.Parse("Dockerfile", src)
		if err != nil {
			b.Fatal(err)
		}
		res := Run(p, (&testCase{}).facts(p), Options{Level: All})
		if res.Err != nil {
			b.Fatal(res.Err)
		}
		res.Plan.Text()
	}
}

// FuzzRun: no Dockerfile breaks a pass.
func FuzzRun(f *testing.F) {
	everyCase(f, func(_ string, p *plan.Plan, _ *plan.Facts) { f.Add(string(p.Source)) })
	f.Fuzz(func(t *testing.T, src string) {
		p, err := plan.Parse("Dockerfile", []byte(src))
		if err != nil {
			return
		}
		for _, o := range []Options{{Level: Safe}, {Level: All}, {Level: All, Fix: true}} {
			for _, facts := range []*plan.Facts{{}, (&testCase{}).facts(p)} {
				if res := Run(p, facts, o); res.Err != nil {
					t.Errorf("%+v: %v", o, res.Err)
				}
			}
		}
	})
}
