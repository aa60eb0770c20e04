package opt

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// step refuses what may do something else on another machine, and notes where files come from.
func (c *crossing) step(st *plan.Stage, s *plan.Step, at *plan.State) *crossRefusal {
	switch cmd := s.Cmd.(type) {
	case *instructions.RunCommand:
		return c.runs(st, s, cmd, at)
	case *instructions.CopyCommand:
		return c.puts(s, cmd.SourcesAndDest, cmd.From, at)
	case *instructions.AddCommand:
		return c.puts(s, cmd.SourcesAndDest, "\x00archive", at)
	case *instructions.OnbuildCommand:
		return &crossRefusal{s, "onbuild", "ONBUILD may do anything", nil}
	}
	return nil
}

// running is a RUN of a stage on its way to the build platform.
type running struct {
	c      *crossing
	stage  *plan.Stage
	s      *plan.Step
	at     *plan.State
	sc     *script.Script
	dir    string
	lookup func(string) (string, bool)
}

func newRunning(c *crossing, s *plan.Step, sc *script.Script, at *plan.State) *running {
	return &running{c: c, s: s, at: at, sc: sc, dir: at.Dir, lookup: sc.Lookup(func(name string) (string, bool) {
		v, set, known := at.Lookup(name)
		if !set {
			return "", known
		}
		return v.Value, known
	})}
}

func (c *crossing) runs(st *plan.Stage, s *plan.Step, run *instructions.RunCommand, at *plan.State) *crossRefusal {
	if !at.Known || !at.DirOK || !at.UserOK {
		return &crossRefusal{s, "environment", "the environment of this step is not known", nil}
	}
	for _, f := range run.FlagsUsed {
		if f != "mount" && f != "network" {
			return &crossRefusal{s, "flag", "RUN --" + f + " asks for something of the machine", []Arg{{"flag", f}}}
		}
	}
	mounts, err := mountsOf(c.plan, s, at)
	if err != nil {
		return &crossRefusal{s, "mount", "a mount depends on a value that is not known", nil}
	}
	for _, m := range mounts {
		if target := absolute(at.Dir, m.Target); m.Type == instructions.MountTypeCache && !cacheDir(target) && !(c.once && target == npmCache) || m.Type == instructions.MountTypeBind && !free(target) {
			return &crossRefusal{s, "mount", "what is mounted at " + target + " may be programs, or a cache of them", []Arg{{"target", target}}}
		}
	}
	sc, err := scriptOf(run, at)
	if err != nil {
		return &crossRefusal{s, "shell", "the shell text is not understood: " + err.Error(), nil}
	}
	for _, name := range machineVariables {
		if sc.MayRead(name) {
			return &crossRefusal{s, "machine", "the shell text may ask for " + name + ", which is the machine's", []Arg{{"variable", name}}}
		}
	}
	r := newRunning(c, s, sc, at)
	r.stage = st
	if refused := r.shell(); refused != nil {
		return refused
	}
	_, straight := sc.Straight()
	for _, cmd := range sc.Commands() {
		if cmd.Name() == "cd" {
			dir, ok := r.operands(cmd)
			if !straight || !ok || len(dir) != 1 {
				return r.no("cd", "where cd goes is not clear", cmd)
			}
			r.dir = dir[0]
			continue
		}
		if refused := r.command(cmd); refused != nil {
			return refused
		}
	}
	if !run.PrependShell && slices.ContainsFunc(c.builds, func(b *goBuild) bool { return b.step == s && b.prefix != "" }) {
		return &crossRefusal{s, "exec-form", "an exec form has no place for GOARCH=$TARGETARCH: write go build as a shell form", nil}
	}
	return nil
}

func (r *running) no(name, message string, cmd script.Command) *crossRefusal {
	return &crossRefusal{r.s, name, message, []Arg{{"command", r.sc.Text[cmd.Start:cmd.End]}}}
}

// shell refuses what changes the shell itself in a way that this pass does not follow.
// strictOptions are options of `set` that only make a shell stop, or talk, earlier.
var strictOptions = regexp.MustCompile(`^( ?(-[eux]+|-[eux]*o (errexit|nounset|xtrace|pipefail)))+$`)

func (r *running) shell() *crossRefusal {
	for _, h := range r.sc.Hazards() {
		switch h.Kind {
		case script.Cd, script.Umask, script.Exit:
		case script.Variable:
		case script.Option:
			if !strictOptions.MatchString(h.Target) {
				return &crossRefusal{r.s, "shell", "the shell text changes the shell: " + h.Text, nil}
			}
		default:
			return &crossRefusal{r.s, "shell", "the shell text changes the shell: " + h.Text, nil}
		}
	}
	sets, all := r.sc.Sets()
	if all {
		return &crossRefusal{r.s, "shell", "the shell text may set any variable", nil}
	}
	for _, name := range sets {
		if strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "CGO") || strings.HasPrefix(name, "TARGET") || name == "PATH" || name == "HOME" {
			return &crossRefusal{r.s, "variable", "the shell text sets " + name + " itself: write it before go build", []Arg{{"variable", name}}}
		}
	}
	return nil
}

// texts are programs that do something with the text of their words, and look at no file.
var texts = []string{":", "adduser", "addgroup", "basename", "date", "dirname", "echo", "exit", "export", "false", "groupadd", "printf", "set", "sleep", "true", "umask", "useradd"}

// files are programs that do the same to the files that their words name on every platform.
var files = []string{
	"[", "cat", "chgrp", "chmod", "chown", "cp", "cut", "diff", "grep", "gunzip", "gzip", "head", "install", "ls", "md5sum", "mkdir", "mv", "rm", "rmdir", "sha1sum", "sha256sum",
	"sha512sum", "sort", "tail", "tee", "test", "touch", "tr", "uniq", "wc",
}

// Of these, some only make or change what they name, and some write to the last one.
var (
	makers  = []string{"[", "chgrp", "chmod", "chown", "curl", "git", "ls", "mkdir", "rm", "rmdir", "tar", "test", "touch", "unzip", "wget"}
	copiers = []string{"cp", "install", "mv"}
)

// packages may be installed: what is built does not become another thing by their being there, and all distributions have them for amd64 and arm64.
var packages = []string{
	"bash", "build-base", "build-essential", "bzip2", "ca-certificates", "coreutils", "curl", "file", "findutils", "g++", "gcc", "gettext", "git", "gnupg", "gzip", "jq", "libc-dev", "libc6-dev",
	"linux-headers", "make", "mercurial", "musl-dev", "netbase", "openssh", "openssh-client", "openssl", "pkg-config", "pkgconf", "subversion", "tar", "tzdata", "unzip", "upx", "wget", "xz",
	"xz-utils", "zip", "zlib1g-dev",
}

// command refuses a program that is not known to do the same everywhere.
func (r *running) command(cmd script.Command) *crossRefusal {
	if len(cmd.Words) == 0 { // assignments, whose substitutions are commands of their own
		return nil
	}
	name := cmd.Name()
	for _, rd := range cmd.Redirects {
		if target, ok := r.path(rd.Target); rd.Writes() && (!ok || !free(target) && !strings.HasPrefix(target, "/dev/")) || rd.Op == "<" && (!ok || !free(target)) {
			return r.no("redirect", "what is redirected is not a file of this stage", cmd)
		}
	}
	if slices.ContainsFunc(cmd.Wrappers, func(w string) bool { return w != "env" }) || len(cmd.Wrappers) > 0 && cmd.Words[1].Literal && strings.HasPrefix(cmd.Words[1].Value, "-") {
		return r.no("wrapper", strings.Join(cmd.Wrappers, ", ")+" may change what the command sees", cmd)
	}
	if refused := r.elsewhere(cmd); refused != nil {
		return refused
	}
	if r.c.once {
		if refused := r.moves(cmd); refused != nil {
			return refused
		}
	}
	if !r.known(cmd) {
		label := name
		if label == "" {
			label = r.sc.Text[cmd.Start:cmd.End]
		}
		return r.no("program", "of "+label+" it is not known that it does the same on every platform", cmd)
	}
	switch {
	case name == "go":
		return r.golang(cmd)
	case r.c.once && slices.Contains([]string{"npm", "sed", "ln"}, name): // looked at by moves
		return nil
	case slices.Contains(texts, name) || name == "apt-get" || name == "apt" || name == "apk" || name == "update-ca-certificates":
		return nil
	}
	return r.named(cmd)
}

// known looks the program and its flags up in the tables.
func (r *running) known(cmd script.Command) bool {
	name, args := cmd.Name(), cmd.Args()
	switch {
	case slices.Contains(texts, name), slices.Contains(files, name):
		return true
	case name == "go":
		return true
	case r.c.once && slices.Contains([]string{"npm", "sed", "ln", "bunzip2", "unxz", "unzstd", "xz", "zstd"}, name): // looked at by moves
		return true
	case name == "update-ca-certificates":
		return len(args) == 0
	case name == "git":
		return gitKnown(cmd)
	case name == "curl":
		return flagsAmong(args, "fsSLkO#g", "--fail", "--silent", "--show-error", "--location", "--insecure", "--remote-name", "--output", "--retry", "--retry-delay", "--connect-timeout", "--proto", "--tlsv1.2", "-o")
	case name == "wget":
		return flagsAmong(args, "qcnv", "--quiet", "--no-verbose", "--progress", "--no-check-certificate", "--tries", "--timeout", "--https-only", "-O", "-P", "-qO", "-O-", "-qO-", "-nvO-")
	case name == "tar":
		return len(args) > 0 && (strings.Trim(strings.TrimPrefix(args[0].Value, "-"), "xzjJvpf") == "" || strings.HasPrefix(args[0].Value, "--")) &&
			flagsAmong(args[1:], "xzjJvpf", "-C", "--directory", "--strip-components", "--strip", "--no-same-owner", "--same-owner", "--gzip", "--extract", "--file")
	case name == "unzip":
		return flagsAmong(args, "qonj", "-d")
	case name == "apt-get", name == "apt":
		return installs(cmd, "install", "update", "clean")
	case name == "apk":
		return installs(cmd, "add", "update")
	}
	return false
}

// flagsAmong reports whether all flags are of the given ones: letters may be clustered.
func flagsAmong(args []script.Word, letters string, long ...string) bool {
	for _, w := range args {
		v := w.Value
		if !w.Literal {
			v = w.Raw
		}
		if len(v) < 2 || v[0] != '-' {
			continue
		}
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains(long, name) || v[1] != '-' && strings.Trim(v[1:], letters) == "" {
			continue
		}
		// A cluster may end with a flag that has a value: -fsSLo FILE.
		if last := "-" + v[len(v)-1:]; v[1] != '-' && slices.Contains(long, last) && strings.Trim(v[1:len(v)-1], letters) == "" {
			continue
		}
		return false
	}
	return true
}

// installs reports whether a package manager is told to install packages of the table, or to do another one of the given things.
func installs(cmd script.Command, verbs ...string) bool {
	ops := cmd.Operands("-t", "--virtual")
	if !cmd.Literal() || len(ops) == 0 || !slices.Contains(verbs, ops[0].Value) || cmd.HasFlag("-o", "--option", "-c", "--config-file", "--repository", "-X", "--root", "-p", "--allow-untrusted") {
		return false
	}
	return ops[0].Value != verbs[0] || !slices.ContainsFunc(ops[1:], func(w script.Word) bool { return !slices.Contains(packages, w.Value) })
}

// gitKnown: git runs programs that its configuration names.
func gitKnown(cmd script.Command) bool {
	args := cmd.Args()
	if len(args) == 0 || !args[0].Literal {
		return false
	}
	if cmd.HasFlag("--template", "-u", "--upload-pack", "--separate-git-dir", "--exec", "--ext-diff", "--textconv", "--config") {
		return false
	}
	switch args[0].Value {
	case "clone", "describe", "rev-parse", "rev-list", "log", "status", "init", "fetch", "checkout", "tag", "show-ref":
		return !cmd.HasFlag("-c")
	case "submodule":
		return len(args) > 1 && args[1].Value == "update"
	case "config":
		for _, w := range args[1:] {
			if w.Literal && strings.HasPrefix(w.Value, "-") {
				if w.Value != "--global" && w.Value != "--system" && w.Value != "--add" {
					return false
				}
				continue
			}
			key := strings.Trim(w.Raw, `"'`)
			return strings.HasPrefix(key, "url.") || strings.HasPrefix(key, "user.") || strings.HasPrefix(key, "advice.") || key == "safe.directory"
		}
	}
	return false
}

// named checks the files that a command's words name, and notes those that it makes.
func (r *running) named(cmd script.Command) *crossRefusal {
	name := cmd.Name()
	if (name == "test" || name == "[") && !slices.ContainsFunc(cmd.Args(), func(w script.Word) bool {
		return w.Literal && len(w.Value) == 2 && w.Value[0] == '-' && w.Value != "-n" && w.Value != "-z"
	}) {
		return nil // compares texts
	}
	ops, ok := r.operands(cmd)
	if !ok {
		return r.no("operand", "which files "+name+" works on is not clear", cmd)
	}
	for i, p := range ops {
		if reads := !slices.Contains(makers, name) && (i < len(ops)-1 || !slices.Contains(copiers, name)); reads {
			if refused := r.c.link(r.s, beforeGlob(p), strings.ContainsAny(p, "*?[")); refused != nil {
				return refused
			}
		}
		if !free(p) && !(name == "rm" && disposable(p)) {
			return r.no("system-file", name+" works on "+p+", which belongs to the base image", cmd)
		}
	}
	if dir, ok := r.fills(cmd); ok && !free(dir) {
		return r.no("system-file", name+" writes to "+r.dir+", which belongs to the base image", cmd)
	}
	r.note(cmd, ops)
	return nil
}

// fills is where a command puts files that its words do not name: the current directory, or one file in it.
func (r *running) fills(cmd script.Command) (string, bool) {
	switch cmd.Name() {
	case "tar":
		return r.dir, !cmd.HasFlag("-C", "--directory")
	case "unzip":
		return r.dir, !cmd.HasFlag("-d")
	case "git":
		return path.Join(r.dir, "x"), true
	case "wget":
		return path.Join(r.dir, "x"), !cmd.HasFlag("-O", "-qO", "-O-", "-qO-", "-nvO-")
	case "curl":
		return path.Join(r.dir, "x"), cmd.HasFlag("-O", "--remote-name")
	}
	return "", false
}

// note remembers what a command makes.
func (r *running) note(cmd script.Command, ops []string) {
	add := func(p string, k origin) { r.c.made = append(r.c.made, made{path: p, origin: k}) }
	value := func(flags ...string) (string, bool) {
		w, ok := cmd.Flag(flags...)
		if !ok {
			return "", false
		}
		return r.path(w)
	}
	switch cmd.Name() {
	case "cp", "install", "mv":
		if len(ops) == 0 {
			return
		}
		k, to := copied, ops[len(ops)-1]
		if from := ops[0]; len(ops) == 2 && slices.ContainsFunc(r.c.made, func(m made) bool { return m.origin == file && m.path == from }) {
			k = file
			add(path.Join(to, path.Base(from)), k)
		}
		add(to, k)
	case "curl":
		for _, w := range cmd.Args() { // clustered: -fsSLo FILE
			if w.Literal && len(w.Value) > 2 && w.Value[1] != '-' && strings.HasPrefix(w.Value, "-") && strings.HasSuffix(w.Value, "o") {
				if p, ok := r.path(after(cmd.Args(), w)); ok {
					add(p, file)
				}
			}
		}
		if p, ok := value("-o", "--output"); ok {
			add(p, file)
		}
	case "wget":
		if p, ok := value("-O", "-qO"); ok {
			add(p, file)
		}
	case "tar":
		if p, ok := value("-C", "--directory"); ok {
			add(p, archive)
		} else {
			add(r.dir, archive)
		}
	case "unzip":
		if p, ok := value("-d"); ok {
			add(p, archive)
		} else {
			add(r.dir, archive)
		}
	case "git":
		if args := cmd.Args(); len(args) > 2 && args[0].Value == "clone" && web(args[len(args)-2]) && len(ops) > 0 && !web(args[len(args)-1]) { // clone ... URL DIRECTORY
			add(ops[len(ops)-1], archive)
			return
		}
		add(r.dir, archive)
		for _, p := range ops {
			add(p, archive)
		}
	}
}

func after(args []script.Word, w script.Word) script.Word {
	for i := range args {
		if args[i].Raw == w.Raw && i+1 < len(args) {
			return args[i+1]
		}
	}
	return script.Word{}
}

// operands are the absolute paths of all words that may name files; ok is false if a word may be any.
func (r *running) operands(cmd script.Command) ([]string, bool) {
	var list []string
	for _, w := range cmd.Args() {
		if web(w) {
			continue
		}
		v, ok := w.Expand(r.lookup)
		if !ok {
			if !plainGlob(w.Raw) {
				return nil, false
			}
			v = w.Raw
		}
		if strings.HasPrefix(v, "-") {
			_, v, ok = strings.Cut(v, "=")
			if !ok || !strings.Contains(v, "/") {
				if strings.Contains(w.Raw, "/") {
					return nil, false
				}
				continue
			}
		}
		list = append(list, absolute(r.dir, v))
	}
	return list, true
}

// web reports whether a word is the address of something on the network.
func web(w script.Word) bool {
	raw := strings.TrimLeft(w.Raw, `"'`)
	return strings.HasPrefix(raw, "https://") || strings.HasPrefix(raw, "http://") || strings.HasPrefix(raw, "git@") || strings.HasPrefix(raw, "ssh://")
}

func plainGlob(s string) bool {
	return strings.ContainsAny(s, "*?") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./*?") == ""
}

func (r *running) path(w script.Word) (string, bool) {
	v, ok := w.Expand(r.lookup)
	if !ok || v == "" {
		return "", false
	}
	return absolute(r.dir, v), true
}

func absolute(dir, p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(dir, p)
}
