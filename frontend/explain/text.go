package explain

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/optbuild/optbuild/frontend/opt"
)

// marks are the gutter's signs. A warning is an analysis with a mark of its own.
var marks = []struct {
	sign, colour, means string
	is                  func(opt.Remark) bool
}{
	{"!", "31", "look at this", func(r opt.Remark) bool { return r.Warning }},
	{"+", "32", "done", func(r opt.Remark) bool { return r.Kind == opt.Passed }},
	{"-", "33", "not done", func(r opt.Remark) bool { return r.Kind == opt.Missed }},
	{"*", "36", "worth knowing", func(r opt.Remark) bool { return r.Kind == opt.Analysis }},
}

func markOf(r opt.Remark) int {
	for i, m := range marks {
		if m.is(r) {
			return i
		}
	}
	return len(marks) - 1
}

// Gutter writes the user's Dockerfile with a mark before each line that a remark is about, and the remarks below it.
//
//   - 2 | RUN npm ci
//     |   + cache-mounts/mount-added: npm's download cache is a cache mount
func Gutter(w io.Writer, a *Account, colours bool) error {
	g := &gutter{a: a, colours: colours}
	lines := strings.Split(strings.TrimSuffix(a.Versions[0].Text(), "\n"), "\n")
	g.width = max(2, len(fmt.Sprint(len(lines))))
	below := g.places(len(lines))
	for i, line := range lines {
		n := i + 1
		fmt.Fprintf(&g.b, "%s %*d |%s\n", g.mark(n), g.width, n, blank(Visible(line)))
		for _, r := range below[n] {
			g.remark(r)
		}
	}
	g.summary()
	_, err := io.WriteString(w, g.b.String())
	return err
}

type gutter struct {
	a       *Account
	b       strings.Builder
	colours bool
	width   int // of line numbers
}

func blank(line string) string {
	if line == "" {
		return ""
	}
	return " " + line
}

// places says below which line each remark stands: the last one of the instruction in which it begins.
func (g *gutter) places(lines int) map[int][]opt.Remark {
	below := map[int][]opt.Remark{}
	for _, r := range g.a.Remarks {
		at := r.Lines.First
		for _, row := range g.a.Versions[0].Rows {
			if row.ID != 0 && row.Lines.First <= at && at <= row.Lines.Last {
				at = row.Lines.Last
				break
			}
		}
		at = min(max(at, 1), lines)
		below[at] = append(below[at], r)
	}
	return below
}

// mark is the sign of the weightiest remark about a line.
func (g *gutter) mark(line int) string {
	best := -1
	for _, r := range g.a.Remarks {
		if line < r.Lines.First || line > r.Lines.Last {
			continue
		}
		if m := markOf(r); best < 0 || m < best {
			best = m
		}
	}
	if best < 0 {
		return " "
	}
	return g.paint(marks[best].colour, marks[best].sign)
}

func (g *gutter) paint(colour, s string) string {
	if !g.colours {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

func (g *gutter) remark(r opt.Remark) {
	m := marks[markOf(r)]
	text := r.Pass + "/" + r.Name + ": " + r.Message
	if r.Lines.Last > r.Lines.First {
		text += fmt.Sprintf(" (lines %d-%d)", r.Lines.First, r.Lines.Last)
	}
	if len(r.Residue) > 0 {
		text += " (not in the image: " + strings.Join(r.Residue, ", ") + ")"
	}
	if r.Kind == opt.Missed && r.Seconds > 0 {
		text += " [" + Seconds(r.Seconds) + "]"
	}
	fmt.Fprintf(&g.b, "  %*s |   %s %s\n", g.width, "", g.paint(m.colour, m.sign), Visible(text))
}

// summary follows the file: what the signs mean, and what would be worth most.
func (g *gutter) summary() {
	counts := make([]int, len(marks))
	for _, r := range g.a.Remarks {
		counts[markOf(r)]++
	}
	var parts []string
	for i, m := range marks {
		if counts[i] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d %s", g.paint(m.colour, m.sign), counts[i], m.means))
		}
	}
	if parts == nil {
		parts = []string{"nothing to say"}
	}
	fmt.Fprintf(&g.b, "\n%s, --optimize=%s: %s\n", Visible(g.a.File), g.a.Level, strings.Join(parts, ", "))
	if missed := g.a.Of(opt.Missed); len(missed) > 0 && missed[0].Seconds > 0 {
		fmt.Fprintln(&g.b, "not done, by the seconds that it is about, as last measured:")
		for _, r := range missed {
			fmt.Fprintf(&g.b, "%10s  %s:%d: %s/%s\n", Seconds(r.Seconds), Visible(r.File), r.Lines.First, r.Pass, r.Name)
		}
	}
	if g.a.Aside != "" {
		fmt.Fprintf(&g.b, "%s: it is built as it is written\n", Visible(g.a.Aside))
	}
	if g.a.Error != "" {
		fmt.Fprintf(&g.b, "%s, which is a bug in optbuild; the file is built as it is written: %s\n", Visible(g.a.Culprit()), Visible(g.a.Error))
	}
	if g.a.Layers != "" {
		fmt.Fprintf(&g.b, "layers, the last time: %s\n", Visible(g.a.Layers))
	}
	if line := g.a.FactsLine(); line != "" {
		fmt.Fprintln(&g.b, Visible(line))
	}
}

// Culprit says what went wrong when a rewritten Dockerfile was thrown away.
func (a *Account) Culprit() string {
	if a.Broken != "" {
		return "pass " + a.Broken + " broke the plan"
	}
	return "the rewritten Dockerfile does not mean what it should"
}

// Steps writes a unified diff of the Dockerfile for each pass that changed it. Lines before a diff begin with "#".
func Steps(w io.Writer, a *Account) error {
	var b strings.Builder
	for i, v := range a.Versions[1:] {
		before := a.Versions[i]
		p := a.pass(v.Pass)
		fmt.Fprintf(&b, "# %s: %s\n# order: %s\n# keeps: %s\n", p.Name, p.Doc, p.Order, p.Keeps)
		for _, r := range a.Remarks {
			if r.Kind == opt.Passed && r.Pass == v.Pass {
				fmt.Fprintln(&b, "# "+strings.ReplaceAll(Visible(r.String()), "\n", " "))
			}
		}
		b.WriteString(Visible(string(diff.Diff(a.name(before), []byte(before.Text()), a.name(v), []byte(v.Text())))))
		b.WriteByte('\n')
	}
	if len(a.Versions) == 1 {
		b.WriteString("# no pass changed the Dockerfile\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (a *Account) name(v Version) string {
	if v.Pass == "" {
		return a.File
	}
	return a.File + "." + v.Pass
}

// pass finds what is known of a pass.
func (a *Account) pass(name string) Pass {
	for _, p := range a.Passes {
		if p.Name == name {
			return p
		}
	}
	return Pass{Name: name}
}

// Visible shows control characters instead of sending them to a terminal; tabs and newlines stay.
func Visible(s string) string {
	hidden := func(r rune) bool {
		return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r))
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.TrimSuffix(s, "\r")
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Seconds writes a time for people.
func Seconds(s float64) string {
	switch {
	case s <= 0:
		return "-"
	case s >= 100:
		return fmt.Sprintf("%.0fs", s)
	}
	return fmt.Sprintf("%.1fs", s)
}
