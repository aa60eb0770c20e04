package opt

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// rewrite is the step's text with the mounts, and without the commands and operands that would empty them.
func (m *cacheMounter) rewrite(s *plan.Step, u *cacheUse, mounts []cacheMount, o cacheOwner, drops []cacheDrop) (text, why string) {
	text = s.Text
	want := cacheCommands(u.script, drops)
	for _, d := range drops {
		t, ok := cut(text, m.w.Plan.Escape, d)
		if !ok {
			return "", "`" + d.text() + "` would empty the cache mount, and cannot be left out of the text"
		}
		text = t
	}
	if len(drops) > 0 {
		step, err := m.w.Plan.NewStep(text, s)
		if err != nil {
			return "", "`" + drops[0].text() + "` would empty the cache mount, and cannot be left out of the text"
		}
		run, ok := step.Cmd.(*instructions.RunCommand)
		if !ok {
			return "", "the step would be another one"
		}
		sc, err := scriptOf(run, u.at)
		if err != nil || !slices.Equal(cacheCommands(sc, nil), want) {
			return "", "`" + drops[0].text() + "` would empty the cache mount, and cannot be left out of the text"
		}
	}
	var flags []string
	for _, mount := range mounts {
		if !m.w.Options.Fix && mount.kind == "" {
			mount.id = ownCache(mount, o.uid)
		}
		flags = append(flags, mount.flag(o.uid, o.gid))
	}
	for _, long := range []bool{true, false} {
		t := insertFlags(text, m.w.Plan.Escape, flags, long)
		if m.sameRun(text, t, s, len(flags)) {
			return t, ""
		}
	}
	return "", "the mounts find no place in the instruction's text"
}

// ownCache is the id of a cache that only this pass mounts. BuildKit's default, the target, is that of mounts that people write, whose steps may put
// into it what no tool would; and a directory belongs to the user for whom it was made first. In a file for people the default is what they expect.
func ownCache(mount cacheMount, uid string) string {
	id := "optbuild" + mount.target
	if mount.id != "" {
		id = "optbuild-" + mount.id
	}
	if uid != "" {
		id += ":" + uid
	}
	return id
}

// sameRun reports whether two texts are the same RUN but for n more mounts.
func (m *cacheMounter) sameRun(a, b string, s *plan.Step, n int) bool {
	describe := func(text string, more int) string {
		step, err := m.w.Plan.NewStep(text, s)
		if err != nil {
			return text
		}
		c, ok := step.Cmd.(*instructions.RunCommand)
		if !ok {
			return text
		}
		return fmt.Sprintf("%q %v %v %d %q %v", c.CmdLine, c.PrependShell, c.Files, len(instructions.GetMounts(c))+more, instructions.GetNetwork(c), instructions.GetSecurity(c))
	}
	return describe(a, n) == describe(b, 0)
}

// insertFlags puts flags behind RUN and those that are there. What follows stays byte for byte; long instructions get a line for each mount.
func insertFlags(text string, escape rune, flags []string, long bool) string {
	at := flagsEnd(text, escape)
	head, rest := text[:at], text[at:]
	glue := " "
	first, _, _ := strings.Cut(rest, "\n")
	if long && (len(flags) > 1 || len(head)+len(flags[0])+len(first) > 100) {
		glue = " " + string(escape) + "\n    "
		if strings.HasSuffix(first, "\r") {
			glue = " " + string(escape) + "\r\n    "
		}
	}
	lines, before := strings.Join(flags, glue), " "
	if at > 3 {
		before = glue
	}
	rest = strings.TrimLeft(rest, " \t")
	if strings.HasPrefix(rest, string(escape)) && long { // it has a line of its own
		return head + before + lines + " " + rest
	}
	return head + before + lines + glue + rest
}

var flagToken = regexp.MustCompile(`^--[A-Za-z0-9=_,.:/@+-]+`)

// gaps are blanks and joined lines, by the escape character.
var gaps = map[rune]*regexp.Regexp{
	'\\': regexp.MustCompile(`^(?:[ \t]|\\[ \t]*\r?\n)+`),
	'`':  regexp.MustCompile("^(?:[ \t]|`[ \t]*\r?\n)+"),
}

// flagsEnd is the offset behind RUN and its flags, or behind RUN alone if a flag has characters that this function does not read.
func flagsEnd(text string, escape rune) int {
	blank := gaps[escape]
	end := 3 // RUN, in any case
	for at := end; ; {
		gap := len(blank.FindString(text[at:]))
		token := len(flagToken.FindString(text[at+gap:]))
		if gap == 0 || token == 0 {
			return end
		}
		at += gap + token
		if at < len(text) && !strings.ContainsAny(text[at:at+1], " \t\r\n"+string(escape)) {
			return 3
		}
		end = at
	}
}

// cacheDrop is a command, or some operands of one, that would empty a mount.
type cacheDrop struct {
	command  script.Command
	operands []string // as written; nil: the whole command
}

func (d cacheDrop) text() string {
	words := make([]string, len(d.command.Words))
	for i, w := range d.command.Words {
		words[i] = w.Raw
	}
	return strings.Join(words, " ")
}

// cacheCommands are the words of all commands but what is dropped.
func cacheCommands(sc *script.Script, drops []cacheDrop) []string {
	var list []string
	for _, c := range sc.Commands() {
		var words []string
		keep := true
		for _, w := range c.Words {
			words = append(words, w.Raw)
		}
		for _, d := range drops {
			if d.command.Start != c.Start || d.command.End != c.End {
				continue
			}
			keep = d.operands != nil
			words = slices.DeleteFunc(words, func(w string) bool { return slices.Contains(d.operands, w) })
		}
		if keep {
			list = append(list, fmt.Sprintf("%q %v", words, c.Assigns != nil))
		}
	}
	return list
}

// cut removes a drop from the text, together with what joins the command to the one before it. It has to be there exactly once.
func cut(text string, escape rune, d cacheDrop) (string, bool) {
	blank := `(?:[ \t]|` + regexp.QuoteMeta(string(escape)) + `[ \t]*\r?\n)`
	var words []string
	for _, w := range d.command.Words {
		words = append(words, regexp.QuoteMeta(w.Raw))
	}
	command := strings.Join(words, blank+"+")
	whole := regexp.MustCompile(`((?:` + blank + `*(?:&&|;)` + blank + `*)|[ \t]*\n[ \t]*)(` + command + `)(` + blank + `*(?:&&|;|\n|$))`)
	all := whole.FindAllStringSubmatchIndex(text, -1)
	if len(all) != 1 {
		return "", false
	}
	m := all[0]
	if d.operands == nil {
		return text[:m[2]] + text[m[6]:], true
	}
	old := text[m[4]:m[5]]
	for _, o := range d.operands {
		one := regexp.MustCompile(blank + `+` + regexp.QuoteMeta(o) + `(` + blank + `|$)`)
		at := one.FindAllStringSubmatchIndex(old, -1)
		if len(at) != 1 {
			return "", false
		}
		old = old[:at[0][0]] + old[at[0][2]:]
	}
	return text[:m[4]] + old + text[m[5]:], true
}
