package opt

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// foldMetadata gives a COPY the mode and the owner that the next RUN gives the file. The RUN's layer holds the whole file again, so this
// halves its bytes.
//
// Before:
//
//	COPY docker-entrypoint.sh /usr/local/bin/
//	RUN chmod +x /usr/local/bin/docker-entrypoint.sh
//
// After:
//
//	COPY --chmod=+x docker-entrypoint.sh /usr/local/bin/
//
// It is the same for one regular file without extended attributes, whose own path is known and is the only one that chmod and chown name. What BuildKit does
// differently, each of it a reason to refuse (fsutil/copy, ops/user_linux.go):
//
//   - Directories that COPY has to make get an octal --chmod as their mode, and the --chown. They must be there, or the mode must be 755.
//   - A user or group that there is none of is an error to chown, and root to --chown. It has to be known that there is.
//   - `chown user` leaves the group; --chown=user takes the user's group. So the group is always written.
//   - Symbolic modes are taken with umask 0, in a RUN it is 022: +w differs.
//   - Bits above 777 are lost by a chown that comes later; a file's access control list changes the mode if COPY sets it last.
//   - In `COPY a /b`, /b may be a directory of the image. Then chmod is for that directory.
//   - A RUN makes the working directory if it is missing, and fails where there is no shell, or no right to do it.
func foldMetadata(w *Work) {
	for _, st := range w.Plan.Stages {
		for i := 0; i+1 < len(st.Steps); i++ {
			for i+1 < len(st.Steps) && foldInto(w, st, i) { // again: RUN chmod, then RUN chown
			}
		}
	}
}

// metadata is what a RUN says about a file.
type metadata struct {
	chmod, user, group string
	unfit              string // a value that is not for flags of COPY
}

// foldInto makes one step of steps i and i+1, and reports whether it did.
func foldInto(w *Work, st *plan.Stage, i int) bool {
	s, next := st.Steps[i], st.Steps[i+1]
	c, ok := s.Cmd.(*instructions.CopyCommand)
	run, isRun := next.Cmd.(*instructions.RunCommand)
	if !ok || !isRun || !touchesMetadata(run) {
		return false
	}
	f := fold{w: w, copy: c, at: w.Plan.Flow(st, w.Facts)[i]}
	f.list, f.image = above(w, st, i)
	m, name, why := f.judge(run)
	if name == "" {
		return false // it is about something else
	}
	if why != "" {
		w.Missed(s, name, fmt.Sprintf("the RUN in line %d cannot become a part of the COPY: %s", next.Lines.First, why))
		return false
	}
	made, err := w.Plan.NewStep(m.into(s.Text), s, next)
	if err != nil || !sameSources(c, made) {
		return false
	}
	return w.Do(Change{
		Steps: []*plan.Step{s, next}, Name: "folded", Message: fmt.Sprintf("COPY%s does what the RUN in line %d does to the file it copies, and that RUN's layer would hold the file again", m.flags(), next.Lines.First),
		Apply: func() { st.Steps = slices.Concat(st.Steps[:i], []*plan.Step{made}, st.Steps[i+2:]) },
	})
}

var metadataPrograms = []string{"chmod", "chown", "chgrp"}

func touchesMetadata(run *instructions.RunCommand) bool {
	text := strings.Join(run.CmdLine, " ")
	for _, f := range run.Files {
		text += f.Data
	}
	return slices.ContainsFunc(metadataPrograms, func(p string) bool { return strings.Contains(text, p) })
}

func (m metadata) flags() (flags string) {
	if m.user != "" {
		flags = " --chown=" + m.user + ":" + m.group
	}
	if m.chmod != "" {
		flags += " --chmod=" + m.chmod
	}
	return flags
}

var copyKeyword = lazily(`^\s*[Cc][Oo][Pp][Yy]`)

// into puts the flags behind the keyword.
func (m metadata) into(text string) string {
	return copyKeyword().ReplaceAllStringFunc(text, func(keyword string) string { return keyword + m.flags() })
}

func sameSources(c *instructions.CopyCommand, s *plan.Step) bool {
	n, ok := s.Cmd.(*instructions.CopyCommand)
	return ok && n.From == c.From && fmt.Sprint(n.SourcesAndDest) == fmt.Sprint(c.SourcesAndDest)
}

// fold is one COPY that a RUN follows.
type fold struct {
	w     *Work
	copy  *instructions.CopyCommand
	at    plan.State
	list  []earlier // the steps above the COPY
	image string    // below them, "" if not known
}

// judge reads the RUN. With no name it is not about the file that is copied; with why it cannot be folded.
func (f *fold) judge(run *instructions.RunCommand) (m metadata, name, why string) {
	file, name, why := f.source()
	if file == "" {
		if name == "" || !f.aboutDestination(run) {
			return m, "", ""
		}
		return m, name, why
	}
	where, ok := destination(f.copy.DestPath, file, &f.at, f.list)
	if !ok {
		if f.aboutDestination(run) {
			return m, "unknown-destination", "where the file goes is not known"
		}
		return m, "", ""
	}
	if !f.at.Known {
		return m, "unknown-base", "the base image is not known"
	}
	sh, err := scriptOf(run, &f.at)
	if err != nil {
		return m, "unknown-shell", fmt.Sprintf("what it runs is not known (%v)", err)
	}
	m, touches, only := f.read(sh, where.name)
	switch {
	case !touches:
		return m, "", ""
	case !only:
		return m, "does-more", "it does more than to set the mode and the owner of " + where.name
	case name != "":
		return m, name, why
	case m.unfit != "":
		return m, "value", m.unfit + " is more than flags of COPY can say, or means something else there"
	case !where.certain:
		return m, "maybe-directory", fmt.Sprintf("if the image has a directory %s the file is put into it; write the destination as %s/", where.name, strings.TrimSuffix(where.dir, "/"))
	}
	name, why = f.allowed(run, m, where)
	if name == "" {
		name = "folded"
	}
	return m, name, why
}

// source is the file's name, if there is one source and it is a file that nothing speaks against.
func (f *fold) source() (file, name, why string) {
	c := f.copy
	switch {
	case len(c.SourcePaths)+len(c.SourceContents) != 1:
		return "", "several-sources", "it copies more than one file"
	case len(c.SourceContents) == 1:
		return path.Base(c.SourceContents[0].Path), "", ""
	case c.From != "":
		return "", "from-stage", "what it copies from " + c.From + " may be a directory"
	}
	src, ok := f.at.Expand(c.SourcePaths[0])
	if !ok || hasWildcard(src) {
		return "", "unknown-source", "which files it copies is not known"
	}
	src = contextName(src)
	switch kindOf(f.w.Facts.Context, src) {
	case plainFile, packedFile, unreadFile:
	case directory:
		return "", "directory", "it copies a directory"
	case linkSource:
		return "", "symlink", src + " is a symlink"
	case unknownSource:
		return path.Base(src), "unknown-source", "what " + src + " is in the context is not known"
	default:
		return "", "", ""
	}
	p, _ := f.w.Facts.Context.Lookup(src)
	if p.Mode&^0o777 != 0 {
		return path.Base(src), "special-mode", src + " has bits beyond read, write and execute"
	}
	if p.Xattrs || !p.Sniffed {
		return path.Base(src), "extended-attributes", src + " has, or may have, extended attributes"
	}
	return path.Base(src), "", ""
}

// aboutDestination reports whether the RUN names the destination, so that silence would be odd.
func (f *fold) aboutDestination(run *instructions.RunCommand) bool {
	dest, ok := f.at.Expand(f.copy.DestPath)
	dest = strings.TrimSuffix(dest, "/")
	return ok && len(dest) > 1 && strings.Contains(strings.Join(run.CmdLine, " "), dest)
}

// read collects what the script says about the file. touches: something is; only: nothing else is said or done.
func (f *fold) read(sh *script.Script, name string) (m metadata, touches, only bool) {
	commands, only := sh.Straight()
	if !only {
		commands = sh.Commands()
	}
	for _, c := range commands {
		about := slices.ContainsFunc(c.Words, func(w script.Word) bool { return w.Literal && f.abs(w.Value) == name })
		touches = touches || about && slices.Contains(metadataPrograms, c.Name())
		args := c.Args()
		if !about || !slices.Contains(metadataPrograms, c.Name()) || len(c.Assigns)+len(c.Redirects)+len(c.Wrappers) > 0 || !c.Literal() || len(args) != 2 || f.abs(args[1].Value) != name || strings.HasSuffix(args[1].Value, "/") {
			only = false
			continue
		}
		m.take(c.Name(), args[0].Value)
	}
	return m, touches, only
}

func (f *fold) abs(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(f.at.Dir, name)
}

var (
	octal    = lazily(`^0?[0-7]{3}$`)
	symbolic = lazily(`^([ugoa]+[-+=][rwx]*|[-+][rx]+)(,([ugoa]+[-+=][rwx]*|[-+][rx]+))*$`)
	account  = lazily(`^([a-z_][a-z0-9_-]*|[0-9]{1,9})$`)
)

// take adds one command.
func (m *metadata) take(program, value string) {
	fits := m.user == ""
	if program == "chmod" {
		fits = m.chmod == "" && (octal().MatchString(value) || symbolic().MatchString(value))
		m.chmod = value
	} else {
		user, group, both := strings.Cut(value, ":")
		if program == "chgrp" {
			user, group, both = "", value, true
		}
		if user == "" {
			user = "0" // COPY makes files root's
		}
		if !both {
			group = "0"
		}
		fits = fits && account().MatchString(user) && account().MatchString(group)
		m.user, m.group = user, group
	}
	if !fits {
		m.unfit = program + " " + value
	}
}

// allowed says what speaks against it, whatever the file.
func (f *fold) allowed(run *instructions.RunCommand, m metadata, where target) (name, why string) {
	c := f.copy
	switch {
	case c.Link || c.Parents || len(c.ExcludePatterns) > 0:
		return "copy-flags", "its --link, --parents or --exclude would mean something else"
	case c.Chmod != "" && m.chmod != "" || c.Chown != "" && m.user != "":
		return "already-set", "it sets the same itself"
	case len(run.FlagsUsed) > 0:
		return "run-flags", "the RUN has flags"
	case f.image == "":
		return "unknown-base", "the base image is not known"
	case f.image == "scratch":
		return "scratch", "an empty base has no chmod, and the RUN may fail"
	case !f.at.Root():
		return "user", "it runs as " + f.at.User + ", who may not be allowed to"
	case run.PrependShell && !f.usualShell():
		return "shell", "its shell may not be there"
	case !settled(&f.at, f.list):
		return "working-directory", fmt.Sprintf("it would make the working directory %s if that is missing", f.at.Dir)
	case !present(where.dir, &f.at, f.list) && (m.user != "" || octal().MatchString(m.chmod) && strings.TrimPrefix(m.chmod, "0") != "755"):
		return "new-directory", fmt.Sprintf("if %s is missing COPY gives it the file's mode or owner as well", where.dir)
	case where.name == "/etc/passwd" || where.name == "/etc/group":
		return "accounts", "the file says who is who"
	case !f.exists(m.user, "useradd", "adduser"):
		return "unknown-user", "whether there is a user " + m.user + " is not known; use its number"
	case !f.exists(m.group, "groupadd", "addgroup"):
		return "unknown-user", "whether there is a group " + m.group + " is not known; use its number"
	}
	return "", ""
}

// usualShell: /bin/sh, or one that a RUN above used.
func (f *fold) usualShell() bool {
	return slices.Equal(f.at.Shell, plan.DefaultShell) || slices.ContainsFunc(f.list, func(s earlier) bool {
		run, ok := s.Cmd.(*instructions.RunCommand)
		return ok && run.PrependShell && slices.Equal(s.at.Shell, f.at.Shell)
	})
}

// exists reports whether an account is a number, root's, that of a well-known official image, or one that a RUN above surely made.
func (f *fold) exists(account string, makers ...string) bool {
	if account == "" || account == "root" || strings.Trim(account, "0123456789") == "" {
		return true
	}
	if repository, _, _ := strings.Cut(f.image, ":"); accounts[repository] == account {
		return true
	}
	for _, s := range f.list {
		run, ok := s.Cmd.(*instructions.RunCommand)
		if !ok {
			continue
		}
		sh, err := scriptOf(run, &s.at)
		if err != nil {
			continue
		}
		for _, c := range sh.Commands() {
			args := c.Args()
			if !c.Conditional && !c.Unchecked && slices.Contains(makers, c.Name()) && c.Literal() && len(args) > 0 && args[len(args)-1].Value == account {
				return true
			}
		}
	}
	return false
}

// accounts are users of official images, which have a group of the same name.
var accounts = map[string]string{"node": "node", "nginx": "nginx", "postgres": "postgres", "redis": "redis", "mysql": "mysql", "httpd": "www-data", "php": "www-data", "debian": "www-data", "ubuntu": "www-data"}

// foldWants are the files that a COPY copies before a RUN with chmod or chown.
func foldWants(p *plan.Plan, f *plan.Facts) (want []string) {
	for _, st := range p.Stages {
		for i := 0; i+1 < len(st.Steps); i++ {
			c, ok := st.Steps[i].Cmd.(*instructions.CopyCommand)
			run, isRun := st.Steps[i+1].Cmd.(*instructions.RunCommand)
			if !ok || !isRun || c.From != "" || len(c.SourcePaths) != 1 || !touchesMetadata(run) {
				continue
			}
			if src, ok := p.Flow(st, f)[i].Expand(c.SourcePaths[0]); ok && contextName(src) != "." && !hasWildcard(src) {
				want = append(want, contextName(src))
			}
		}
	}
	return want
}
