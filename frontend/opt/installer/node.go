package installer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var nodeVariables = []string{
	"NODE_*", "npm_*", "NPM_*", "YARN_*", "PNPM_*", "BUN_*", "COREPACK_*", "pnpm_*", "!NODE_VERSION", "!YARN_VERSION", "!NPM_TOKEN", "!NODE_AUTH_TOKEN",
	"!NPM_VERSION", "!PNPM_VERSION", "!BUN_VERSION", "!NPM_CONFIG_LOGLEVEL", "!npm_config_loglevel", "!YARN_NPM_AUTH_TOKEN",
}

// nodeFiles are looked at by all of Node's package managers. Version files are for version managers that stand in for the program.
var nodeFiles = []string{
	"package.json", ".npmrc", ".node-version", ".tool-versions", "mise.toml", ".nvmrc", "node_modules", "binding.gyp", "package-lock.json", "npm-shrinkwrap.json",
	"yarn.lock", "pnpm-lock.yaml", "pnpm-workspace.yaml", ".pnpmfile.cjs", ".pnpmfile.mjs", "pnpmfile.js", "bun.lock", "bun.lockb", "bunfig.toml", ".yarnrc", ".yarnrc.yml", ".yarn",
	".yarn/patches", ".yarn/plugins", ".yarn/cache", ".yarn/unplugged", ".yarn/install-state.gz", ".yarn/build-state.yml", ".pnp.js", ".pnp.cjs", ".pnp.loader.mjs",
	"*/package.json", "*/*/package.json", "*/node_modules", "*/*/node_modules", "*/binding.gyp", "*/*/binding.gyp",
}

var nodeInstallers = []installer{
	{name: "npm ci", calls: []string{"npm ci", "npm clean-install", "npm ic", "npm install-clean"}, looks: nodeFiles, variables: nodeVariables, examine: npmCi},
	{name: "npm install -g", matcher: npmGlobal, variables: nodeVariables, examine: globally},
	{name: "npm install", calls: []string{"npm install", "npm i"}, looks: nodeFiles, variables: nodeVariables, examine: npmInstall},
	{calls: []string{"npm config set", "npm cache clean", "npm cache verify", "npm set", "yarn cache clean", "pnpm store prune", "npm --version", "npm -v", "node --version", "node -v"}, variables: nodeVariables, examine: noPaths},
	{calls: []string{"corepack enable"}, looks: nodeFiles[:1], variables: nodeVariables, examine: func(p *project) { p.add("package.json"); noPaths(p) }},
	{name: "yarn install", calls: []string{"yarn -", "yarn install"}, looks: nodeFiles, variables: nodeVariables, examine: yarn},
	{name: "pnpm install", calls: []string{"pnpm install", "pnpm i"}, looks: nodeFiles, variables: nodeVariables, examine: pnpmInstall},
	{name: "pnpm fetch", calls: []string{"pnpm fetch"}, looks: nodeFiles, variables: nodeVariables, examine: pnpmFetch},
	{name: "bun install", calls: []string{"bun install", "bun i"}, looks: nodeFiles, variables: nodeVariables, examine: bun},
}

const npmBooleans = "--production --prod --no-audit --audit --no-fund --fund --prefer-offline --prefer-online --offline --ignore-scripts --legacy-peer-deps --silent -s " +
	"--quiet -q --no-progress --progress --no-optional --unsafe-perm --no-update-notifier --update-notifier --verbose -d --force -f --strict-peer-deps --no-package-lock " +
	"--package-lock --no-shrinkwrap --foreground-scripts --no-bin-links --engine-strict --no-color --color"
const npmValued = "--omit --include --only --loglevel --cache --registry --maxsockets --fetch-retries --fetch-retry-mintimeout --fetch-retry-maxtimeout --fetch-timeout " +
	"--network-timeout --install-strategy --cpu --os --libc --prefix -C"

func npmCi(p *project) {
	flags := npmFlags(p, 2)
	npmManifests(p, has(flags, "--ignore-scripts"))
	if p.refusal == nil && !p.exists("package-lock.json") && !p.exists("npm-shrinkwrap.json") {
		p.refuse("no-lock", "no package-lock.json is among the files that are copied")
	}
}

// npmInstall may change the lock file, and npm keeps a yarn.lock up to date; the COPY after it would bring back the old ones.
func npmInstall(p *project) {
	flags := npmFlags(p, 2)
	if !has(flags, "--no-package-lock") && !slices.Contains(flags["--package-lock"], "false") {
		for _, lock := range []string{"package-lock.json", "npm-shrinkwrap.json", "yarn.lock"} {
			if p.exists(lock) {
				p.refuse("lock-may-change", "it may change %s; npm ci does not", lock)
			}
		}
	}
	npmManifests(p, has(flags, "--ignore-scripts"))
}

func npmFlags(p *project, n int) map[string][]string {
	flags, operands := p.flags(n, npmBooleans, npmValued)
	for _, f := range []string{"--prefix", "-C"} {
		for _, dir := range flags[f] {
			if path.IsAbs(dir) {
				p.dir = path.Clean(dir)
			} else {
				p.dir = path.Join(p.dir, dir)
			}
		}
	}
	if len(operands) > 0 {
		p.refuse("named-package", "it adds %s to package.json", operands[0])
	}
	return flags
}

func npmGlobal(words []string) bool {
	return len(words) > 2 && words[0] == "npm" && slices.Contains([]string{"install", "i", "add"}, words[1]) &&
		(slices.Contains(words, "-g") || slices.Contains(words, "--global") || slices.Contains(words, "--location=global"))
}

// globally is for packages of the registry, named on the command line.
func globally(p *project) {
	_, operands := p.flags(2, npmBooleans+" -g --global", npmValued+" --location")
	for _, o := range operands {
		if local(o) {
			p.refuse("local-dependency", "%s is a file or directory", o)
		}
	}
	noPaths(p)
}

// noPaths refuses words that may be paths among the copied files.
func noPaths(p *project) {
	for _, a := range p.command.Args() {
		if !a.Literal {
			continue // in a value that was accepted, or an expansion that names no path below
		}
		if strings.HasPrefix(a.Value, ".") || strings.Contains(a.Value, "=.") || strings.HasPrefix(a.Value, "--location") && a.Value != "--location=global" || path.IsAbs(a.Value) && !p.outside(a.Value) {
			p.refuse("unknown-argument", "%s may be one of the copied files", a.Value)
		}
	}
}

func npmManifests(p *project, noScripts bool) {
	main := nodeManifests(p, noScripts)
	p.workspaces(main, main.npmWorkspaces(p), noScripts)
	var lock struct {
		Packages     map[string]lockedPackage
		Dependencies map[string]lockedPackage
	}
	for _, name := range []string{"npm-shrinkwrap.json", "package-lock.json"} {
		data := p.read(name)
		if data == nil {
			continue
		}
		if err := json.Unmarshal(data, &lock); err != nil {
			p.refuse("manifest-syntax", "%s does not parse: %v", name, err)
		}
	}
	for _, name := range sortedKeys(lock.Packages) {
		e := lock.Packages[name]
		installed := strings.LastIndex(name, "node_modules/")
		base := strings.TrimPrefix(name[max(installed, 0):], "node_modules/")
		switch {
		case name == "":
		case e.Link && !slices.Contains(main.members, e.Resolved), installed < 0 && !slices.Contains(main.members, name):
			p.refuse("local-dependency", "%s is a directory of the project", name)
		case strings.HasPrefix(e.Resolved, "file:"):
			p.localFile(name, e.Resolved)
		case e.HasInstallScript && !noScripts && installed >= 0 && !slices.Contains(quietScripts, base):
			p.refuse("dependency-script", "%s runs a script when it is installed, which may read any file; with --ignore-scripts it would not", base)
		}
	}
	for _, name := range sortedKeys(lock.Dependencies) {
		if v := lock.Dependencies[name].Version; strings.HasPrefix(v, "file:") {
			p.localFile(name, v)
		}
	}
}

// lockedPackage is what matters of a package in package-lock.json.
type lockedPackage struct {
	Version          string // of lock files of npm 6
	Link             bool
	Resolved         string
	HasInstallScript bool
}

// UnmarshalJSON takes the version alone for a package as well.
func (l *lockedPackage) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &l.Version) == nil {
		return nil
	}
	type plain lockedPackage
	return json.Unmarshal(data, (*plain)(l))
}

// quietScripts are packages whose installation scripts are known to look at nothing of the project that they are installed for, beyond package.json and .npmrc:
// they fetch or build a binary for the platform, or print a message.
var quietScripts = []string{
	"@apollo/protobufjs", "@nestjs/core", "@parcel/watcher", "@scarf/scarf", "@swc/core", "@tailwindcss/oxide", "argon2", "aws-crt", "bcrypt", "better-sqlite3", "bufferutil", "canvas", "core-js",
	"core-js-bundle", "core-js-pure", "cpu-features", "dtrace-provider", "es5-ext", "esbuild", "fsevents", "iltorb", "keytar", "leveldown", "msgpackr-extract", "node-sass",
	"nodemon", "protobufjs", "re2", "sharp", "sqlite3", "ssh2", "styled-components", "unrs-resolver", "utf-8-validate", "zeromq",
}

// nosyScripts are packages whose installation scripts are known to read, or change, the project. They are for lock files that do not say which packages have scripts.
var nosyScripts = []string{
	"@prisma/client", "ghooks", "git-hooks", "husky", "lefthook", "msw", "nx", "pre-commit", "prisma", "puppeteer", "simple-git-hooks", "yorkie", "zenstack", "@zenstackhq/runtime", "cypress",
}

// nodePackage is what matters of package.json.
type nodePackage struct {
	Scripts              map[string]string
	Dependencies         map[string]string
	DevDependencies      map[string]string
	OptionalDependencies map[string]string
	PeerDependencies     map[string]string
	Overrides            map[string]any
	Resolutions          map[string]any
	Workspaces           json.RawMessage
	DependenciesMeta     map[string]any
	Bin                  json.RawMessage
	Directories          map[string]string
	Gypfile              bool
	PackageManager       string
	Pnpm                 map[string]any

	members []string // directories of the workspaces, relative to the project
}

// lifecycle are the scripts of a project that its package manager runs when it installs.
var lifecycle = []string{
	"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare", "dependencies", "pnpm:devPreinstall",
}

// nodeManifests reads package.json, and those of the workspaces, and refuses what makes an installation look at more.
func nodeManifests(p *project, noScripts bool) *nodePackage {
	main := &nodePackage{}
	data := p.need("package.json")
	if data == nil {
		return main
	}
	if err := json.Unmarshal(data, main); err != nil {
		p.refuse("manifest-syntax", "package.json does not parse: %v", err)
	}
	p.add(".node-version", ".tool-versions", "mise.toml", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb")
	p.npmrc()
	p.makes("node_modules")
	for _, dir := range p.above() {
		if p.exists(path.Join(dir, "package.json")) {
			p.refuse("parent-directory", "%s has a package.json, which may make this directory a workspace", dir)
		}
	}
	p.nodePackage("", main, noScripts)
	return main
}

func (p *project) nodePackage(dir string, pkg *nodePackage, noScripts bool) {
	what := path.Join(dir, "package.json")
	if !noScripts {
		for _, name := range lifecycle {
			if _, ok := pkg.Scripts[name]; ok {
				p.refuse("lifecycle-script", "%s has the script %q, which runs on installation and may read any file; with --ignore-scripts it would not", what, name)
			}
		}
		if pkg.Gypfile {
			p.refuse("lifecycle-script", "%s says gypfile: an addon is compiled on installation", what)
		}
		p.absent("lifecycle-script", "makes the installation compile an addon", path.Join(dir, "binding.gyp"))
	}
	if dir != "" && (len(pkg.Bin) > 0 || pkg.Directories["bin"] != "") {
		p.refuse("workspace-bin", "%s has programs (bin), which are linked and made executable on installation", what)
	}
	for _, deps := range []map[string]string{pkg.Dependencies, pkg.DevDependencies, pkg.OptionalDependencies, pkg.PeerDependencies} {
		for _, name := range sortedKeys(deps) {
			p.dependency(dir, name, deps[name])
		}
	}
	for _, values := range []map[string]any{pkg.Overrides, pkg.Resolutions} {
		p.nested(dir, values)
	}
	for _, name := range sortedKeys(pkg.DependenciesMeta) {
		if m, ok := pkg.DependenciesMeta[name].(map[string]any); ok && m["injected"] == true {
			p.refuse("local-dependency", "%s is injected from a directory of the project", name)
		}
	}
}

func (p *project) nested(dir string, values map[string]any) {
	for _, name := range sortedKeys(values) {
		switch v := values[name].(type) {
		case string:
			p.dependency(dir, name, v)
		case map[string]any:
			p.nested(dir, v)
		}
	}
}

func (p *project) dependency(dir, name, version string) {
	switch {
	case strings.HasPrefix(version, "patch:"):
		p.refuse("patch", "%s is patched with a file of the project", name)
	case strings.HasPrefix(version, "file:") && archiveName(version):
		p.localFile(name, "file:"+path.Join(dir, strings.TrimPrefix(version, "file:")))
	case strings.HasPrefix(version, "workspace:"):
		// of a workspace whose package.json is copied, or an error in either order
	case local(version):
		p.refuse("local-dependency", "%s is %s, of the project", name, version)
	}
}

// localFile makes an archive of the project, which is a dependency, a manifest.
func (p *project) localFile(name, version string) {
	file := strings.TrimPrefix(version, "file:")
	if !archiveName(file) || path.IsAbs(file) || strings.HasPrefix(path.Clean(file), "..") || !p.exists(file) {
		p.refuse("local-dependency", "%s is %s, of the project", name, version)
		return
	}
	p.add(file)
}

func archiveName(name string) bool {
	return strings.HasSuffix(name, ".tgz") || strings.HasSuffix(name, ".tar.gz")
}

// local reports whether a package is named by a file or directory.
func local(version string) bool {
	for _, prefix := range []string{"file:", "link:", "portal:", "exec:", ".", "/", "~/", "~\\"} {
		if strings.HasPrefix(version, prefix) {
			return true
		}
	}
	return archiveName(version) && !strings.Contains(version, "://")
}

// npmrc reads .npmrc: settings that name files must name some that are not copied.
func (p *project) npmrc() {
	data := p.read(".npmrc")
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		key, value, _ := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"'`)
		if i := strings.LastIndex(key, ":"); i >= 0 {
			key = key[i+1:]
		}
		if slices.Contains(npmrcFiles, key) && !p.outside(value) {
			p.refuse("npmrc", ".npmrc sets %s, which names a file or program", key)
		}
	}
}

var npmrcFiles = []string{
	"cafile", "certfile", "keyfile", "node-options", "script-shell", "onload-script", "shell", "userconfig", "globalconfig", "prefix", "cache", "tmp", "workspace", "workspaces",
	"pnpmfile", "global-pnpmfile", "modules-dir", "virtual-store-dir", "store-dir", "lockfile-dir", "init-module", "git", "patches-dir",
}

// workspaces finds the members that patterns name, and makes their package.json manifests.
func (p *project) workspaces(main *nodePackage, patterns []string, noScripts bool) {
	for _, pattern := range patterns {
		pattern = strings.TrimSuffix(strings.TrimPrefix(pattern, "./"), "/")
		if pattern == "." {
			continue
		}
		dirs, ok := p.glob(pattern)
		if !ok {
			p.refuse("workspaces", "it is not known which directories the workspaces %q are", pattern)
			return
		}
		for _, dir := range dirs {
			data := p.read(path.Join(dir, "package.json"))
			if data == nil {
				continue
			}
			var member nodePackage
			if err := json.Unmarshal(data, &member); err != nil {
				p.refuse("manifest-syntax", "%s/package.json does not parse: %v", dir, err)
			}
			if len(member.Workspaces) > 0 {
				p.refuse("workspaces", "%s has workspaces of its own", dir)
			}
			p.nodePackage(dir, &member, noScripts)
			p.makes(path.Join(dir, "node_modules"))
			p.add(path.Join(dir, ".npmrc"))
			main.members = append(main.members, dir)
		}
	}
}

// glob finds the directories of the project that a pattern of workspaces matches, in order.
func (p *project) glob(pattern string) (dirs []string, ok bool) {
	if strings.ContainsAny(pattern, "!{}()\\") || strings.Contains(pattern, "**") || strings.HasPrefix(pattern, "..") || path.IsAbs(pattern) {
		return nil, false
	}
	dirs = []string{""}
	for _, element := range strings.Split(pattern, "/") {
		var next []string
		for _, dir := range dirs {
			if !strings.ContainsAny(element, "*?[") {
				next = append(next, path.Join(dir, element))
				continue
			}
			names, ok := p.files.List(path.Join(p.dir, dir))
			if !ok {
				return nil, false
			}
			for _, name := range names {
				if ok, err := path.Match(element, name); ok && err == nil && name != "node_modules" && !strings.HasPrefix(name, ".") {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		dirs = next
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return !p.entry(dir).Mode.IsDir() }), true
}

// npmWorkspaces are the patterns in package.json, as npm, Yarn and Bun understand them.
func (pkg *nodePackage) npmWorkspaces(p *project) []string {
	var list []string
	if len(pkg.Workspaces) == 0 || json.Unmarshal(pkg.Workspaces, &list) == nil {
		return list
	}
	var object struct{ Packages []string }
	if err := json.Unmarshal(pkg.Workspaces, &object); err != nil {
		p.refuse("manifest-syntax", "the workspaces in package.json do not parse: %v", err)
	}
	return object.Packages
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// nosy refuses dependencies with nosy scripts that package.json or a lock file names.
func (p *project) nosy(lock []byte, noScripts bool) {
	if noScripts {
		return
	}
	data := append(slices.Clone(p.entry("package.json").Data), lock...)
	for _, word := range packageWord().FindAllString(string(data), -1) {
		if name := strings.Trim(word, "\"'/ @:,"); slices.Contains(nosyScripts, name) || slices.Contains(nosyScripts, "@"+name) {
			p.refuse("dependency-script", "%s runs a script when it is installed, which reads the project; with --ignore-scripts it would not", name)
		}
	}
}

var packageWord = lazily(`(?m)["'/ ]?@?[a-z][a-z0-9_.-]*(/[a-z][a-z0-9_.-]*)?["'@:]`)

func yarn(p *project) {
	n := 1
	if len(p.words) > 1 && p.words[1] == "install" {
		n = 2
	}
	flags, operands := p.flags(n, "--frozen-lockfile --pure-lockfile --no-lockfile --production --prod --non-interactive --ignore-scripts --ignore-engines --ignore-optional --ignore-platform "+
		"--no-progress --silent -s --prefer-offline --offline --check-files --no-cache --force --verbose --immutable --immutable-cache --inline-builds --no-bin-links --no-default-rc --json",
		"--network-timeout --network-concurrency --mutex --cache-folder --registry --production --mode")
	if len(operands) > 0 {
		p.refuse("named-package", "yarn %s does something else", operands[0])
	}
	noScripts := has(flags, "--ignore-scripts") || slices.Contains(flags["--mode"], "skip-build")
	main := nodeManifests(p, noScripts)
	lock := p.read("yarn.lock")
	if lock != nil && !has(flags, "--frozen-lockfile", "--pure-lockfile", "--immutable") {
		p.refuse("lock-may-change", "it may change yarn.lock; with --frozen-lockfile, or --immutable, it does not")
	}
	p.nosy(lock, noScripts)
	if bytes.Contains(lock, []byte("patch:")) {
		p.refuse("patch", "yarn.lock has patched packages")
	}
	if rc := p.read(".yarnrc"); bytes.Contains(rc, []byte("path")) || bytes.Contains(rc, []byte("mirror")) || bytes.Contains(rc, []byte("folder")) || bytes.Contains(rc, []byte("cafile")) {
		p.refuse("yarn-config", ".yarnrc names files")
	}
	p.yarnrc()
	p.makes(".pnp.js", ".pnp.cjs", ".pnp.loader.mjs", ".yarn/cache", ".yarn/unplugged", ".yarn/install-state.gz", ".yarn/build-state.yml")
	p.absent("yarn-config", "changes what is installed", ".yarn/patches", ".yarn/plugins")
	p.notAbove(".yarnrc", ".yarnrc.yml", "yarn.lock")
	p.workspaces(main, main.npmWorkspaces(p), noScripts)
}

// yarnSettings are settings of .yarnrc.yml that name no files.
var yarnSettings = []string{
	"nodeLinker", "enableTelemetry", "enableGlobalCache", "compressionLevel", "npmRegistryServer", "npmAuthToken", "npmAlwaysAuth", "enableScripts", "nmHoistingLimits", "nmMode",
	"defaultSemverRangePrefix", "checksumBehavior", "enableImmutableInstalls", "enableProgressBars", "networkConcurrency", "httpTimeout", "pnpMode", "enableInlineBuilds",
}

func (p *project) yarnrc() {
	data := p.read(".yarnrc.yml")
	if data == nil {
		return
	}
	settings, ok := p.yaml(".yarnrc.yml", data)
	for _, name := range sortedKeys(settings) {
		value, isText := settings[name].(string)
		switch {
		case name == "yarnPath" && isText && strings.HasPrefix(value, ".yarn/releases/") && p.exists(value):
			p.add(value)
		case !slices.Contains(yarnSettings, name):
			p.refuse("yarn-config", ".yarnrc.yml sets %s", name)
		}
	}
	if !ok {
		p.refuse("manifest-syntax", ".yarnrc.yml does not parse")
	}
}

func (p *project) yaml(name string, data []byte) (map[string]any, bool) {
	var settings map[string]any
	if err := yaml.Unmarshal(data, &settings); err != nil {
		p.refuse("manifest-syntax", "%s does not parse: %v", name, err)
		return nil, false
	}
	return settings, true
}

const pnpmBooleans = "--frozen-lockfile --no-frozen-lockfile --prod -P --production --dev -D --no-optional --ignore-scripts --offline --prefer-offline --shamefully-hoist --strict-peer-dependencies " +
	"--no-strict-peer-dependencies --force --silent -s --no-verify-store-integrity --no-color --no-lockfile"
const pnpmValued = "--reporter --store-dir --network-concurrency --child-concurrency --loglevel --registry --config.confirmModulesPurge"

func pnpmInstall(p *project) {
	flags, operands := p.flags(2, pnpmBooleans, pnpmValued)
	if len(operands) > 0 {
		p.refuse("named-package", "it adds %s to package.json", operands[0])
	}
	noScripts := has(flags, "--ignore-scripts")
	main := nodeManifests(p, noScripts)
	if p.exists("pnpm-lock.yaml") && (!has(flags, "--frozen-lockfile") || has(flags, "--no-frozen-lockfile")) {
		p.refuse("lock-may-change", "it may change pnpm-lock.yaml; with --frozen-lockfile it does not")
	}
	pnpmConfig(p, main, noScripts)
}

// pnpmFetch needs the lock file only; what else pnpm reads for its settings goes with it.
func pnpmFetch(p *project) {
	_, operands := p.flags(2, pnpmBooleans, pnpmValued)
	if len(operands) > 0 {
		p.refuse("named-package", "pnpm fetch has no operands")
	}
	p.need("pnpm-lock.yaml")
	main := &nodePackage{}
	if data := p.read("package.json"); data != nil {
		main = nodeManifests(p, true)
	}
	p.npmrc()
	p.makes("node_modules")
	pnpmConfig(p, main, true)
}

// pnpmSettings are settings of pnpm-workspace.yaml that name no files.
var pnpmSettings = []string{
	"packages", "catalog", "catalogs", "onlyBuiltDependencies", "ignoredBuiltDependencies", "neverBuiltDependencies", "overrides", "peerDependencyRules", "minimumReleaseAge",
	"minimumReleaseAgeExclude", "linkWorkspacePackages", "shamefullyHoist", "strictPeerDependencies", "autoInstallPeers", "dedupePeerDependents", "publicHoistPattern", "hoistPattern", "saveExact",
}

func pnpmConfig(p *project, main *nodePackage, noScripts bool) {
	lock := p.read("pnpm-lock.yaml")
	if bytes.Contains(lock, []byte("patchedDependencies")) || main.Pnpm["patchedDependencies"] != nil {
		p.refuse("patch", "packages are patched with files of the project (patchedDependencies)")
	}
	for _, word := range []string{"link:", "file:", "directory:"} {
		if bytes.Contains(lock, []byte(word)) && p.refusal == nil && !p.exists("pnpm-workspace.yaml") {
			p.refuse("local-dependency", "pnpm-lock.yaml has a dependency on a directory of the project (%s)", word)
		}
	}
	p.nosy(lock, noScripts)
	if overrides, ok := main.Pnpm["overrides"].(map[string]any); ok {
		p.nested("", overrides)
	}
	p.absent("pnpmfile", "is a program that pnpm runs", ".pnpmfile.cjs", ".pnpmfile.mjs", "pnpmfile.js")
	p.notAbove("pnpm-workspace.yaml", ".npmrc")
	data := p.read("pnpm-workspace.yaml")
	if data == nil {
		return
	}
	settings, _ := p.yaml("pnpm-workspace.yaml", data)
	for _, name := range sortedKeys(settings) {
		if !slices.Contains(pnpmSettings, name) {
			p.refuse("pnpm-config", "pnpm-workspace.yaml sets %s", name)
		}
	}
	if overrides, ok := settings["overrides"].(map[string]any); ok {
		p.nested("", overrides)
	}
	var patterns []string
	list, _ := settings["packages"].([]any)
	for _, v := range list {
		if s, ok := v.(string); ok {
			patterns = append(patterns, s)
		}
	}
	p.workspaces(main, patterns, noScripts)
	if strings.Contains(string(lock), "directory:") {
		p.refuse("local-dependency", "pnpm-lock.yaml has a dependency that is copied from a directory of the project")
	}
	for _, m := range regexp.MustCompile(`(?:link|file):([^\s'"(),]+)`).FindAllSubmatch(lock, -1) {
		if target := string(m[1]); !slices.ContainsFunc(main.members, func(dir string) bool { return path.Base(dir) == path.Base(target) }) {
			p.refuse("local-dependency", "pnpm-lock.yaml has a dependency on %s", target)
		}
	}
}

func bun(p *project) {
	flags, operands := p.flags(2, "--frozen-lockfile --production -p --ignore-scripts --no-progress --silent --no-cache --verbose --no-save --no-summary --force", "--registry --cache-dir --network-concurrency --omit --backend")
	if len(operands) > 0 {
		p.refuse("named-package", "it adds %s to package.json", operands[0])
	}
	noScripts := has(flags, "--ignore-scripts")
	main := nodeManifests(p, noScripts)
	for _, lock := range []string{"bun.lock", "bun.lockb"} {
		if p.exists(lock) && !has(flags, "--frozen-lockfile", "--no-save") {
			p.refuse("lock-may-change", "it may change %s; with --frozen-lockfile it does not", lock)
		}
	}
	lock := p.read("bun.lock")
	p.nosy(lock, noScripts)
	if bytes.Contains(lock, []byte("patchedDependencies")) {
		p.refuse("patch", "packages are patched with files of the project (patchedDependencies)")
	}
	p.absent("bun-config", "may name other files", "bunfig.toml")
	p.notAbove("bunfig.toml", "bun.lock", "bun.lockb")
	p.workspaces(main, main.npmWorkspaces(p), noScripts)
}
