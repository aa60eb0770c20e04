package opt

import (
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/script"
)

// reading is which variables a program reads from its environment.
type reading int

const (
	anything reading = iota // it runs code that nobody has seen, or is not in the table
	scripts                 // those that its documentation names (known), and what install scripts of published packages read
	named                   // those that its documentation names
)

// steady is the table of programs that read no variable but those that are documented. The value is asked for each call: a program
// that can be told to run another one is steady only if it was not.
//
// Not in it, on purpose: interpreters and build tools that evaluate what the project wrote (sh file, make, cmake, npm run, python,
// node, mvn and gradle, whose build files read ${env.X}; dotnet, where each variable is a property; cargo build, whose build.rs and env!() read
// any; pip without --only-binary, whose setup.py does; yarn and pnpm, which load plugins of the project); awk, perl, xargs, eval, source, trap.
var steady = map[string]func(script.Command) reading{
	// The go command keys its own cache by the variables that it reads: GO*, CGO_*, CC ... Tests, generators and what `go run` runs may read any.
	"go": func(c script.Command) reading {
		if c.HasFlag("-toolexec", "--toolexec", "-exec", "--exec", "-vettool") {
			return anything
		}
		for _, sub := range [][]string{{"build"}, {"install"}, {"list"}, {"version"}, {"vet"}, {"clean"}, {"get"}, {"mod", "download"}, {"mod", "verify"}, {"mod", "tidy"}, {"mod", "vendor"}} {
			if c.Is("go", sub...) {
				return named
			}
		}
		return anything
	},
	"apt-get": apt, "apt": apt,
	"apk": func(c script.Command) reading {
		if c.HasFlag("--allow-untrusted", "-X", "--repository", "--repositories-file") {
			return anything
		}
		return install(c, []string{"add", "upgrade", "fix", "del"}, []string{"update", "cache", "info", "list", "search"}, "-t", "--virtual")
	},
	"dnf": dnf, "yum": dnf, "microdnf": dnf, "tdnf": dnf,
	"dpkg": func(c script.Command) reading {
		if c.HasFlag("--add-architecture", "--print-architecture", "-l", "-L", "-s", "-S", "--list", "--status") {
			return named
		}
		return anything
	},
	"update-ca-certificates": installed, "locale-gen": installed, "ldconfig": always, "localedef": always,
	"npm": func(c script.Command) reading {
		switch {
		case c.Is("npm", "cache"):
			return named
		case (c.Is("npm", "ci") || c.Is("npm", "install") || c.Is("npm", "i")) && !c.HasFlag("-g", "--global"):
			if v, ok := c.Flag("--ignore-scripts"); c.HasFlag("--ignore-scripts") && c.Literal() && (!ok || v.Value != "false") {
				return scripts // .npmrc may name a variable, as install scripts may
			}
		}
		return anything
	},
	"pip": pip, "pip3": pip,
	"git": func(c script.Command) reading {
		if c.Is("git", "clone") && c.Literal() && !c.HasFlag("-c", "--config", "--template", "-u", "--upload-pack") &&
			!slices.ContainsFunc(c.Args(), func(w script.Word) bool { return strings.Contains(w.Value, "::") }) { // ext::program
			return scripts
		}
		return anything
	},
	"curl": without("-K", "--config", "--variable", "--expand-url", "--expand-output", "--expand-data", "--expand-header"),
	"wget": without("--use-askpass", "-e", "--execute", "--config"),
	"tar": func(c script.Command) reading {
		if args := c.Args(); len(args) > 0 && strings.ContainsAny(args[0].Value, "IF") { // tar xIf
			return anything
		}
		return without("-I", "--use-compress-program", "--to-command", "--checkpoint-action", "--rsh-command", "-F", "--info-script", "--new-volume-script", "--rmt-command")(c)
	},
	"find":    without("-exec", "-execdir", "-ok", "-okdir"),
	"sort":    without("--compress-program"),
	"split":   without("--filter"),
	"install": without("-s", "--strip", "--strip-program"),
	"zip":     without("-T", "-TT", "--unzip-command"),
	"sed":     sed,
	"openssl": without("-engine", "-provider"),
}

// simple are the rest of the table: no call of theirs runs another program.
var simple = strings.Fields(`
		[ [[ (( : addgroup adduser base32 base64 basename break bunzip2 bzcat bzip2 cat cd chgrp chmod chown chpasswd chsh cksum cmp comm continue cp cut
		date dd delgroup deluser df diff dirname du echo egrep exit expand export expr factor false fgrep file fmt fold getcap getent
		grep groupadd groupdel groupmod gunzip gzip head hostid id join link let ln local ls md5sum mkdir mkfifo mknod mktemp mv nl nproc numfmt od passwd paste pathchk
		pr printf pwd read readlink readonly realpath return rm rmdir seq set setcap sha1sum sha224sum sha256sum sha384sum sha512sum shift shred shuf
		sleep stat strings sum sync tac tail tee test touch tr true truncate tsort tty type ulimit umask uname unexpand uniq unlink unset unxz unzip unzstd
		update-alternatives useradd userdel usermod wait wc which who whoami xz xzcat yes zcat zstd apt-cache apt-mark dpkg-query`)

// readingOf looks a call up in the table.
func readingOf(c script.Command) reading {
	if slices.Contains(simple, c.Name()) {
		return named
	}
	if f := steady[c.Name()]; f != nil {
		return f(c)
	}
	return anything
}

func always(script.Command) reading    { return named }
func installed(script.Command) reading { return scripts }

// without is steady unless one of the flags is given, or may be.
func without(flags ...string) func(script.Command) reading {
	return func(c script.Command) reading {
		if c.HasFlag(flags...) || slices.ContainsFunc(c.Args(), couldBeFlag) {
			return anything
		}
		for _, w := range c.Args() {
			name, _, _ := strings.Cut(w.Value, "=")
			for _, f := range flags {
				// --to-com for --to-command, -I/bin/x for -I /bin/x
				if len(name) > 2 && strings.HasPrefix(name, "--") && strings.HasPrefix(f, name) || len(f) == 2 && strings.HasPrefix(name, f) {
					return anything
				}
			}
		}
		return named
	}
}

// couldBeFlag: the word's first byte is not known.
func couldBeFlag(w script.Word) bool {
	return !w.Literal && (w.Raw == "" || strings.ContainsAny(w.Raw[:1], "$`\"'*?[{-"))
}

// install sorts the calls of a package manager: those that run the install scripts of the packages named, and those that run nothing.
func install(c script.Command, running, quiet []string, valued ...string) reading {
	words := c.Operands(valued...)
	if len(words) == 0 || !words[0].Literal {
		return anything
	}
	if slices.Contains(quiet, words[0].Value) {
		return named
	}
	if !slices.Contains(running, words[0].Value) {
		return anything
	}
	for _, w := range words[1:] {
		if !w.Literal || !published().MatchString(w.Value) || local().MatchString(w.Value) {
			return anything
		}
	}
	return scripts
}

var (
	published = lazily(`^\.?[A-Za-z0-9@][A-Za-z0-9@+.:_~=<>*/\[\]^,-]*$`) // a package's name and version
	local     = lazily(`://|\.(deb|rpm|apk|whl|zip|gz|tgz|bz2|xz)$|(^|/)\.\.?(/|$)`)
	aptOption = lazily(`(?i)^(Acquire::[a-z:]+|APT::Get::[a-z-]+|APT::Install-(Recommends|Suggests)|Dpkg::Use-Pty|Dpkg::Options::|Dpkg::Progress-Fancy)=[A-Za-z0-9-]*$`)
)

func apt(c script.Command) reading {
	valued := []string{"-o", "--option", "-t", "--target-release", "--default-release", "-c", "--config-file"}
	args := c.Args()
	for i, w := range args {
		if w.Literal && slices.Contains([]string{"-o", "--option"}, w.Value) {
			if i+1 == len(args) || !args[i+1].Literal || !aptOption().MatchString(args[i+1].Value) {
				return anything
			}
			continue
		}
		if w.Literal && (strings.HasPrefix(w.Value, "-o") || strings.HasPrefix(w.Value, "-c") || strings.HasPrefix(w.Value, "--c") || strings.HasPrefix(w.Value, "--option=")) {
			return anything
		}
	}
	return install(c, []string{"install", "upgrade", "dist-upgrade", "full-upgrade", "remove", "purge", "autoremove", "reinstall"},
		[]string{"update", "clean", "autoclean", "distclean", "download", "list", "search", "show"}, valued...)
}

func dnf(c script.Command) reading {
	if c.HasFlag("-c", "--config", "--repofrompath", "--setopt", "--installroot") {
		return anything
	}
	return install(c, []string{"install", "update", "upgrade", "remove", "erase", "autoremove", "groupinstall", "module", "swap", "reinstall"},
		[]string{"clean", "makecache", "list", "info", "search", "check-update", "repolist"}, "--enablerepo", "--disablerepo", "-x", "--exclude", "--releasever")
}

// pip runs no code of a wheel while it installs it. Anything else may have a setup.py: sources, directories, and a list of them, unless hashes are
// asked for, which directories have none of.
func pip(c script.Command) reading {
	if c.Is(c.Name(), "cache") {
		return named
	}
	only, _ := c.Flag("--only-binary")
	if !c.Is(c.Name(), "install") || only.Value != ":all:" || c.HasFlag("-e", "--editable", "--no-binary", "--config-settings") {
		return anything
	}
	valued := []string{"--only-binary", "-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-t", "--target", "--python-version", "--platform", "--prefix"}
	for _, w := range c.Operands(valued...)[1:] {
		if !w.Literal || !published().MatchString(w.Value) || local().MatchString(w.Value) || strings.ContainsAny(w.Value, "/@") {
			return anything
		}
	}
	if c.HasFlag("-r", "--requirement") && !c.HasFlag("--require-hashes") {
		return anything
	}
	if c.HasFlag("-r", "--requirement", "-c", "--constraint") { // what is written there may name a variable: ${X}
		return scripts
	}
	return named
}

// sed can run commands, so its scripts have to be one substitution each without the flags that do.
func sed(c script.Command) reading {
	args, scripts := c.Args(), 0
	for i, w := range args {
		switch {
		case couldBeFlag(w) && (scripts == 0 || i == 0):
			return anything
		case !w.Literal || w.Value == "":
		case w.Value == "-e" && i+1 < len(args):
			if !args[i+1].Literal || !substitution(args[i+1].Value) {
				return anything
			}
			scripts++
		case w.Value[0] == '-' && !slices.Contains([]string{"-n", "-i", "-E", "-r", "-i.bak", "-ri", "-Ei", "-i.orig", "-u", "-z"}, w.Value):
			return anything
		case w.Value[0] != '-' && scripts == 0:
			if !substitution(w.Value) {
				return anything
			}
			scripts++
		}
	}
	return named
}

// substitution reports whether a script of sed is nothing but s/regexp/text/ with harmless flags.
func substitution(text string) bool {
	if len(text) < 4 || text[0] != 's' || strings.ContainsRune(text, '\n') {
		return false
	}
	delimiter, parts := text[1], 1
	for i := 2; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case delimiter:
			if parts++; parts == 3 {
				return strings.Trim(text[i+1:], "gpIiMm0123456789") == ""
			}
		}
	}
	return false
}
