package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

func whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "tell what made each step of the last build run",
		ArgsUsage: "[STEP]",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "build", Usage: "the `N`th build, counted from the last one", Value: 1},
			&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each step"},
		},
		Action: runWhy,
	}
}

func runWhy(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("why takes at most one argument, a line of the Dockerfile or a part of a step's text (got %d)", c.NArg())
	}
	n := c.Int("build")
	if n < 1 {
		return usagef("--build %d: want a number from 1, which is the last build", n)
	}
	state, err := stateDir(c)
	if err != nil {
		return err
	}
	builds := readWhy(state)
	if len(builds) == 0 {
		return withHint(fmt.Errorf("no build is known that was made with %s", state), "build something first: optbuild build .")
	}
	if n > len(builds) {
		return usagef("--build %d: only the last %d are known", n, len(builds))
	}
	b := builds[n-1]
	steps := b.Steps
	if c.NArg() == 1 {
		if steps, err = b.choose(c.Args().First()); err != nil {
			return err
		}
	}
	switch {
	case c.Bool("json"):
		return printWhyJSON(c.App.Writer, b, steps)
	case c.NArg() == 1:
		return printStep(c.App.Writer, b, steps)
	}
	return printSteps(c.App.Writer, b, time.Now())
}

// choose finds the steps that an argument names: by a line of the Dockerfile, alone or behind its name, or by a part of one step's text. Several steps are
// one instruction for several platforms.
func (b toldBuild) choose(arg string) ([]toldStep, error) {
	if strings.TrimSpace(arg) == "" {
		return nil, usagef("which step? Name a line of the Dockerfile or a part of the step's text")
	}
	if line, ok := b.lineOf(arg); ok {
		return b.chooseLine(arg, line)
	}
	var found []toldStep
	for _, exact := range []bool{true, false} {
		for _, s := range b.Steps {
			if strings.EqualFold(s.Step, arg) || !exact && strings.Contains(strings.ToLower(s.Step), strings.ToLower(arg)) {
				found = append(found, s)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	if len(found) == 0 {
		return nil, withHint(usagef("%q is in no step's text", arg), "`optbuild why` lists the steps")
	}
	for _, s := range found {
		if s.Step != found[0].Step || s.Line != found[0].Line || s.Stage != found[0].Stage {
			return nil, withHint(usagef("%q is in the text of several steps", arg), "name one of them:\n%s", b.names(found))
		}
	}
	return found, nil
}

// lineOf reads "7" and "Dockerfile:7".
func (b toldBuild) lineOf(arg string) (line int, ok bool) {
	i := strings.LastIndexByte(arg, ':')
	line, err := strconv.Atoi(arg[i+1:])
	if err != nil {
		return 0, false
	}
	if i < 0 {
		return line, true
	}
	name := strings.TrimPrefix(filepath.Clean(arg[:i]), "./")
	return line, name == "Dockerfile" && b.Dockerfile == "" || strings.HasSuffix("/"+b.Dockerfile, "/"+name)
}

func (b toldBuild) chooseLine(arg string, line int) (found []toldStep, err error) {
	known := false
	for _, s := range b.Steps {
		known = known || s.Line > 0
		if s.Line > 0 && s.Line <= line && line <= s.LastLine {
			found = append(found, s)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case !known:
		return nil, withHint(usagef("%s: it is not known which lines the steps of this build are in", arg), "name a part of the step's text:\n%s", b.names(b.Steps))
	}
	return nil, withHint(usagef("%s: no step of this build is in that line", arg), "the steps are:\n%s", b.names(b.Steps))
}

// names lists steps, as many as one may want to see in a hint.
func (b toldBuild) names(steps []toldStep) string {
	var lines []string
	for _, s := range steps {
		line := strings.TrimSpace(b.position(s) + "  " + visible(s.Step))
		if len(lines) == 0 || lines[len(lines)-1] != line {
			lines = append(lines, line)
		}
	}
	if more := len(lines) - 12; more > 1 {
		lines = append(lines[:12], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// became collects what became of a build's steps, when it has ended, well or not, and writes it where `optbuild why` looks.
func (b *build) became(rec *recorder, failed bool) toldBuild {
	told := toldBuild{
		Dockerfile: b.solve.Dockerfile, Context: b.contextName(), Target: b.solve.FrontendAttrs["target"], Platform: b.solve.FrontendAttrs["platform"],
		Ended: time.Now().UTC().Truncate(time.Second), Failed: failed, Steps: rec.outcomes.steps(b.report, failed, rec.times),
	}
	if abs, err := filepath.Abs(told.Dockerfile); err == nil && told.Dockerfile != "" {
		told.Dockerfile = abs
	}
	if b.report == nil && told.Dockerfile != "" {
		findLines(told.Steps, told.Dockerfile)
	}
	sortSteps(told.Steps)
	if len(told.Steps) == 0 { // the Dockerfile could not be read
		return told
	}
	if err := told.write(b.state); err != nil {
		warn("note what became of steps: " + err.Error())
	}
	if path := os.Getenv(stepsLogEnv); path != "" {
		if err := told.log(path); err != nil {
			warn(stepsLogEnv + ": " + err.Error())
		}
	}
	return told
}

// contextName is the context without what may be secret in a URL.
func (b *build) contextName() string {
	if dir := b.solve.ContextDir; dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return abs
		}
		return dir
	}
	u, err := url.Parse(b.solve.FrontendAttrs["context"])
	if err != nil {
		return ""
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}

// stepsLogEnv names a file to which a build appends a line of JSON for each step: for the harnesses of tests.
const stepsLogEnv = "OPTBUILD_STEPS_LOG"

func (b toldBuild) log(path string) error {
	var lines bytes.Buffer
	e := json.NewEncoder(&lines)
	e.SetEscapeHTML(false)
	for _, s := range b.Steps {
		if err := e.Encode(struct {
			Step     string `json:"step"`
			Vertex   string `json:"vertex"`
			Outcome  string `json:"outcome"`
			Reason   string `json:"reason"`
			Observed int    `json:"observed"`
		}{s.Step, s.Vertex, s.Outcome, s.Reason, s.Observed}); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(lines.Bytes()) // at once: several builds may append
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
