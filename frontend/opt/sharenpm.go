package opt

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/optbuild/optbuild/frontend/plan"
	"github.com/optbuild/optbuild/frontend/script"
)

// npm ci writes what its lock file says. It is the same for all processors if no package in it is for some of them only, and if nothing is run: neither scripts of
// packages, nor of the project. npm compares cpu, os and libc of a package with the machine, and what it unpacks is compared with the integrity in the lock file.
//
// One thing the lock file need not say: npm runs node-gyp for a package that has a binding.gyp, though its author's tool has not told the registry of an install script. What comes of that
// is machine code, which is looked for in the images (Shared).

// npmCache is where npm keeps what it has fetched, by digest: a cache mount there changes nothing.
const npmCache = "/root/.npm"

// npmFlags may be given to npm ci; others change what is installed, or where.
var npmFlags = []string{
	"--audit", "--audit=false", "--foreground-scripts", "--fund", "--fund=false", "--ignore-scripts", "--include=dev", "--legacy-peer-deps", "--loglevel=error", "--no-audit", "--no-fund", "--no-optional", "--no-progress",
	"--no-update-notifier", "--omit=dev", "--omit=optional", "--omit=peer", "--only=prod", "--only=production", "--prefer-offline", "--prefer-online", "--production", "--production=true", "--progress=false", "--quiet", "--silent", "-q", "-s",
}

// npmSettings may stand in .npmrc: from where packages come, and what is said.
var npmSettings = []string{
	"_auth", "_authToken", "_password", "always-auth", "audit", "email", "engine-strict", "fetch-retries", "fetch-retry-maxtimeout", "fetch-retry-mintimeout", "fetch-timeout", "fund", "legacy-peer-deps", "loglevel", "package-lock", "progress",
	"registry", "save-exact", "save-prefix", "strict-peer-deps", "strict-ssl", "update-notifier", "username",
}

// projectScripts are those of package.json that npm ci runs.
var projectScripts = []string{"dependencies", "install", "postinstall", "postprepare", "preinstall", "prepare", "preprepare", "prepublish"}

// npm checks a command of npm.
func (r *running) npm(cmd script.Command) *crossRefusal {
	name, _ := official(r.c.baseName(), true)
	args := cmd.Args()
	sub := ""
	if len(args) > 0 && args[0].Literal {
		sub = args[0].Value
	}
	switch {
	case name != "node":
		return r.no("program", "of npm it is known only in Docker's official node images what it does", cmd)
	case len(cmd.Wrappers) > 0 || len(cmd.Redirects) > 0 || !cmd.Literal():
		return r.no("word", "what npm is told is not clear", cmd)
	case sub == "cache" && len(args) > 1 && args[1].Value == "clean":
		return nil
	case sub != "ci" && sub != "clean-install":
		return r.no("program", "what npm "+sub+" writes is up to programs and a registry, and may depend on the platform", cmd)
	}
	scripts := true
	for i, a := range args[1:] {
		switch {
		case a.Value == "--ignore-scripts" || a.Value == "--ignore-scripts=true":
			scripts = false
		case slices.Contains(npmFlags, a.Value):
		case a.Value == "--omit" || a.Value == "--only" || a.Value == "--include" || a.Value == "--loglevel":
		case i > 0 && !strings.HasPrefix(a.Value, "-") && slices.Contains([]string{"--omit", "--only", "--include", "--loglevel"}, args[i].Value):
		default:
			return r.no("flag", "of npm ci "+a.Value+" it is not known that it gives the same on every platform", cmd)
		}
	}
	if !free(r.dir) {
		return r.no("system-file", "npm ci works on "+r.dir+", which belongs to the base image", cmd)
	}
	if refused := r.own(cmd, path.Join(r.dir, "x")); refused != nil {
		return refused
	}
	mounts, err := mountsOf(r.c.plan, r.s, r.at)
	if err != nil {
		return r.no("mount", "a mount depends on a value that is not known", cmd)
	}
	for _, m := range mounts {
		if target := absolute(r.at.Dir, m.Target); within(target, r.dir) || within(r.dir, target) {
			return r.no("mount", "what is mounted at "+target+" may be read by npm ci", cmd)
		}
	}
	for _, p := range r.c.written {
		if within(p, r.dir) || within(r.dir, p) {
			return r.no("manifest", "the files that npm ci reads may have been changed above: "+p, cmd)
		}
	}
	return r.locked(cmd, scripts)
}

// locked checks what npm ci reads.
func (r *running) locked(cmd script.Command, scripts bool) *crossRefusal {
	tree, why := r.copied()
	if why != "" {
		return r.no("manifest", why, cmd)
	}
	defer func() {
		if r.c.ask != nil {
			*r.c.ask = append(*r.c.ask, tree.asked...)
		}
	}()
	read := func(name string) (data []byte, from string, why string) {
		from, p, known := tree.Lookup(path.Join(r.dir, name))
		switch {
		case !known:
			return nil, from, "it is not known whether there is a " + name + " in the build context"
		case p.Exists && (p.Data == nil || !p.Mode.IsRegular()):
			return nil, from, "nothing is known of what is in " + from
		}
		return p.Data, from, ""
	}
	found := map[string][]byte{}
	first := ""
	for _, name := range []string{"package.json", ".npmrc", "binding.gyp", "npm-shrinkwrap.json", "package-lock.json"} {
		data, _, why := read(name)
		if why != "" && first == "" {
			first = why
		}
		found[name] = data
	}
	lock, name := found["npm-shrinkwrap.json"], "npm-shrinkwrap.json"
	if lock == nil {
		lock, name = found["package-lock.json"], "package-lock.json"
	}
	switch {
	case r.c.ask != nil: // nothing is known yet, and all was asked for
		return nil
	case first != "":
		return r.no("manifest", first, cmd)
	case lock == nil:
		return r.no("no-lock", "no lock file is among the files that are copied", cmd)
	case found["package.json"] == nil:
		return r.no("manifest", "no package.json is among the files that are copied", cmd)
	case scripts && found["binding.gyp"] != nil:
		return r.no("project-script", "the project has a binding.gyp, which is compiled for the platform", cmd)
	}
	if key := npmrcOther(found[".npmrc"]); key != "" {
		return r.no("npmrc", ".npmrc sets "+key, cmd)
	}
	if why := projectRuns(found["package.json"]); scripts && why != "" {
		return r.no("project-script", why, cmd)
	}
	if why := lockDiffers(lock, scripts); why != "" {
		return r.no("lock", name+": "+why, cmd)
	}
	r.c.locked = true
	return nil
}

// copied is what the COPYs above the step have put into its directory; with a reason, if that is not known.
func (r *running) copied() (*copiedTree, string) {
	tree := &copiedTree{ctx: r.c.facts.Context}
	var chain []*plan.Stage
	for at := r.stage; at != nil; at, _, _ = r.c.plan.Resolve(at, r.c.facts) {
		chain = append(chain, at)
	}
	for _, at := range slices.Backward(chain) {
		states := r.c.plan.Flow(at, r.c.facts)
		for i, s := range at.Steps {
			if s == r.s {
				return tree, ""
			}
			switch s.Cmd.(type) {
			case *instructions.CopyCommand, *instructions.AddCommand:
			default:
				continue
			}
			if c := readCopy(s, i, &states[i], tree.ctx); c != nil {
				tree.copies = append(tree.copies, c)
			} else {
				return tree, fmt.Sprintf("what line %d copies is not followed", s.Lines.First)
			}
		}
	}
	return tree, ""
}

// baseName is the image that the family starts from.
func (c *crossing) baseName() string {
	_, name, _ := c.plan.Resolve(c.root, c.facts)
	return name
}

// npmrcOther is a setting of .npmrc of which it is not known that it is harmless.
func npmrcOther(data []byte) string {
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		name := key[strings.LastIndex(key, ":")+1:] // of //registry.example.com/:_authToken, @scope:registry
		if !slices.Contains(npmSettings, name) {
			return key
		}
	}
	if sc.Err() != nil {
		return "a line that is too long"
	}
	return ""
}

// projectRuns says which script of the project npm ci runs.
func projectRuns(data []byte) string {
	var pkg struct{ Scripts map[string]json.RawMessage }
	if json.Unmarshal(data, &pkg) != nil {
		return "package.json does not parse"
	}
	for _, name := range projectScripts {
		if _, ok := pkg.Scripts[name]; ok {
			return "package.json has a script " + name + ", which npm ci runs (--ignore-scripts would not)"
		}
	}
	return ""
}

// sharedPackage is what a lock file says of one package.
type sharedPackage struct {
	Resolved            string
	Integrity           string
	Link                bool
	InBundle            bool
	Optional            bool
	HasInstallScript    bool
	Gypfile             bool
	CPU, OS, Libc       json.RawMessage
	BundleDependencies  json.RawMessage
	BundledDependencies json.RawMessage
	HasShrinkwrap       bool
}

// lockDiffers says what in a lock file may be something else on another platform, "" if nothing is.
func lockDiffers(data []byte, scripts bool) string {
	var lock struct {
		LockfileVersion int
		Packages        map[string]sharedPackage
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		return "it does not parse"
	}
	if lock.LockfileVersion < 2 || lock.LockfileVersion > 3 || lock.Packages == nil {
		return "lockfileVersion is not 2 or 3, so it does not say which packages differ"
	}
	for _, name := range slices.Sorted(maps.Keys(lock.Packages)) {
		p := lock.Packages[name]
		short := name
		if i := strings.LastIndex(name, "node_modules/"); i >= 0 {
			short = name[i+len("node_modules/"):]
		}
		switch {
		case name == "":
			if scripts && p.HasInstallScript {
				return "the project has an install script"
			}
		case p.Optional && neverOnLinux(p.OS): // it is installed nowhere
		case p.Link || !strings.HasPrefix(name, "node_modules/"):
			return name + " is a directory of the project, whose scripts may run"
		case p.CPU != nil:
			return short + " is for some processors only (cpu)"
		case p.OS != nil:
			return short + " is for some systems only (os)"
		case p.Libc != nil:
			return short + " is for some C libraries only (libc)"
		case scripts && (p.HasInstallScript || p.Gypfile):
			return short + " runs a script when it is installed (--ignore-scripts would not run it)"
		case p.InBundle || p.HasShrinkwrap || p.BundleDependencies != nil || p.BundledDependencies != nil:
			return short + " brings packages of its own, of which it is not known what they run"
		case p.Resolved != "" && !strings.HasPrefix(p.Resolved, "https://") && !strings.HasPrefix(p.Resolved, "http://"):
			return short + " does not come from a registry"
		case p.Integrity == "":
			return short + " has no integrity"
		}
	}
	return ""
}

// neverOnLinux reports whether a package is for other systems only.
func neverOnLinux(os json.RawMessage) bool {
	var list []string
	if json.Unmarshal(os, &list) != nil || len(list) == 0 {
		return false
	}
	return !slices.ContainsFunc(list, func(s string) bool { return s == "linux" || s == "any" || strings.HasPrefix(s, "!") })
}
