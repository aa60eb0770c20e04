package opt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

const mergeIndent = "    "

// runText is the text of a RUN cut in three.
type runText struct {
	prefix string // RUN with its flags, up to the command
	flags  []string
	body   string
}

// cutRun finds where the command starts. It is false for text that is not plain: quotes or escapes in flags, carriage returns.
func cutRun(text string, escape rune) (runText, bool) {
	if len(text) < 4 || !strings.EqualFold(text[:3], "run") || strings.Contains(text, "\r") {
		return runText{}, false
	}
	r := runText{}
	at := 3
	for {
		at += space(text[at:], escape)
		if !strings.HasPrefix(text[at:], "--") {
			r.prefix, r.body = text[:at], strings.TrimRight(text[at:], " \t\n")
			return r, r.body != "" && at > 3
		}
		end := at + strings.IndexAny(text[at:]+" ", " \t\n")
		flag := text[at:end]
		if strings.ContainsAny(flag, "'\""+string(escape)) || flag == "--" {
			return runText{}, false
		}
		r.flags = append(r.flags, flag)
		at = end
	}
}

// space is the length of the white space, continued lines and comment lines at the start.
func space(s string, escape rune) int {
	at, fresh := 0, false
	for at < len(s) {
		rest := s[at:]
		switch {
		case strings.ContainsRune(" \t\n", rune(s[at])):
			fresh = fresh || s[at] == '\n'
			at++
		case fresh && s[at] == '#':
			at += strings.IndexByte(rest+"\n", '\n')
		case strings.HasPrefix(rest, string(escape)):
			blank := strings.TrimLeft(rest[len(string(escape)):], " \t")
			if !strings.HasPrefix(blank, "\n") {
				return at
			}
			at = len(s) - len(blank)
		default:
			return at
		}
	}
	return at
}

// mergeSide is one of the two RUNs.
type mergeSide struct {
	step   *plan.Step
	cmd    *instructions.RunCommand
	script *script.Script
	err    error // of script
	text   runText
}

// joinRuns makes the step that runs a and then b, as an expert would write it:
//
//	a && \
//	    b
//
// with parentheses only around a list that is not joined by && alone; into a list that starts with `set -e;` the commands of a go
// behind that.
func joinRuns(p *plan.Plan, a, b mergeSide, at *plan.State) (mergeSide, *refusal) {
	newline := string(p.Escape) + "\n" + mergeIndent
	and := " && " + newline
	first, dropped, comments := listOf(a, and)
	body := first + and
	if head, rest, ok := errexitHead(b); ok && !b.script.Chain() && isStraight(a.script) {
		first, dropped, comments = commandsOf(a, "; "+newline), true, commentsIn(a.text.body)
		body = head + "; " + newline + first + ";" + rest
	} else if b.script.Chain() {
		body += b.text.body
	} else {
		body += "( " + b.text.body + " )"
	}
	s, err := p.NewStep(a.text.prefix+body, a.step, b.step)
	if err != nil {
		return mergeSide{}, &refusal{"unreadable", "the joined text does not parse: " + err.Error()}
	}
	s = s.WithLead(a.step.Lead + comments + strings.TrimLeft(b.step.Lead, "\n"))
	merged := mergeSide{step: s}
	if err := merged.sameCommands(a, b, at, p.Escape, dropped); err != nil {
		return mergeSide{}, &refusal{"unreadable", "the joined text reads differently: " + err.Error()}
	}
	return merged, nil
}

// listOf is a as one member of an and-list. dropped says that its `set -e` is left out; comments are those that had no place.
func listOf(a mergeSide, and string) (text string, dropped bool, comments string) {
	switch {
	case a.script.Chain() && !hasSet(a.script):
		return a.text.body, false, ""
	case isStraight(a.script):
		return commandsOf(a, and), true, commentsIn(a.text.body)
	}
	return "( " + a.text.body + " )", false, ""
}

func isStraight(s *script.Script) bool {
	_, ok := s.Straight()
	return ok
}

func hasSet(s *script.Script) bool {
	return slices.ContainsFunc(s.Commands(), setsOnly)
}

// commandsOf are the commands of a straight script without `set -e`, which what joins them makes unnecessary.
func commandsOf(a mergeSide, separator string) string {
	var list []string
	commands, _ := a.script.Straight()
	for _, c := range commands {
		if !setsOnly(c) {
			list = append(list, a.script.Text[c.Start:c.End])
		}
	}
	return strings.Join(list, separator)
}

// commentsIn are a Dockerfile's comments between the lines of an instruction, at the start of a line.
func commentsIn(body string) string {
	var b strings.Builder
	for _, line := range strings.Split(body, "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// errexitHead cuts `set -eux;` off a list whose other members are checked by it.
func errexitHead(b mergeSide) (head, rest string, ok bool) {
	commands := b.script.Commands()
	if len(commands) < 2 || !setsOnly(commands[0]) || !errexitIn(commands[0]) {
		return "", "", false
	}
	head = b.script.Text[commands[0].Start:commands[0].End]
	rest, ok = strings.CutPrefix(b.text.body, head)
	if !ok {
		return "", "", false
	}
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " \t"), ";")
	return head, rest, ok
}

func errexitIn(set script.Command) bool {
	return slices.ContainsFunc(set.Args(), func(w script.Word) bool { return strings.HasPrefix(w.Value, "-") && strings.Contains(w.Value, "e") })
}

// sameCommands compares what the made step runs with what the two did.
func (m *mergeSide) sameCommands(a, b mergeSide, at *plan.State, escape rune, dropped bool) error {
	run, ok := m.step.Cmd.(*instructions.RunCommand)
	if !ok || !run.PrependShell || len(run.Files) > 0 {
		return fmt.Errorf("not a RUN of one text")
	}
	if cut, ok := cutRun(m.step.Text, escape); !ok || !slices.Equal(cut.flags, a.text.flags) {
		return fmt.Errorf("other flags")
	}
	m.cmd = run
	if m.script, m.err = scriptOf(run, at); m.err != nil {
		return m.err
	}
	first, second := commandTexts(a.script, dropped), commandTexts(b.script, false)
	got := commandTexts(m.script, false)
	if slices.Equal(got, append(slices.Clone(first), second...)) {
		return nil
	}
	if len(second) > 0 && slices.Equal(got, append(append([]string{second[0]}, first...), second[1:]...)) && strings.HasPrefix(second[0], "set ") {
		return nil
	}
	return fmt.Errorf("%q", got)
}

// commandTexts has one string for each command: its words, redirects, assignments, and whether its failure counts.
func commandTexts(s *script.Script, dropped bool) []string {
	var list []string
	for _, c := range s.Commands() {
		if dropped && setsOnly(c) {
			continue
		}
		var parts []string
		for _, w := range c.Words {
			parts = append(parts, w.Raw)
		}
		for _, r := range c.Redirects {
			parts = append(parts, r.FD+r.Op+r.Target.Raw)
		}
		for _, a := range c.Assigns {
			parts = append(parts, a.Name+"="+a.Value.Raw)
		}
		list = append(list, fmt.Sprint(strings.Join(parts, " "), c.Conditional, c.Unchecked, c.Background, c.Piped))
	}
	return list
}

// sameFlags compares flags in any order, but mounts in theirs: one may cover another.
func sameFlags(a, b []string) bool {
	mounts := func(flags []string) []string {
		return slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return !strings.HasPrefix(f, "--mount") })
	}
	return slices.Equal(mounts(a), mounts(b)) && slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// ownMount is a --mount whose content does not outlive the step, or may be one.
func ownMount(flag string) bool {
	options, ok := strings.CutPrefix(flag, "--mount=")
	if !ok {
		return false
	}
	kind, writable := "bind", false
	for _, field := range strings.Split(options, ",") {
		key, value, _ := strings.Cut(strings.ToLower(field), "=")
		switch key {
		case "type":
			kind = value
		case "rw", "readwrite", "ro", "readonly":
			writable = true // or at least not plain
		}
	}
	return kind != "cache" && kind != "secret" && kind != "ssh" && (kind != "bind" || writable)
}
