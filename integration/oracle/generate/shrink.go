package generate

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/optbuild/optbuild/integration/oracle/cases"
)

// Shrink makes a case smaller for as long as still says that it shows what it showed: it leaves out instructions, parts of RUN steps,
// options and files. still is asked at most limit times.
func Shrink(c *cases.Case, limit int, still func(*cases.Case) bool) *cases.Case {
	try := func(d *cases.Case) bool {
		if limit == 0 {
			return false
		}
		limit--
		if !still(d) {
			return false
		}
		c = d
		return true
	}
	for again := true; again && limit > 0; {
		again = false
		for n := len(instructionsOf(c.Dockerfile())); n > 0; n-- { // from the end: what is below depends on what is above
			parts := instructionsOf(c.Dockerfile())
			if len(parts) < 2 || n > len(parts) {
				continue
			}
			less := strings.Join(slices.Delete(slices.Clone(parts), n-1, n), "")
			again = try(c.WithDockerfile(less)) || again
		}
		for i := 0; i < len(instructionsOf(c.Dockerfile())); i++ {
			for _, less := range shorter(instructionsOf(c.Dockerfile()), i) {
				if try(c.WithDockerfile(less)) {
					again = true
					break
				}
			}
		}
		for i := len(c.Options) - 1; i >= 0; i-- {
			d := *c
			d.Options = slices.Delete(slices.Clone(c.Options), i, i+1)
			again = try(&d) || again
		}
		for i := len(c.Second) - 1; i >= 0; i-- {
			d := *c
			d.Second = slices.Delete(slices.Clone(c.Second), i, i+1)
			again = try(&d) || again
		}
		for _, f := range slices.Backward(slices.Clone(c.Files)) {
			if f.Name != "Dockerfile" {
				again = try(c.WithoutFile(f.Name)) || again
			}
		}
	}
	return c
}

// instructionsOf cuts a Dockerfile into instructions, each with the lines above it that are none.
func instructionsOf(text string) []string {
	res, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil
	}
	lines := strings.SplitAfter(text, "\n")
	var parts []string
	at := 0
	for _, n := range res.AST.Children {
		parts = append(parts, strings.Join(lines[at:n.EndLine], ""))
		at = n.EndLine
	}
	return parts
}

// shorter are Dockerfiles in which one command of a RUN's list is gone, or the lines above an instruction.
func shorter(parts []string, i int) []string {
	var out []string
	put := func(part string) {
		q := slices.Clone(parts)
		q[i] = part
		out = append(out, strings.Join(q, ""))
	}
	lines := strings.SplitAfter(parts[i], "\n")
	if first := strings.TrimSpace(lines[0]); len(lines) > 1 && (first == "" || strings.HasPrefix(first, "#")) {
		put(strings.Join(lines[1:], ""))
	}
	body, isRun := strings.CutPrefix(strings.TrimSuffix(parts[i], "\n"), "RUN ")
	if !isRun {
		return out
	}
	for _, sep := range []string{" && ", "; "} {
		commands := strings.Split(body, sep)
		if len(commands) < 2 {
			continue
		}
		for k := range commands {
			put("RUN " + strings.Join(slices.Delete(slices.Clone(commands), k, k+1), sep) + "\n")
		}
	}
	return out
}
