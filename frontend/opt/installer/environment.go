package installer

import (
	"path"
	"slices"
	"strings"
)

// everyone are variables that tell any program which files to read. PATH and HOME are looked at on their own.
var everyone = []string{"LD_*", "BASH_ENV", "ENV", "XDG_*", "TMPDIR", "SSL_CERT_*", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"}

// plain values name no file: numbers, switches, addresses, flags for memory.
var plain = lazily(`^(|[0-9.,]+[kKmMgG]?|[Tt]rue|[Ff]alse|TRUE|FALSE|yes|no|on|off|https?://\S*|production|development|test|ci|error|warn|info|silent|verbose|([ ]?(--max[-_]old[-_]space[-_]size=[0-9]+|-Xm[sx][0-9]+[kKmMgG]))+)$`)

// environment refuses variables by which the installer may be told to read or write among the copied files. A row's variables are patterns:
// "npm_config_*" for those that matter, "!NODE_VERSION" for those of them that name no files.
func (p *project) environment(variables []string) {
	for _, a := range p.command.Assigns {
		if !a.Value.Literal {
			p.refuse("environment", "the value of %s is not known", a.Name)
			continue
		}
		p.env[a.Name] = a.Value.Value
		p.variable(a.Name, a.Value.Value, true, false, variables)
	}
	for _, v := range p.state.Env {
		if _, ok := p.env[v.Name]; !ok {
			p.variable(v.Name, v.Value, v.Known, v.Step == 0 && !v.Arg, variables)
		}
	}
}

// variable looks at one. Of a base image, a variable is known without its value only if it is an official one: those name no files of a project.
func (p *project) variable(name, value string, known, base bool, variables []string) {
	switch {
	case base && !known:
		return
	case name == "PATH":
		p.searchPath(value, known)
		return
	case name == "HOME":
		if !known || !path.IsAbs(value) {
			p.refuse("environment", "HOME, with the installer's own files, is not known")
		}
		return
	case !matchAny(name, everyone) && !matchAny(name, variables), exempt(name, variables):
		return
	case !known:
		p.refuse("environment", "%s, which %s reads, has a value that is not known", name, p.name)
		return
	case plain().MatchString(value):
		return
	}
	for _, part := range strings.Split(value, ":") {
		if !path.IsAbs(part) && !strings.HasPrefix(value, "http") || !p.outside(part) && (strings.HasPrefix(name, "PYTHONPATH") || p.copied(part)) {
			p.refuse("environment", "%s=%s may make %s read other files", name, value, p.name)
		}
	}
}

// copied reports whether a path is the destination of a COPY or one of the copied files.
func (p *project) copied(name string) bool {
	return slices.ContainsFunc(p.files.Roots(), func(c Root) bool { return inside(c.Dir, path.Clean(name)) }) || p.exists(path.Clean(name))
}

func (p *project) searchPath(value string, known bool) {
	if !known {
		p.refuse("environment", "PATH is not known")
	}
	for _, dir := range strings.Split(value, ":") {
		if !path.IsAbs(dir) || p.copied(dir) {
			p.refuse("environment", "PATH has %q, among the copied files", dir)
		}
	}
}

// value is what the installer finds in its environment.
func (p *project) value(name string) string {
	if v, ok := p.env[name]; ok {
		return v
	}
	v, _, _ := p.state.Lookup(name)
	return v.Value
}

func matchAny(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
}

func exempt(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return pattern == "!"+name })
}
