package installer

import (
	"regexp"
	"slices"
	"strings"
)

var rubyVariables = []string{
	"BUNDLE_*", "RUBY*", "GEM_*", "BUNDLER_*", "!RUBY_VERSION", "!BUNDLE_WITHOUT", "!BUNDLE_WITH", "!BUNDLE_ONLY", "!RUBY_DOWNLOAD_SHA256", "!RUBY_DOWNLOAD_URL", "!BUNDLER_VERSION", "!BUNDLE_JOBS",
	"!RUBY_MAJOR",
}

var rubyFiles = []string{"Gemfile", "Gemfile.lock", "gems.rb", ".bundle", ".bundle/config", ".ruby-version", ".tool-versions", "mise.toml", "vendor/bundle", "vendor/cache"}

var rubyInstallers = []installer{
	{name: "bundle install", calls: []string{"bundle install", "bundle -", "bundler install"}, looks: rubyFiles, variables: rubyVariables, examine: bundle},
	{calls: []string{"bundle config"}, looks: rubyFiles, variables: rubyVariables, examine: bundleConfig},
	{name: "gem install", calls: []string{"gem install"}, variables: rubyVariables, examine: gemInstall},
}

// bundle reads the Gemfile, which is a program: only one that is nothing but a list is followed.
func bundle(p *project) {
	n := 2
	if len(p.words) > 1 && p.words[1] != "install" || len(p.words) == 1 {
		n = 1
	}
	flags, operands := p.flags(n, "--deployment --frozen --no-cache --quiet --no-prune --clean --system --verbose --prefer-local", "--jobs -j --retry --without --with --path")
	if len(operands) > 0 {
		operands = slices.DeleteFunc(operands, func(o string) bool { return len(flags["--without"]) > 0 && !strings.ContainsAny(o, "./") })
		if len(operands) > 0 {
			p.refuse("unknown-argument", "bundle install takes no operands")
		}
	}
	data := p.need("Gemfile")
	if data == nil {
		return
	}
	p.gemfile(string(data))
	p.add(".ruby-version", ".tool-versions", "mise.toml")
	p.absent("bundle-config", "holds settings of the project", ".bundle", "gems.rb")
	p.absent("overlap", "is where gems are kept", "vendor/cache", "vendor/bundle")
	p.notAbove("Gemfile", ".bundle", "gems.rb")
	if lock := string(p.read("Gemfile.lock")); lock != "" {
		if strings.Contains(lock, "\nPATH\n") || strings.HasPrefix(lock, "PATH\n") {
			p.refuse("local-dependency", "Gemfile.lock has a gem in a directory of the project")
		}
		frozen := has(flags, "--deployment", "--frozen")
		for _, name := range []string{"BUNDLE_FROZEN", "BUNDLE_DEPLOYMENT"} {
			frozen = frozen || slices.Contains([]string{"1", "true"}, p.value(name))
		}
		if !frozen {
			p.refuse("lock-may-change", "it may change Gemfile.lock; with BUNDLE_FROZEN=1 or BUNDLE_DEPLOYMENT=1 it does not")
		}
	}
}

// gemLines are the statements of a Gemfile that do nothing but name gems.
var gemLines = []func() *regexp.Regexp{
	lazily(`^source\s*\(?["'][^"'#]+["']\)?( do)?$`),
	lazily(`^ruby\s*\(?(["'][^"'#]+["'],?\s*)+\)?$`),
	lazily(`^ruby\s*\(?file:\s*["']\.ruby-version["']\)?$`),
	lazily(`^gem\s*\(?["'][^"'#]+["'](\s*,\s*[^#{}()` + "`" + `]*)?\)?$`),
	lazily(`^(group|platforms?)\s*\(?(:\w+(,\s*)?)+\)? do$`),
	lazily(`^end$`),
	lazily(`^git_source\(:\w+\)\s*(do|\{) ?\|\w+\| ?["']https://[\w./#{}]+["']\s*(end|\})$`),
}

var gemPath = lazily(`\b(path|gemspec|glob|File|Dir|ENV|IO|eval\w*|require_relative|load|instance_eval|__dir__|__FILE__|system|exec)\b\s*(:|=>|\(|\.|\[|"|'|$)`)

func (p *project) gemfile(text string) {
	statement := ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if i := strings.Index(line, " #"); i >= 0 {
			line = strings.TrimSpace(line[:i])
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		statement = strings.TrimSpace(statement + " " + line)
		if strings.HasSuffix(line, ",") {
			continue
		}
		if gemPath().MatchString(statement) || !slices.ContainsFunc(gemLines, func(r func() *regexp.Regexp) bool { return r().MatchString(statement) }) {
			p.refuse("gemfile-code", "the Gemfile has %q, which may read other files", statement)
		}
		statement = ""
	}
}

// bundleConfig sets values in .bundle/config of the project, or in the home directory.
func bundleConfig(p *project) {
	_, operands := p.flags(2, "--local --global --delete", "")
	if len(operands) < 2 || operands[0] != "set" && !slices.Contains([]string{"without", "deployment", "frozen", "jobs"}, operands[0]) {
		p.refuse("unknown-argument", "bundle config %s is not known to leave other files alone", strings.Join(operands, " "))
	}
	for _, o := range operands {
		if strings.ContainsAny(o, "/.") || o == "path" || o == "gemfile" {
			p.refuse("unknown-argument", "bundle config sets %s, which may be among the copied files", o)
		}
	}
	p.absent("bundle-config", "is in the context and is changed", ".bundle")
	p.add("Gemfile", "Gemfile.lock")
}

func gemInstall(p *project) {
	_, operands := p.flags(2, "--no-document -N --no-doc --no-ri --no-rdoc --conservative --quiet -q --force -f", "-v --version --source -s --platform")
	for _, o := range operands {
		if strings.ContainsAny(o, "/") || strings.HasSuffix(o, ".gem") {
			p.refuse("local-dependency", "%s may be one of the copied files", o)
		}
		if p.exists(o + ".gem") {
			p.refuse("local-dependency", "%s.gem is one of the copied files", o)
		}
	}
	names, ok := p.files.List(p.dir)
	if !ok {
		p.refuse("context-unknown", "gem looks for .gem files in the working directory, and it is not known which files the context has")
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".gem") {
			p.refuse("local-dependency", "gem install looks at %s", name)
		}
	}
}
