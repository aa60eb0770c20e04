package opt

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// movers are the programs of a stage that may be shared. Each copies, fetches, unpacks or edits bytes: what it writes is a function of what it is given, in no version of it one
// of the processor. None of them runs a program that the Dockerfile could choose; flags by which some would are refused by readingOf.
//
// Not among them, on purpose: compression (gzip and xz are the same only for the same version, and on s390x gzip uses the processor's own deflate), sort --parallel and whatever counts
// processors, ls and stat, whose sizes of directories are the file system's, date, awk, perl, python, node and all else that runs a text, file, and everything that asks what the machine is: uname, arch, getconf,
// nproc, lscpu, dpkg --print-architecture, apk --print-arch.
var movers = []string{
	":", "[", "addgroup", "adduser", "apk", "apt", "apt-get", "basename", "bunzip2", "cat", "chgrp", "chmod", "chown", "cp", "curl", "cut", "dirname", "echo", "export", "false", "git", "grep", "groupadd", "gunzip", "gzip",
	"head", "install", "ln", "md5sum", "mkdir", "mv", "npm", "printf", "rm", "rmdir", "sed", "set", "sha1sum", "sha256sum", "sha512sum", "sort", "tail", "tar", "tee", "test", "touch", "tr", "true", "umask",
	"uniq", "unxz", "unzip", "unzstd", "update-ca-certificates", "useradd", "wc", "wget", "xz", "zstd",
}

// unpackers also compress, unless they are told to decompress.
var unpackers = []string{"gzip", "xz", "zstd"}

// harmlessVariables may be set in a stage though programs look at them: they change no more than what is fetched from where, or what is said.
var harmlessVariables = []string{
	"DEBIAN_FRONTEND", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "LANGUAGE", "LC_ALL", "NODE_AUTH_TOKEN", "NODE_ENV", "NODE_EXTRA_CA_CERTS", "NO_PROXY", "NPM_CONFIG_LOGLEVEL", "NPM_TOKEN", "SSL_CERT_FILE", "TZ",
	"http_proxy", "https_proxy", "no_proxy", "npm_config_loglevel",
}

// programVariables are variables, or beginnings of them, by which programs of the table, shells and the loader are told what to run or how to write. What a Dockerfile calls its own
// (VERSION, APP_HOME) is none of them.
var programVariables = []string{
	"APT_", "BASH", "BASH_ENV", "BZIP", "CDPATH", "COREPACK_", "CURL_", "ENV", "GCONV_PATH", "GIT_", "GLIBC_", "GLOBIGNORE", "GREP_", "GZIP", "HOME", "IFS", "LD_", "LOCPATH", "NODE_", "NPM_", "PATH", "POSIXLY_CORRECT", "PS4", "SHELLOPTS",
	"SSH_", "TAR_", "TMPDIR", "UNZIP", "WGETRC", "XDG_", "XZ_", "ZIPINFO", "ZSTD_", "npm_",
}

// variable refuses a variable that the Dockerfile sets.
func (c *crossing) variable(s *plan.Step, name string, at *plan.State) *crossRefusal {
	if slices.Contains(harmlessVariables, name) {
		return nil
	}
	for _, p := range programVariables {
		if name == p || strings.HasSuffix(p, "_") && strings.HasPrefix(name, p) {
			return &crossRefusal{s, "variable", name + " may change what the programs of this stage do", []Arg{{"variable", name}}}
		}
	}
	// An argument of the whole file may have been given a platform's name.
	if v, set, known := c.plan.Global(c.facts).Lookup(name); set && (!known || strings.Contains(v.Value, "\x00")) {
		return &crossRefusal{s, "argument", "the value of " + name + " may be another one for each platform", []Arg{{"argument", name}}}
	}
	return nil
}

// runsOnce refuses a RUN that does more than the programs of the table, one after the other or through pipes, with words that stand in the text.
func (c *crossing) runsOnce(s *plan.Step, run *instructions.RunCommand, at *plan.State) *crossRefusal {
	sc, err := scriptOf(run, at)
	if err != nil || !at.Known || !at.DirOK || !at.UserOK {
		return nil // refused by runs, which has the words for it
	}
	for _, cmd := range sc.Commands() {
		if name := cmd.Name(); len(cmd.Words) > 0 && name != "cd" && !slices.Contains(movers, name) {
			return newRunning(c, s, sc, at).unknownProgram(cmd)
		}
	}
	if !sc.Simple() {
		return &crossRefusal{s, "control-flow", "loops, conditions, groups and substitutions are not followed", nil}
	}
	sets, _ := sc.Sets()
	for _, name := range sets {
		if r := c.variable(s, name, at); r != nil {
			return r
		}
	}
	for _, cmd := range sc.Commands() {
		for _, a := range cmd.Assigns {
			if r := c.variable(s, a.Name, at); r != nil {
				return r
			}
		}
	}
	return nil
}

// moves refuses a command that is not of the table, or in a way that the table does not vouch for.
func (r *running) moves(cmd script.Command) *crossRefusal {
	name := cmd.Name()
	if name == "npm" && !cmd.Piped && !cmd.Background {
		return r.npm(cmd)
	}
	if cmd.Background {
		return r.no("background", name+" runs beside others", cmd)
	}
	if program := cmd.Words[0]; len(cmd.Wrappers) == 0 && program.Literal && strings.Contains(program.Value, "/") {
		return r.no("program", "of "+program.Value+" it is not known that it is the base image's "+name, cmd)
	}
	if slices.Contains(unpackers, name) && !cmd.HasFlag("-d", "--decompress", "--uncompress", "-t", "--test") {
		return r.no("compression", name+" writes the same only where it is the same version, on a processor of the same kind", cmd)
	}
	if slices.Contains([]string{"adduser", "useradd"}, name) && cmd.HasFlag("-d", "--home", "--home-dir", "-h", "-b", "--base-dir", "-k", "--skel", "--conf") {
		return r.no("home", "programs may look for settings in a home that is chosen", cmd)
	}
	if name == "export" && (cmd.Piped || len(cmd.Redirects) > 0) {
		return r.no("program", "export may print all variables", cmd)
	}
	if name != "apt" && name != "apt-get" && name != "apk" && name != "git" && name != "unzip" && name != "sed" && readingOf(cmd) == anything {
		return r.no("program", name+" may run another program here", cmd)
	}
	if refused := r.words(cmd); refused != nil {
		return refused
	}
	if name == "git" {
		return r.clones(cmd)
	}
	if name == "echo" || name == "printf" {
		r.wrote(cmd, nil)
		return nil
	}
	switch name {
	case "sed":
		return r.edits(cmd)
	case "ln":
		return r.linksTo(cmd)
	}
	ops, ok := r.operands(cmd)
	if !ok {
		return r.no("operand", "which files "+name+" works on is not clear", cmd)
	}
	r.wrote(cmd, ops)
	for _, p := range ops {
		if refused := r.own(cmd, p); refused != nil {
			return refused
		}
		if dir := beforeGlob(p); dir != p && !free(dir) && name != "rm" {
			return r.no("system-file", name+" works on what "+p+" finds, of which some may belong to the base image", cmd)
		}
		if slices.Contains([]string{"tar", "unzip"}, name) {
			if refused := r.c.link(r.s, beforeGlob(p), strings.ContainsAny(p, "*?[")); refused != nil && !r.filling(cmd, p) {
				return refused
			}
		}
	}
	return nil
}

// words refuses words that are not known: with them a command may do anything.
func (r *running) words(cmd script.Command) *crossRefusal {
	for _, w := range cmd.Words {
		if _, ok := w.Expand(r.lookup); !ok && !web(w) && (!plainGlob(w.Raw) || slices.Contains(texts, cmd.Name())) {
			return r.no("word", "what "+w.Raw+" stands for is not known", cmd)
		}
	}
	return nil
}

func (r *running) unknownProgram(cmd script.Command) *crossRefusal {
	label := cmd.Name()
	if label == "" {
		label = r.sc.Text[cmd.Start:cmd.End]
	}
	return r.no("program", "of "+label+" it is not known that it gives the same on every platform", cmd)
}

// filling reports whether p is where a command unpacks to.
func (r *running) filling(cmd script.Command, p string) bool {
	w, ok := cmd.Flag("-C", "--directory", "-d")
	if !ok {
		return false
	}
	dir, ok := r.path(w)
	return ok && dir == p
}

// own refuses homes: programs look there for what to do. Directories in them are the stage's own.
func (r *running) own(cmd script.Command, p string) *crossRefusal {
	if settings := homeFile(p); settings != "" {
		return r.no("home", "programs may read "+settings, cmd)
	}
	return nil
}

// homeFile is the path, if programs may look there for how they are to work: a home directory, or a hidden file in one.
func homeFile(p string) string {
	parts := strings.Split(strings.TrimPrefix(path.Clean(p), "/"), "/")
	if parts[0] == "home" && (len(parts) < 3 || strings.HasPrefix(parts[2], ".")) {
		return p
	}
	return ""
}

// wrote notes what a command may have written: the files that it names and those that its output goes to.
func (r *running) wrote(cmd script.Command, ops []string) {
	if !slices.Contains([]string{"chgrp", "chmod", "chown", "mkdir"}, cmd.Name()) {
		r.c.written = append(r.c.written, ops...)
	}
	for _, rd := range cmd.Redirects {
		if p, ok := r.path(rd.Target); ok && rd.Writes() {
			r.c.written = append(r.c.written, p)
		}
	}
	if dir, ok := r.fills(cmd); ok {
		r.c.written = append(r.c.written, dir)
	}
}

// edits checks sed: substitutions, which run and write nothing else, and files that the stage has made.
func (r *running) edits(cmd script.Command) *crossRefusal {
	files, ok := r.sedFiles(cmd)
	if !ok {
		return r.no("program", "sed does more here than s/pattern/text/, or it is not clear to which files", cmd)
	}
	r.wrote(cmd, files)
	for _, p := range files {
		if !free(p) {
			return r.no("system-file", "sed works on "+p+", which belongs to the base image", cmd)
		}
		if refused := r.c.link(r.s, beforeGlob(p), strings.ContainsAny(p, "*?[")); refused != nil {
			return refused
		}
		if refused := r.own(cmd, p); refused != nil {
			return refused
		}
	}
	return nil
}

// sedFiles are the words of a sed that are neither flags nor scripts; ok is false if it has another script than substitutions.
func (r *running) sedFiles(cmd script.Command) (files []string, ok bool) {
	scripts, next := 0, false
	for _, w := range cmd.Args() {
		v, known := w.Expand(r.lookup)
		isScript := next || scripts == 0 && !strings.HasPrefix(v, "-")
		next = false
		switch {
		case !known && (isScript || !plainGlob(w.Raw)):
			return nil, false
		case isScript:
			if !substitution(v) {
				return nil, false
			}
			scripts++
		case slices.Contains(strings.Split(v, "/"), ".."), !known && slices.Contains(strings.Split(w.Raw, "/"), ".."):
			return nil, false
		case !known:
			files = append(files, absolute(r.dir, w.Raw))
		case v == "-e":
			next = true
		case strings.HasPrefix(v, "-"):
			if !slices.Contains([]string{"-E", "-i", "-n", "-r", "-iE", "-Ei", "-ir", "-ri", "-z", "-i.bak"}, v) {
				return nil, false
			}
		default:
			files = append(files, absolute(r.dir, v))
		}
	}
	return files, scripts > 0
}

// linksTo checks ln -s. What it points to is text; what stands at its name may be anything that the base image has.
func (r *running) linksTo(cmd script.Command) *crossRefusal {
	ops := cmd.Operands()
	if !cmd.HasFlag("-s", "--symbolic") || len(ops) != 2 {
		return r.no("program", "ln does more here than to make one symbolic link", cmd)
	}
	name, ok := r.path(ops[1])
	if !ok || !free(name) {
		return r.no("system-file", "where ln puts a link belongs to the base image, or is not known", cmd)
	}
	if refused := r.own(cmd, name); refused != nil {
		return refused
	}
	r.wrote(cmd, []string{name})
	r.c.made = append(r.c.made, made{path: name, origin: copied})
	return nil
}

// clones accepts git where it can't be told to run anything: a clone, and what is done in one that no COPY has touched.
func (r *running) clones(cmd script.Command) *crossRefusal {
	sub, dir := "", r.dir
	if args := cmd.Args(); len(args) > 0 {
		sub = args[0].Value
	}
	ops, ok := r.operands(cmd)
	if !ok {
		return r.no("operand", "which files git works on is not clear", cmd)
	}
	r.wrote(cmd, append(ops, dir))
	for _, p := range append(ops, dir) {
		if refused := r.own(cmd, p); refused != nil {
			return refused
		}
	}
	switch sub {
	case "clone":
		return nil
	case "checkout", "fetch", "init":
		for _, m := range r.c.made {
			if m.origin == context && (within(dir, m.path) || within(m.path, dir)) {
				return r.no("repository", "the repository may be one of the build context, with programs of its own (hooks, filters)", cmd)
			}
		}
		return nil
	}
	return r.no("program", "of git "+sub+" it is not known that it gives the same on every platform", cmd)
}
