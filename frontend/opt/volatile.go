package opt

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
)

// Which variables change from build to build? The rule:
//
//   - A name that says which build or which source this is (identity), or says so of nothing in particular (generic: VERSION, COMMIT, DATE).
//   - An ARG whose value, given on the command line, looks like a commit or a date. One that stands in the Dockerfile changes with the Dockerfile.
//   - An ARG without a value of its own that only LABEL and ENV read: it can have no other purpose than to say something about the image.
//
// The last two hold for names with an underscore only, since short ones (TAPE, GZIP, CI) are what programs like to look at; and none of
// it holds for a name that programs do read (known), for a secret, and for one that is there to make steps run again (buster).
var (
	identity = lazily(`^(.+_)?(` +
		`(GIT|VCS|SCM|SOURCE|SRC)_?(COMMIT|SHA1?|HASH|REV|REVISION|REF|BRANCH|TAG|DESCRIBE|DIRTY|STATE|TREE_STATE|VERSION)(_(SHA1?|HASH|ID|SHORT|LONG|FULL|DATE|TIME|NAME|TAG))?` +
		`|(GIT_)?(SHORT|LONG|FULL)_?(SHA1?|COMMIT|HASH)` +
		`|BUILD_?(DATE|TIME|TIMESTAMP|NUMBER|NUM|NO|ID|TAG|REF|SHA1?|COMMIT|HASH|REVISION|VERSION|URL|COUNTER|VCS_NUMBER|BUILDID|BUILDNUMBER)` +
		`|COMMIT_?(SHA1?|HASH|ID|REF|DATE|TIME|TIMESTAMP|SHORT_SHA|BRANCH|TAG)` +
		`|CI_(COMMIT|PIPELINE|JOB|BUILD)_[A-Z_]+` +
		`|GITHUB_(SHA|REF|REF_NAME|RUN_ID|RUN_NUMBER|RUN_ATTEMPT)` +
		`|(CIRCLE|DRONE|TRAVIS|BUILDKITE|BITBUCKET|SEMAPHORE)_(SHA1|COMMIT|COMMIT_SHA|BUILD_NUM|BUILD_NUMBER|BUILD_ID|TAG|BRANCH)` +
		`|(APP|APPLICATION|IMAGE|PROJECT|SERVICE|PACKAGE|RELEASE|PRODUCT)_(VERSION|REVISION|COMMIT|BUILD|DATE|TIMESTAMP|TAG)` +
		`|(SENTRY|DD)_(RELEASE|VERSION)|RELEASE_(ID|NAME)` +
		`)$`)
	generic = lazily(`^(VERSION|REVISION|COMMIT|SHA|TAG|BRANCH|RELEASE|BUILD|DATE|TIMESTAMP|CREATED|BUILDDATE|BUILDTIME|.+_(COMMIT|REVISION|TIMESTAMP))$`)

	buster = lazily(`CACHE|BUST|INVALID|REFRESH|REBUILD|FORCE|RELOAD|RERUN|UPGRADE|UPDATE`)
	secret = lazily(`TOKEN|PASSW|SECRET|_KEY$|CREDENTIAL|_PWD$|_PASS$|AUTH`)

	// known are variables that programs of the table (steady) look at, the C library, the shells and the interpreters that they are written
	// in included, and for good measure those of the tools that Dockerfiles run otherwise.
	known = lazily(`^(` + strings.Join(strings.Fields(`
		PATH HOME USER LOGNAME SHELL PWD OLDPWD MAIL TERM TERMINFO.* COLUMNS LINES LANG LANGUAGE TZ TZDIR CHARSET TMPDIR TMP TEMP ENV IFS PS[0-4] OPTIND CDPATH
		LC_.* LD_.* DYLD_.* BASH.* NLSPATH LOCPATH GCONV_PATH HOSTALIASES RES_OPTIONS LOCALDOMAIN MALLOC_.* GLIBC_.* POSIX.* _POSIX.* OMP_.*
		CC CXX CPP LD AR AS NM RANLIB STRIP FC F77 ARCH CPATH CPPFLAGS .*FLAGS .*_PROXY NO_PROXY .*_OPTS .*_OPTIONS .*_PATH .*_HOME .*_DIR .*_ROOT .*_CONFIG .*_PRELOAD
		TAPE GZIP BZIP2? UNZIP.* ZIP.* XZ_.* ZSTD_.* TAR_.* BLOCK_?SIZE DF_.* DU_.* LS_.* GREP_.* QUOTING_STYLE TIME_STYLE TABSIZE VERSION_CONTROL SIMPLE_BACKUP_SUFFIX COLS
		NETRC WGET.* CURL_.* SSL.* OPENSSL_.* HTTP.* FTP.* KRB5.* SSH.* GPG_.* GNUPG.* XDG_.* DISPLAY EDITOR VISUAL PAGER LESS.* NO_COLOR .*FORCE_COLOR CLICOLOR.* CI DEBUG VERBOSE
		APT_.* APK_.* DPKG_.* DEB_.* DEBCONF_.* DEBIAN_.* UCF_.* RPM_.* DNF_.* YUM_.* ZYPP_.* RUNLEVEL PREVLEVEL SYSTEMD_.* DBUS_.* SELINUX.* INITRD ACCEPT_.* FAKE.* SUDO_.* NEEDRESTART_.*
		PERL.* PYTHON.* PIP_.* PIPENV_.* POETRY_.* UV_.* VIRTUAL_.* CONDA.* SETUPTOOLS_.* NODE_.* NPM_.* YARN_.* COREPACK_.* PNPM_.* BUN_.* DENO_.* GO[A-Z0-9_]* CGO_.* GCC.* RUST.* CARGO_.* JAVA.* JDK_.*
		MAVEN_.* MVN_.* M2.* GRADLE_.* KOTLIN.* DOTNET_.* NUGET_.* MSBUILD.* COMPOSER_.* PHP.* RUBY.* GEM_.* BUNDLER?_.* CMAKE.* MAKE.* PKG_CONFIG.* LIBRARY_.* C_INCLUDE.* CPLUS_.* ACLOCAL.* AUTO.*
		SOURCE_DATE_EPOCH DESTDIR PREFIX BUILDKIT_.* DOCKER_.* TARGET(PLATFORM|OS|OSVERSION|ARCH|VARIANT|STAGE) BUILD(PLATFORM|OS|OSVERSION|ARCH|VARIANT) QEMU_.*
		GIT_(AUTHOR|COMMITTER|CONFIG|SSH|SSL|TRACE|HTTP|PROXY|REDIRECT|DIFF|MERGE|SKIP|ATTR|NO|DEFAULT|REF_PARANOIA|ALLOW|PROTOCOL|CURL|TEST).* EMAIL
	`), "|") + `)$`)

	commitOrDate = lazily(`^(v?[0-9.]+-[0-9]+-g)?[0-9a-f]{7,64}(-dirty)?$|^[0-9]{4}-?[0-9]{2}-?[0-9]{2}([T_ -].*)?$|^1[0-9]{9}([0-9]{3})?$`)
	place        = lazily(`_(URL|URI|HOST|HOSTNAME|PORT|SERVER|REGISTRY|MIRROR|REPO|REPOSITORY|INDEX|USER|USERNAME|UID|GID|LEVEL|MODE|ENV|ENVIRONMENT|LOCALE|FILE)$`)
)

// lazily compiles a pattern when it is first asked for: most builds have no use for some of these, and each build would pay.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// leftAlone reports whether a variable must stay where it is, whatever reads it.
func leftAlone(name string) bool {
	upper := strings.ToUpper(name)
	return known().MatchString(upper) || secret().MatchString(upper) || buster().MatchString(upper) || strings.Contains(name, "$")
}

// distinct reports whether a name says which build this is so clearly that no package's install script means something else by it.
func distinct(name string) bool { return identity().MatchString(strings.ToUpper(name)) }

// changing reports whether the step declares a variable that changes from build to build.
func changing(w *Work, st *plan.Stage, i int) bool {
	names := declares(st.Steps[i])
	found := false
	for _, name := range names {
		if leftAlone(name) {
			return false
		}
		upper := strings.ToUpper(name)
		found = found || identity().MatchString(upper) || generic().MatchString(upper)
	}
	arg, ok := st.Steps[i].Cmd.(*instructions.ArgCommand)
	if found || !ok || len(names) != 1 || !strings.Contains(names[0], "_") || place().MatchString(strings.ToUpper(names[0])) {
		return found
	}
	if given := w.Facts.BuildArgs[names[0]]; commitOrDate().MatchString(given) {
		return true
	}
	return arg.Args[0].Value == nil && !hasDefault(w.Plan, names[0]) && forMetadata(w, st, i, names[0])
}

// declares are the variables that an ARG or ENV sets.
func declares(s *plan.Step) (names []string) {
	switch c := s.Cmd.(type) {
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			names = append(names, a.Key)
		}
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			names = append(names, kv.Key)
		}
	}
	return names
}

// hasDefault reports whether an ARG above the first FROM gives the name a value.
func hasDefault(p *plan.Plan, name string) bool {
	for _, s := range p.Args {
		for _, a := range s.Cmd.(*instructions.ArgCommand).Args {
			if a.Key == name && a.Value != nil {
				return true
			}
		}
	}
	return false
}

// forMetadata reports whether LABEL and ENV, and nothing else, read the variable in the steps that see it.
func forMetadata(w *Work, st *plan.Stage, i int, name string) bool {
	found := false
	for _, s := range seenBy(w, st, i) {
		if !mentions(s, name) {
			continue
		}
		switch s.Cmd.(type) {
		case *instructions.LabelCommand, *instructions.EnvCommand:
			found = true
		default:
			return false
		}
	}
	return found
}

// seenBy are the steps that start with what step i sets: those below it, and those of the stages that build on the stage or may do so.
func seenBy(w *Work, st *plan.Stage, i int) []*plan.Step {
	list := slices.Clone(st.Steps[i+1:])
	on := map[*plan.Stage]bool{st: true}
	for _, t := range w.Plan.Stages[slices.Index(w.Plan.Stages, st)+1:] {
		if base, _, ok := w.Plan.Resolve(t, w.Facts); !ok || on[base] {
			on[t] = true
			list = append(list, t.Steps...)
		}
	}
	return list
}
