// Package installer knows commands that install what manifests name, and which files they read while they do.
//
// A RUN's commands come in one by one (Read). For those of the table, Examine looks at the files that COPY instructions put into the container
// (Files) and says which of them the command reads: the manifests. Or it refuses: a manifest, a flag or a variable makes the command look at more than that, or
// something about them is not known.
//
// Terms: a *project* is the directory in which the command runs; a *manifest* is a file that decides what is installed; a *lock file* is one that the
// installer may write as well. The package does no I/O. It refuses to know commands that read sources (go build, pip install .): those are no installers.
package installer

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// installer is a row of the table of commands that are known to read nothing of the files around them but their manifests.
//
// What a row says is about the command as it is documented. Where the behaviour depends on the manifests, on flags or on variables, examine reads
// them and refuses what it does not know: a row never guesses.
type installer struct {
	name      string   // for people; "" for a command that installs nothing and only has to do no harm
	calls     []string // first words; a last word "-" says that flags, or nothing, follow
	matcher   func(words []string) bool
	looks     []string // paths relative to the project, or patterns of them, at which examine looks; none if it reads no manifests
	variables []string // environment variables that matter, see project.environment
	examine   func(*project)
}

func (in *installer) matches(words []string) bool {
	if in.matcher != nil {
		return in.matcher(words)
	}
	return slices.ContainsFunc(in.calls, func(call string) bool {
		want := strings.Fields(call)
		if n := len(want) - 1; want[n] == "-" {
			return len(words) >= n && slices.Equal(words[:n], want[:n]) && (len(words) == n || strings.HasPrefix(words[n], "-"))
		}
		return len(words) >= len(want) && slices.Equal(words[:len(want)], want)
	})
}

// installers is the table. The first row that matches counts.
var installers = slices.Concat(nodeInstallers, pythonInstallers, goInstallers, cargoInstallers, rubyInstallers, phpInstallers, mavenInstallers, gradleInstallers,
	dotnetInstallers, systemInstallers)

// MayInstall is a cheap test for the name of a program of the table.
func MayInstall(text string) bool { return programNames().MatchString(text) }

var programNames = lazily(`\b(npm|yarn|pnpm|bun|pip[0-9.]*|poetry|uv|pipenv|go|cargo|bundle|bundler|gem|composer|mvnw?|gradlew?|dotnet|apt|apt-get|apk|dnf|microdnf|yum)\b`)

// IsManifestPattern reports whether a pattern of COPY is one for manifests: package*.json, requirements*.txt, go.*.
func IsManifestPattern(pattern string) bool {
	if strings.HasPrefix(pattern, "*") && path.Ext(pattern) == "" {
		return false
	}
	return slices.ContainsFunc(manifestNames, func(name string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// IsManifest reports whether a file of that name is a manifest, whatever it holds.
func IsManifest(name string) bool { return slices.Contains(manifestNames, name) }

var manifestNames = []string{
	"package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "pnpm-workspace.yaml", "bun.lock", "bun.lockb", ".npmrc",
	"requirements.txt", "requirements-dev.txt", "pyproject.toml", "poetry.lock", "uv.lock", "Pipfile", "Pipfile.lock", "go.mod", "go.sum", "Cargo.toml",
	"Cargo.lock", "Gemfile", "Gemfile.lock", "composer.json", "composer.lock", "pom.xml", "build.gradle", "build.gradle.kts", "settings.gradle",
	"settings.gradle.kts", "app.csproj", "app.fsproj", "app.sln",
}

// lazily compiles a pattern when it is first asked for: most commands have no use for it, and every one would pay, the engine's process too.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
