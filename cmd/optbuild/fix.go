package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/frontend/fix"
	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/world"
)

func fixCommand() *cli.Command {
	return &cli.Command{
		Name:      "fix",
		Usage:     "show as a diff, or with -w write, the Dockerfile that an expert would have written",
		ArgsUsage: "[PATH]",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "write", Aliases: []string{"w"}, Usage: "write the Dockerfile instead of printing a diff"},
			&cli.BoolFlag{Name: "check", Usage: "exit with 1 if the Dockerfile would change, for CI"},
		}, append(sourceFlags(), fixLevelFlags()...)...),
		Action: runFix,
	}
}

// fixLevelFlags are the compiler's with level all as the default: a person reads the diff.
func fixLevelFlags() []cli.Flag {
	flags := optimizeFlags()
	for _, f := range flags {
		if s, ok := f.(*cli.StringFlag); ok && s.Name == "optimize" {
			s.Value, s.EnvVars = string(opt.All), nil // what holds for builds is no wish for this
		}
	}
	return flags
}

// errWouldChange says that fix --check has something to do.
var errWouldChange = errors.New("the Dockerfile would change")

func runFix(c *cli.Context) error {
	o, err := optimizeOptions(c)
	if err != nil {
		return err
	}
	stdin := c.String("file") == "-"
	if stdin && c.Bool("write") {
		return usagef("-w writes the Dockerfile's file; one from standard input has none: without -w the result is printed")
	}
	if c.Bool("check") && c.Bool("write") {
		return usagef("--check and -w: one or the other")
	}
	off, err := readOffline(c, passWants(o), nil) // not what builds saw: the same file gives the same diff everywhere
	if err != nil {
		return err
	}
	src := off.source
	if off.aside != "" {
		return withHint(fmt.Errorf("%s is left as it is: %s", src.Name, off.aside), "optbuild does not know its language")
	}
	if err := opt.MissingShared(off.plan, o); err != nil {
		return err
	}
	res, err := fix.Run(off.plan, func(p *plan.Plan) (*plan.Facts, error) { return world.Local(p, src, off.world) }, o)
	if err != nil {
		var broken *opt.BrokenError
		if errors.As(err, &broken) {
			return withHint(err, "this is a bug of optbuild; --optimize-disable=%s leaves the pass out", broken.Pass)
		}
		return err
	}
	changed := res.Before != res.After
	switch {
	case stdin:
		_, err = io.WriteString(c.App.Writer, res.After)
	case c.Bool("write"):
		if changed {
			err = rewriteFile(src.Path, src.Data, []byte(res.After))
		}
	default:
		_, err = c.App.Writer.Write(unifiedDiff(src.Path, res.Before, res.After))
	}
	if err != nil {
		return err
	}
	saySummary(os.Stderr, c, src, res)
	if c.Bool("check") && changed {
		return withHint(errWouldChange, "%s", "optbuild fix -w writes it")
	}
	return nil
}

// saySummary says what was done, and what was not.
func saySummary(w io.Writer, c *cli.Context, src *world.Source, res *fix.Result) {
	for _, r := range res.Remarks {
		if r.Kind == opt.Passed || r.Warning {
			fmt.Fprintln(w, fixLine(r))
		}
	}
	for _, text := range res.Warnings {
		fmt.Fprintf(w, "%s: warning: %s\n", src.Name, text)
	}
	switch n := len(res.Passed()); {
	case n == 0:
		fmt.Fprintf(w, "%s: nothing to do\n", src.Name)
	case c.Bool("write"):
		fmt.Fprintf(w, "%s: written, %s\n", src.Name, count(n, "rewrite"))
	default:
		fmt.Fprintf(w, "%s: %s\n", src.Name, count(n, "rewrite"))
	}
	if n := len(res.Missed()); n > 0 {
		args := "optbuild explain"
		if f := c.String("file"); f != "" && f != "-" {
			args += " -f " + f
		}
		if dir := c.Args().First(); dir != "" {
			args += " " + dir
		}
		fmt.Fprintf(w, "%s considered and refused: `%s` says why\n", count(n, "more"), args)
	}
}

// fixLine is a remark for whoever reviews the diff.
func fixLine(r opt.Remark) string {
	line := fmt.Sprintf("%s:%d: %s: %s", r.File, r.Lines.First, r.Pass, r.Message)
	if r.Warning {
		line = fmt.Sprintf("%s:%d: warning: %s: %s", r.File, r.Lines.First, r.Pass, r.Message)
	}
	if len(r.Residue) > 0 {
		line += " (no longer in the image: " + strings.Join(r.Residue, ", ") + ")"
	}
	if r.Keeps == opt.Observed {
		line += " (rests on what programs are known to read: review it)"
	}
	return line
}

func count(n int, what string) string {
	if n != 1 && what != "more" {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// unifiedDiff is a diff that `git apply` and `patch -p1` take if the path is relative, and `patch` if it is not.
func unifiedDiff(path, before, after string) []byte {
	a, b := path, path
	if !filepath.IsAbs(path) {
		a, b = "a/"+filepath.ToSlash(filepath.Clean(path)), "b/"+filepath.ToSlash(filepath.Clean(path))
	}
	_, text, _ := bytes.Cut(diff.Diff(a, []byte(before), b, []byte(after)), []byte("\n")) // without the line "diff a b"
	return text
}

// rewriteFile puts a new content in the place of an old one: as a whole or not at all, with the file's mode, and where a link points. A file
// that is no longer the old content is left alone.
func rewriteFile(path string, before, after []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, before) {
		return errors.Join(fmt.Errorf("write %s: it has changed meanwhile", path), err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(after)
	if err == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	keepOwner(f, info)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
