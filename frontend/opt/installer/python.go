package installer

import (
	"bytes"
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

var pythonVariables = []string{
	"PIP_*", "PYTHON*", "POETRY_*", "UV_*", "PIPENV_*", "PIPX_*", "VIRTUAL_ENV", "CONDA_*", "SETUPTOOLS_*", "!PYTHON_VERSION", "!PYTHON_PIP_VERSION", "!PYTHON_SETUPTOOLS_VERSION",
	"!PYTHON_GET_PIP_URL", "!PYTHON_GET_PIP_SHA256", "!PYTHON_SHA256", "!POETRY_VERSION", "!UV_VERSION", "!PIPENV_VERSION", "!PIP_VERSION", "!UV_LINK_MODE",
	"!UV_PYTHON_PREFERENCE", "!UV_PYTHON_DOWNLOADS", "!PYTHONIOENCODING", "!PYTHONHASHSEED", "!PIP_ROOT_USER_ACTION", "!PIP_TRUSTED_HOST",
}

// pythonFiles are looked at by version managers, by distutils (setup.cfg), and by uv and Poetry.
var pythonFiles = []string{
	"requirements.txt", "setup.cfg", ".python-version", ".python-versions", ".tool-versions", "mise.toml", "pyproject.toml", "poetry.lock", "poetry.toml", ".poetry", "uv.lock", "uv.toml", ".venv", "venv",
	"Pipfile", "Pipfile.lock", ".env",
}

var pythonInstallers = []installer{
	{name: "pip install", matcher: pipInstall, looks: pythonFiles[:5], variables: pythonVariables, examine: pip},
	{calls: []string{"pip cache purge", "pip3 cache purge", "pip config set", "pip --version", "poetry config", "poetry --version"}, variables: pythonVariables, examine: pythonConfig},
	{name: "pipenv install", calls: []string{"pipenv install", "pipenv sync"}, looks: pythonFiles, variables: pythonVariables, examine: pipenv},
	{name: "poetry install", calls: []string{"poetry install"}, looks: pythonFiles, variables: pythonVariables, examine: poetry},
	{name: "uv sync", calls: []string{"uv sync"}, looks: pythonFiles, variables: pythonVariables, examine: uvSync},
	{name: "uv pip install", calls: []string{"uv pip install", "uv pip sync"}, looks: pythonFiles, variables: pythonVariables, examine: uvPip},
}

var pipName = lazily(`^pip[0-9.]*$`)

func pipInstall(words []string) bool {
	return len(words) > 1 && pipName().MatchString(words[0]) && words[1] == "install"
}

const pipBooleans = "--no-cache-dir -q -qq --quiet -v --verbose --upgrade -U --user --no-deps --pre --no-index --prefer-binary --require-hashes --disable-pip-version-check --break-system-packages " +
	"--no-warn-script-location --ignore-installed -I --force-reinstall --compile --no-compile --no-input --no-color --no-warn-conflicts --no-build-isolation --no-clean --isolated --use-pep517 --system --no-cache " +
	"--compile-bytecode --no-progress"
const pipValued = "-r --requirement --requirements -c --constraint --constraints --index-url -i --extra-index-url --trusted-host --find-links -f --only-binary --no-binary --default-timeout --timeout --retries --root-user-action " +
	"--progress-bar --target -t --cache-dir --upgrade-strategy --python --index --default-index --link-mode --index-strategy --cert --client-cert --log --root --python-version --allow-insecure-host"

func pip(p *project) {
	flags, operands := p.flags(2, pipBooleans, pipValued)
	p.requirements(flags, operands)
	p.add("setup.cfg", ".python-version", ".tool-versions", "mise.toml")
	if strings.HasPrefix(path.Base(p.command.Name()), "python") {
		p.pythonModules()
	}
}

// pythonModules: python -m looks for modules in the working directory first.
func (p *project) pythonModules() {
	names, ok := p.files.List(p.dir)
	if !ok {
		p.refuse("context-unknown", "python -m looks for modules in the working directory, and it is not known which files the context has; pip alone does not")
		return
	}
	for _, name := range names {
		module, _, _ := strings.Cut(name, ".")
		if strings.HasSuffix(name, ".egg-info") || strings.HasSuffix(name, ".dist-info") || strings.HasSuffix(name, ".pth") || slices.Contains(shadowing, module) {
			p.refuse("python-module", "python -m pip would import %s from the working directory; pip alone does not", name)
		}
	}
}

// shadowing are modules that pip, or Python before it, imports if it finds them: the standard library and what pip looks for.
var shadowing = strings.Fields(`__future__ _manylinux abc argparse array ast asyncio atexit base64 binascii bisect brotli brotlicffi bz2 calendar certifi chardet cgi cmd code codecs collections colorama colorsys
	compileall concurrent configparser contextlib contextvars copy cryptography csv ctypes dataclasses datetime decimal difflib dis distutils email encodings ensurepip enum errno fcntl filecmp fileinput
	fnmatch fractions functools gc getopt getpass gettext glob grp gzip hashlib heapq hmac html http idna imaplib importlib inspect io ipaddress itertools json keyring keyword lib2to3 linecache locale logging lzma
	mailbox marshal math mimetypes multiprocessing netrc ntpath numbers opcode operator optparse os OpenSSL packaging pathlib pickle pip pkg_resources pkgutil platform plistlib posixpath pprint profile
	pwd py_compile pyclbr pydoc queue quopri random re reprlib requests resource runpy sched secrets select selectors setuptools shelve shlex shutil signal simplejson site sitecustomize smtplib socket
	socketserver socks sqlite3 sre_compile ssl stat statistics string stringprep struct subprocess symtable sys sysconfig tarfile tempfile termios textwrap threading time timeit token tokenize tomli tomllib trace
	traceback truststore types typing unicodedata unittest urllib urllib3 usercustomize uuid venv warnings wave weakref webbrowser wheel wsgiref xml xmlrpc zipapp zipfile zipimport zlib zoneinfo zstandard`)

// requirements reads the files that -r and -c name, and those that they name.
func (p *project) requirements(flags map[string][]string, operands []string) {
	for _, o := range operands {
		if pythonLocal(o) {
			p.refuse("local-dependency", "%s is a file or directory of the project", o)
		}
	}
	for _, f := range []string{"-r", "--requirement", "--requirements", "-c", "--constraint", "--constraints"} {
		for _, name := range flags[f] {
			switch {
			case name == "":
				p.refuse("unknown-argument", "the file that %s names is not known", f)
			case strings.Contains(name, "://"):
			case path.Ext(name) == ".toml" || path.Ext(name) == ".py" || path.Ext(name) == ".cfg":
				p.refuse("requirements", "%s is no list of requirements", name)
			default:
				p.requirementsFile(name, 0)
			}
		}
	}
}

var lineContinuation = lazily(`\\\r?\n`)
var requirementComment = lazily(`(^|\s)#.*$`)

func (p *project) requirementsFile(name string, depth int) {
	data := p.need(name)
	if data == nil {
		return
	}
	if bytes.IndexByte(data, 0) >= 0 || depth > 10 {
		p.refuse("manifest-syntax", "%s is no text", name)
	}
	for _, line := range strings.Split(lineContinuation().ReplaceAllString(string(data), ""), "\n") {
		line = strings.TrimSpace(requirementComment().ReplaceAllString(strings.TrimRight(line, "\r"), ""))
		if line == "" {
			continue
		}
		if !strings.HasPrefix(line, "-") {
			if pythonLocal(line) {
				p.refuse("local-dependency", "%s has %q, a file or directory of the project", name, line)
			}
			continue
		}
		option, value, _ := strings.Cut(strings.Replace(line, "=", " ", 1), " ")
		if len(option) > 2 && option[1] != '-' { // -rother.txt
			option, value = option[:2], strings.TrimSpace(option[2:]+" "+value)
		}
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		switch option {
		case "-r", "--requirement", "-c", "--constraint":
			if !strings.Contains(value, "://") {
				p.requirementsFile(path.Join(path.Dir(name), value), depth+1)
			}
		case "-e", "--editable":
			p.refuse("editable", "%s has %q, which installs a directory of the project", name, line)
		case "-f", "--find-links":
			if !p.outside(value) {
				p.refuse("local-dependency", "%s looks for packages in %s", name, value)
			}
		case "-i", "--index-url", "--extra-index-url", "--no-index", "--pre", "--prefer-binary", "--require-hashes", "--no-binary", "--only-binary", "--trusted-host":
		default:
			p.refuse("requirements", "%s has %s, which is not known to leave other files alone", name, option)
		}
	}
}

// pythonLocal reports whether a requirement is a file or directory, and not a name or an address.
func pythonLocal(req string) bool {
	req, _, _ = strings.Cut(req, ";")
	if name, url, ok := strings.Cut(req, "@"); ok && !strings.Contains(name, "/") && !strings.Contains(name, ":") {
		req = strings.TrimSpace(url)
		return !strings.Contains(req, "://") || strings.Contains(req, "file:") || strings.HasPrefix(req, "$")
	}
	word, _, _ := strings.Cut(strings.TrimSpace(req), " ")
	if strings.Contains(word, "://") {
		return strings.Contains(word, "file:")
	}
	base, _, _ := strings.Cut(word, "[")
	for _, suffix := range []string{".whl", ".gz", ".zip", ".bz2", ".xz", ".tgz"} {
		if strings.HasSuffix(base, suffix) {
			return true
		}
	}
	return strings.HasPrefix(word, ".") || strings.HasPrefix(word, "file:") || strings.HasPrefix(word, "$") || strings.ContainsAny(base, `/\`)
}

func pythonConfig(p *project) {
	if slices.Contains(p.words, "--local") {
		p.refuse("unknown-flag", "poetry config --local writes poetry.toml")
	}
	noPaths(p)
}

func pipenv(p *project) {
	flags, operands := p.flags(2, "--deploy --system --ignore-pipfile --dev -d --verbose -v --quiet -q --clear --no-site-packages --keep-outdated", "--python --pypi-mirror --extra-pip-args --categories")
	if len(operands) > 0 {
		p.refuse("named-package", "it adds %s to Pipfile", operands[0])
	}
	var file struct {
		Packages    map[string]any `toml:"packages"`
		DevPackages map[string]any `toml:"dev-packages"`
	}
	if !p.toml("Pipfile", &file) {
		return
	}
	for _, deps := range []map[string]any{file.Packages, file.DevPackages} {
		p.pythonDependencies("Pipfile", deps)
	}
	if p.exists("Pipfile.lock") {
		if p.words[1] == "install" && !has(flags, "--deploy", "--ignore-pipfile") {
			p.refuse("lock-may-change", "it may change Pipfile.lock; with --deploy it does not, and pipenv sync does not")
		}
		p.add("Pipfile.lock")
		var lock map[string]map[string]any
		if json.Unmarshal(p.read("Pipfile.lock"), &lock) != nil {
			p.refuse("manifest-syntax", "Pipfile.lock does not parse")
		}
		for _, group := range sortedKeys(lock) {
			if group != "_meta" {
				p.pythonDependencies("Pipfile.lock", lock[group])
			}
		}
	}
	p.add(".env", ".python-version", ".tool-versions", "mise.toml", "setup.cfg")
	p.makes(".venv")
	p.notAbove("Pipfile")
}

// toml reads a manifest into v.
func (p *project) toml(name string, v any) bool {
	data := p.need(name)
	if data == nil {
		return false
	}
	if err := toml.Unmarshal(data, v); err != nil {
		p.refuse("manifest-syntax", "%s does not parse: %v", name, err)
		return false
	}
	return true
}

// pythonDependencies are tables of the form name = {path = "..."}.
func (p *project) pythonDependencies(file string, deps map[string]any) {
	for _, name := range sortedKeys(deps) {
		list, ok := deps[name].([]any)
		if !ok {
			list = []any{deps[name]}
		}
		for _, d := range list {
			table, ok := d.(map[string]any)
			if !ok {
				continue
			}
			for _, key := range []string{"path", "file", "editable"} {
				if v, ok := table[key]; ok && v != false {
					if url, _ := v.(string); !strings.Contains(url, "://") || strings.HasPrefix(url, "file:") {
						p.refuse("local-dependency", "%s names %s by %s", file, name, key)
					}
				}
			}
		}
	}
}

// pyproject is what matters of pyproject.toml.
type pyproject struct {
	BuildSystem *struct{} `toml:"build-system"`
	Project     struct {
		Dynamic              []string            `toml:"dynamic"`
		Dependencies         []string            `toml:"dependencies"`
		OptionalDependencies map[string][]string `toml:"optional-dependencies"`
	} `toml:"project"`
	DependencyGroups map[string][]any `toml:"dependency-groups"`
	Tool             struct {
		Poetry struct {
			PackageMode     *bool          `toml:"package-mode"`
			Dependencies    map[string]any `toml:"dependencies"`
			DevDependencies map[string]any `toml:"dev-dependencies"`
			Group           map[string]struct {
				Dependencies map[string]any `toml:"dependencies"`
			} `toml:"group"`
			RequiresPlugins map[string]any `toml:"requires-plugins"`
		} `toml:"poetry"`
		UV map[string]any `toml:"uv"`
	} `toml:"tool"`
}

func (p *project) pyproject() *pyproject {
	file := &pyproject{}
	if !p.toml("pyproject.toml", file) {
		return file
	}
	groups := [][]string{file.Project.Dependencies}
	for _, name := range sortedKeys(file.Project.OptionalDependencies) {
		groups = append(groups, file.Project.OptionalDependencies[name])
	}
	for _, name := range sortedKeys(file.DependencyGroups) {
		for _, d := range file.DependencyGroups[name] {
			if s, ok := d.(string); ok {
				groups = append(groups, []string{s})
			}
		}
	}
	for _, group := range groups {
		for _, req := range group {
			if pythonLocal(req) {
				p.refuse("local-dependency", "pyproject.toml has %q, a file or directory", req)
			}
		}
	}
	p.add(".python-version", ".python-versions", ".tool-versions", "mise.toml", "setup.cfg")
	p.makes(".venv")
	return file
}

func poetry(p *project) {
	flags, operands := p.flags(2, "--no-root --no-interaction -n --no-ansi --ansi --no-dev --sync --no-cache -q --quiet -v -vv -vvv --verbose --all-extras --compile --all-groups --no-plugins", "--only --without --with --extras -E -P")
	if len(operands) > 0 || has(flags, "-P") {
		p.refuse("unknown-argument", "poetry install takes no operands")
	}
	file := p.pyproject()
	tool := file.Tool.Poetry
	if !has(flags, "--no-root") && (tool.PackageMode == nil || *tool.PackageMode) {
		p.refuse("installs-project", "it installs the project itself; with --no-root it would not")
	}
	p.pythonDependencies("pyproject.toml", tool.Dependencies)
	p.pythonDependencies("pyproject.toml", tool.DevDependencies)
	for _, name := range sortedKeys(tool.Group) {
		p.pythonDependencies("pyproject.toml", tool.Group[name].Dependencies)
	}
	if len(tool.RequiresPlugins) > 0 {
		p.refuse("plugins", "pyproject.toml requires plugins, which may read any file")
	}
	if lock := p.read("poetry.lock"); bytes.Contains(lock, []byte(`type = "directory"`)) || bytes.Contains(lock, []byte(`type = "file"`)) {
		p.refuse("local-dependency", "poetry.lock has a dependency on a file or directory of the project")
	}
	if config := p.read("poetry.toml"); bytes.Contains(config, []byte("path")) || bytes.Contains(config, []byte("cache-dir")) {
		p.refuse("poetry-config", "poetry.toml names files")
	}
	p.makes(".poetry")
	p.notAbove("poetry.toml")
}

func uvSync(p *project) {
	flags, operands := p.flags(2, "--frozen --locked --no-install-project --no-install-workspace --no-dev --dev --no-cache --compile-bytecode -q --quiet -v --verbose --all-extras --all-groups --no-default-groups "+
		"--no-progress --no-editable --inexact --exact --only-dev --no-python-downloads --managed-python", "--extra --group --no-group --only-group --python -p --link-mode --index-strategy --cache-dir --no-extra")
	if len(operands) > 0 {
		p.refuse("unknown-argument", "uv sync takes no operands")
	}
	file := p.pyproject()
	uv := file.Tool.UV
	isPackage := file.BuildSystem != nil
	if v, ok := uv["package"].(bool); ok {
		isPackage = v
	}
	if isPackage && !has(flags, "--no-install-project") {
		p.refuse("installs-project", "it installs the project itself; with --no-install-project it would not")
	}
	if p.exists("uv.lock") && !has(flags, "--frozen", "--locked") {
		p.refuse("lock-may-change", "it may change uv.lock; with --frozen it does not")
	}
	if len(file.Project.Dynamic) > 0 && (!has(flags, "--frozen") || !p.exists("uv.lock")) {
		p.refuse("dynamic", "pyproject.toml has dynamic metadata, for which the project is built; with --frozen it is not")
	}
	workspace := has(flags, "--frozen") && has(flags, "--no-install-workspace")
	if uv["workspace"] != nil && !workspace {
		p.refuse("workspaces", "pyproject.toml has a workspace; with --frozen --no-install-workspace its members would not be looked at")
	}
	if sources, ok := uv["sources"].(map[string]any); ok {
		if !workspace {
			p.pythonDependencies("pyproject.toml", sources)
		}
		p.uvSources(sources, workspace)
	}
	lock := p.read("uv.lock")
	for _, m := range regexp.MustCompile(`source = \{ (editable|directory|path|virtual) = "([^"]*)" \}`).FindAllSubmatch(lock, -1) {
		if string(m[2]) != "." && !(workspace && string(m[1]) != "path") {
			p.refuse("local-dependency", "uv.lock has a dependency on %s", m[2])
		}
	}
	p.uvConfig()
}

func (p *project) uvSources(sources map[string]any, workspace bool) {
	for _, name := range sortedKeys(sources) {
		if table, ok := sources[name].(map[string]any); ok {
			if _, ok := table["path"]; ok {
				p.refuse("local-dependency", "pyproject.toml names %s by path", name)
			}
			if table["workspace"] == true && !workspace {
				p.refuse("workspaces", "%s is a member of a workspace", name)
			}
		}
	}
}

func (p *project) uvConfig() {
	if config := p.read("uv.toml"); len(config) > 0 {
		p.refuse("uv-config", "uv.toml may name other files")
	}
	p.notAbove("uv.toml", "pyproject.toml", ".python-version")
}

func uvPip(p *project) {
	flags, operands := p.flags(3, pipBooleans, pipValued)
	if p.words[2] == "sync" {
		flags["-r"] = append(flags["-r"], operands...)
		operands = nil
	}
	p.requirements(flags, operands)
	if data := p.read("pyproject.toml"); bytes.Contains(data, []byte("tool.uv")) {
		p.refuse("uv-config", "pyproject.toml has settings for uv, which may name other files")
	}
	p.add(".python-version", ".python-versions", ".tool-versions", "mise.toml", "setup.cfg")
	p.uvConfig()
}
