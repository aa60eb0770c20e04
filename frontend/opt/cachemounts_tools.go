package opt

import (
	"path"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/script"
)

// cacheTools are the caches that are known, in the order in which their mounts are added.
var cacheTools = []cacheTool{
	// Files: Debian's and Ubuntu's archives never have two contents for one name, version and architecture, and what is mounted is the archives
	// alone. apt itself checks the size of an archive that it has, not its hash (measured on apt 2.6): hence an id of its own for each
	// distribution, and `observed` as soon as another source of packages may be in play. apt's binary index of all packages is believed by
	// size and time of what it was made of, so it goes to a tmpfs, not to the cache.
	{
		name: "apt", programs: []string{"apt-get"}, kin: []string{"apt", "aptitude", "apt-cache", "dpkg"}, anyBase: true,
		fills:   operands("install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep"),
		asks:    [][]string{{"clean"}, {"download"}},
		empties: [][]string{{"clean"}},
		offline: []string{"--no-download", "--download-only", "-d"},
		vars:    []string{"APT_CONFIG"},
		names:   []string{"docker-clean", "apt.conf", "Dir::", "Keep-Downloaded-Packages", "APT_CONFIG", "archives/"},
		place:   aptPlace, keeps: aptKeeps,
	},
	{
		name: "apt (the program)", programs: []string{"apt"}, fills: operands("install", "upgrade", "full-upgrade"), keeps: alwaysKeeps(Observed, ""),
		place: func(*cacheUse) ([]cacheMount, string) {
			return nil, "apt removes what it downloaded once it is installed; apt-get leaves it"
		},
	},
	// Observed: apk believes an index for hours, and older packages are what it then takes. The index of `apk update` is state, as apt's lists
	// are: with a cache directory it goes there, so only a step that removes it anyway comes out the same.
	{
		name: "apk", programs: []string{"apk"}, fills: func(c script.Command) bool { return operands("add", "upgrade")(c) && !c.HasFlag("--no-cache") },
		asks: [][]string{{"cache"}, {"fetch"}}, offline: []string{"--no-network"}, names: []string{"/etc/apk/cache"}, place: apkPlace,
		keeps: alwaysKeeps(Observed, "apk takes its index for fresh for hours"),
	},
	// Observed: metadata counts as fresh for hours or days.
	{
		name: "dnf", programs: []string{"dnf", "dnf5", "microdnf"}, kin: []string{"rpm", "yum"}, fills: operands("install", "update", "upgrade", "groupinstall"),
		asks: [][]string{{"clean"}, {"makecache"}, {"download"}}, empties: [][]string{{"clean", "all"}}, offline: []string{"-C", "--cacheonly"},
		names: []string{"cachedir"}, keeps: alwaysKeeps(Observed, "dnf takes its metadata for fresh for days"),
		place: func(*cacheUse) ([]cacheMount, string) {
			return dirs("locked", "/var/cache/dnf", "/var/cache/libdnf5"), ""
		},
	},
	{
		name: "yum", programs: []string{"yum"}, kin: []string{"rpm", "dnf"}, fills: operands("install", "update", "upgrade", "groupinstall"),
		asks: [][]string{{"clean"}, {"makecache"}}, empties: [][]string{{"clean", "all"}}, offline: []string{"-C", "--cacheonly"}, names: []string{"cachedir"},
		keeps: alwaysKeeps(Observed, "yum takes its metadata for fresh for hours"),
		place: func(*cacheUse) ([]cacheMount, string) { return dirs("locked", "/var/cache/yum", "/var/cache/dnf"), "" },
	},
	// Files for npm ci: what the lock file names is found by its hash, and checked on each read. npm install looks for versions in metadata that the
	// registry calls fresh for minutes: observed. Only the content-addressed part: _npx holds programs that npx prefers to new ones.
	{
		name: "npm", programs: []string{"npm"}, kin: []string{"npx", "node-gyp"}, fills: operands("ci", "clean-install", "install", "i", "add"), private: ".npm",
		asks:    [][]string{{"cache"}, {"config", "get", "cache"}},
		empties: [][]string{{"cache", "clean"}},
		offline: []string{"--offline", "--prefer-offline", "npm_config_offline", "npm_config_prefer_offline", "NPM_CONFIG_OFFLINE", "NPM_CONFIG_PREFER_OFFLINE"},
		vars:    []string{"npm_config_cache", "NPM_CONFIG_CACHE"},
		names:   []string{"_cacache"}, traces: "_logs",
		place: func(u *cacheUse) ([]cacheMount, string) {
			dir := u.flag("--cache")
			if dir == "" {
				dir = u.env1("npm_config_cache", "NPM_CONFIG_CACHE")
			}
			if dir == "" {
				dir = path.Join(u.home, ".npm")
			}
			return dirs("", path.Join(dir, "_cacache")), ""
		},
		keeps: func(u *cacheUse) (Keeps, string) {
			for _, c := range u.commands {
				if !operands("ci", "clean-install")(c) {
					return Observed, "without a lock file npm believes the versions that it saw minutes ago"
				}
			}
			return Files, ""
		},
	},
	// Observed: yarn 1 keeps a file: dependency under its version, whatever is in it.
	{
		name: "yarn", programs: []string{"yarn", "yarnpkg"}, asks: [][]string{{"cache"}}, empties: [][]string{{"cache", "clean"}},
		fills: func(c script.Command) bool {
			return operands("install", "add")(c) || len(c.Operands()) == 0 && !c.HasFlag("--version", "-v", "--help", "-h")
		},
		offline: []string{"--offline", "--prefer-offline", "offline-mirror"}, vars: []string{"YARN_CACHE_FOLDER", "XDG_CACHE_HOME"},
		names: []string{"cache-folder", "YARN_CACHE_FOLDER"}, place: yarnPlace, keeps: alwaysKeeps(Observed, "yarn keeps a file: dependency under its version"),
	},
	// Observed: with side effects cached, what a package's script built is taken over. Where the store is not on node_modules' file system pnpm puts it
	// elsewhere, so it has to be named.
	{
		name: "pnpm", programs: []string{"pnpm"}, fills: operands("install", "i", "add", "fetch"), asks: [][]string{{"store"}},
		offline: []string{"--offline", "--prefer-offline", "npm_config_offline", "npm_config_prefer_offline"}, vars: []string{"npm_config_store_dir", "NPM_CONFIG_STORE_DIR"},
		names: []string{"store-dir"}, keeps: alwaysKeeps(Observed, "pnpm takes over what packages' scripts built"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			dir := u.flag("--store-dir")
			if dir == "" {
				dir = u.env1("npm_config_store_dir", "NPM_CONFIG_STORE_DIR")
			}
			if dir == "" {
				return nil, "pnpm moves its store when it is on another file system; set npm_config_store_dir"
			}
			return dirs("locked", dir), ""
		},
	},
	// Observed: what is in the cache is taken without a look at its hash.
	{
		name: "bun", programs: []string{"bun"}, fills: operands("install", "i", "add"), asks: [][]string{{"pm", "cache"}}, kin: []string{"bunx"},
		offline: []string{"--offline", "--prefer-offline"}, vars: []string{"BUN_INSTALL_CACHE_DIR", "BUN_INSTALL"}, names: []string{"BUN_INSTALL_CACHE_DIR"},
		keeps: alwaysKeeps(Observed, "bun takes packages from its cache by version"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			if dir := u.env("BUN_INSTALL_CACHE_DIR"); dir != "" {
				return dirs("locked", dir), ""
			}
			if dir := u.env("BUN_INSTALL"); dir != "" {
				return dirs("locked", path.Join(dir, "install/cache")), ""
			}
			return dirs("locked", path.Join(u.home, ".bun/install/cache")), ""
		},
	},
	// Files: an HTTP cache. pip asks the index anew each time, and PyPI's files have their hash in the URL; other servers get what they themselves call
	// fresh. wheels/ stays out: wheels that pip built are not built again when their build inputs change.
	{
		name: "pip", programs: []string{"pip", "pip3", "python", "python3"}, fills: pipFills,
		asks:    [][]string{{"cache"}, {"pip", "cache"}},
		offline: []string{"--no-index", "PIP_NO_INDEX"},
		vars:    []string{"PIP_CACHE_DIR", "PIP_NO_CACHE_DIR", "XDG_CACHE_HOME"},
		names:   []string{"PIP_CACHE_DIR"}, place: pipPlace, keeps: pipKeeps,
	},
	// Observed: wheels that uv built are in it.
	{
		name: "uv", programs: []string{"uv", "uvx"}, fills: operands("sync", "pip", "add", "tool", "run", "lock"), asks: [][]string{{"cache"}},
		offline: []string{"--offline", "UV_OFFLINE"}, vars: []string{"UV_CACHE_DIR", "XDG_CACHE_HOME"}, names: []string{"UV_CACHE_DIR"}, place: uvPlace,
		keeps: alwaysKeeps(Observed, "uv takes over wheels that it built before"),
	},
	// Observed: artifacts holds wheels that were built. virtualenvs, beside them, is no cache.
	{
		name: "poetry", programs: []string{"poetry"}, fills: operands("install", "add", "update", "sync", "lock"), asks: [][]string{{"cache"}},
		vars: []string{"POETRY_CACHE_DIR", "XDG_CACHE_HOME"}, names: []string{"POETRY_CACHE_DIR", "pypoetry"}, offline: []string{"PIP_NO_INDEX"},
		keeps: alwaysKeeps(Observed, "poetry takes over wheels that it built before"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			dir := u.env("POETRY_CACHE_DIR")
			if u.anyFlag("--no-cache") {
				return nil, ""
			}
			if dir == "" {
				dir = u.xdg("pypoetry")
			}
			return dirs("locked", path.Join(dir, "artifacts"), path.Join(dir, "cache")), ""
		},
	},
	// Observed: as pip with its wheels.
	{
		name: "pipenv", programs: []string{"pipenv"}, fills: operands("install", "sync", "update"), vars: []string{"PIPENV_CACHE_DIR", "XDG_CACHE_HOME"},
		names: []string{"PIPENV_CACHE_DIR"}, offline: []string{"PIP_NO_INDEX"}, keeps: alwaysKeeps(Observed, "pipenv takes over wheels that it built before"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			if dir := u.env("PIPENV_CACHE_DIR"); dir != "" {
				return dirs("locked", dir), ""
			}
			return dirs("locked", u.xdg("pipenv")), ""
		},
	},
	// Files: modules are checked against go.sum or the checksum database, and a version's content never changes. They are sources, which later steps
	// read (strict), and what GOPRIVATE and the like name is checked by nobody (observed).
	{
		name: "go-modules", title: "module cache of go", programs: []string{"go"}, kin: []string{"gofmt"}, strict: true,
		fills: func(c script.Command) bool {
			return operands("build", "install", "test", "run", "vet", "get", "generate", "list")(c) || starts(c, [][]string{{"mod", "download"}, {"mod", "tidy"}, {"mod", "verify"}, {"mod", "why"}, {"mod", "graph"}})
		},
		asks:    [][]string{{"env"}, {"mod", "vendor"}},
		empties: [][]string{{"clean", "-modcache"}},
		offline: []string{"GOPROXY=off", "GOPROXY off", "GOPROXY=file:", "GOFLAGS=-mod=vendor"},
		vars:    []string{"GOMODCACHE", "GOPATH"}, names: []string{"pkg/mod", "GOMODCACHE"}, place: goModules, keeps: goModulesKeeps,
	},
	// Files without cgo: every input is in the key. With cgo it is not: headers and libraries of C are not looked at. Nor are all that a test reads.
	{
		name: "go-build", title: "build cache of go", programs: []string{"go"}, fills: operands("build", "install", "test", "run", "vet"), asks: [][]string{{"env"}, {"clean"}},
		empties: [][]string{{"clean", "-cache"}}, vars: []string{"GOCACHE", "XDG_CACHE_HOME"}, names: []string{"GOCACHE", "go-build"}, keeps: goBuildKeeps,
		place: func(u *cacheUse) ([]cacheMount, string) {
			switch dir := u.env("GOCACHE"); dir {
			case "":
				return dirs("", u.xdg("go-build")), ""
			case "off":
				return nil, ""
			default:
				return dirs("", dir), ""
			}
		},
	},
	// Files: a version of a crate never changes, and a lock file has its hash; without one cargo asks the index. registry/src, which build scripts can
	// write to, stays out, and so does target/. Cargo's lock file is beside the mounts, so builds take turns.
	{
		name: "cargo", programs: []string{"cargo"}, kin: []string{"rustc"}, fills: operands("build", "install", "fetch", "test", "check", "run", "chef"),
		asks: [][]string{{"vendor"}, {"cache"}}, offline: []string{"--offline", "--frozen", "CARGO_NET_OFFLINE"}, vars: []string{"CARGO_HOME"}, names: []string{"registry/", "git/db"},
		keeps: alwaysKeeps(Files, ""),
		place: func(u *cacheUse) ([]cacheMount, string) {
			home := u.env("CARGO_HOME")
			if home == "" {
				home = path.Join(u.home, ".cargo")
			}
			return dirs("locked", path.Join(home, "registry/cache"), path.Join(home, "registry/index"), path.Join(home, "git/db")), ""
		},
	},
	// Observed: snapshots, answers "there is no such artefact", and what `install` puts there.
	{
		name: "maven", programs: []string{"mvn", "./mvnw", "mvnw"}, fills: func(c script.Command) bool { return len(c.Operands()) > 0 }, names: []string{"maven.repo.local"},
		offline: []string{"-o", "--offline"}, state: mavenInstalls, keeps: alwaysKeeps(Observed, "maven believes snapshots, and that something is not there, for a day"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			return dirs("locked", path.Join(u.home, ".m2/repository")), ""
		},
	},
	// Observed: what tasks made is taken over, changing versions are believed for a day.
	{
		name: "gradle", programs: []string{"gradle", "./gradlew", "gradlew"}, fills: func(c script.Command) bool { return len(c.Operands()) > 0 }, offline: []string{"--offline"},
		vars: []string{"GRADLE_USER_HOME"}, names: []string{"GRADLE_USER_HOME", "ToMavenLocal"}, keeps: alwaysKeeps(Observed, "gradle believes changing versions for a day"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			home := u.flag("-g", "--gradle-user-home")
			if home == "" {
				home = u.env("GRADLE_USER_HOME")
			}
			if home == "" && strings.Contains(u.image, "gradle") {
				return nil, "~/.gradle is a symlink in this image; set GRADLE_USER_HOME"
			}
			if home == "" {
				home = path.Join(u.home, ".gradle")
			}
			return dirs("locked", path.Join(home, "caches"), path.Join(home, "wrapper")), ""
		},
	},
	// Observed: archives are kept by version, often without a hash. Where the cache is depends on what directories there are.
	{
		name: "composer", programs: []string{"composer", "composer.phar", "./composer.phar"}, fills: operands("install", "update", "require", "create-project"),
		asks: [][]string{{"clear-cache"}, {"clearcache"}, {"cc"}}, empties: [][]string{{"clear-cache"}, {"clearcache"}, {"cc"}}, offline: []string{"COMPOSER_DISABLE_NETWORK"},
		vars: []string{"COMPOSER_CACHE_DIR", "COMPOSER_HOME"}, names: []string{"cache-dir", "cache-files-dir"}, keeps: alwaysKeeps(Observed, "composer takes archives from its cache by version"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			if u.anyFlag("--no-cache") {
				return nil, ""
			}
			switch dir, home := u.env("COMPOSER_CACHE_DIR"), u.env("COMPOSER_HOME"); {
			case dir == "/dev/null":
				return nil, ""
			case dir != "":
				return dirs("locked", dir), ""
			case home != "":
				return dirs("locked", path.Join(home, "cache")), ""
			}
			return nil, "where composer keeps its cache depends on the image; set COMPOSER_CACHE_DIR"
		},
	},
	// Observed: gems are taken by version without a look at their hash. Beside the cache is what was installed.
	{
		name: "gems", title: "download cache of rubygems", programs: []string{"bundle", "bundler", "gem"}, fills: operands("install", "update"), asks: [][]string{{"cache"}, {"package"}, {"pristine"}},
		offline: []string{"--local", "BUNDLE_PATH", "BUNDLE_DEPLOYMENT", "--deployment", "config path", "deployment"}, vars: []string{"GEM_HOME"}, names: []string{"cache_all", "vendor/cache"},
		keeps: alwaysKeeps(Observed, "gems are taken from the cache by version"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			home := u.env("GEM_HOME")
			if home == "" || u.anyFlag("--path", "-i", "--install-dir", "--user-install") || u.env("BUNDLE_PATH") != "" {
				return nil, "where gems are installed is not known; set GEM_HOME"
			}
			return dirs("locked", path.Join(home, "cache")), ""
		},
	},
	// Observed: an HTTP cache that believes lists of versions for half an hour. Never ~/.nuget/packages, to which obj/project.assets.json refers.
	{
		name: "nuget", programs: []string{"dotnet"}, asks: [][]string{{"nuget", "locals"}}, offline: []string{"--no-http-cache"}, vars: []string{"NUGET_HTTP_CACHE_PATH", "XDG_DATA_HOME"},
		fills: func(c script.Command) bool {
			return operands("restore", "build", "publish", "test", "run", "tool")(c) && !c.HasFlag("--no-restore", "--no-build")
		},
		names: []string{"NUGET_HTTP_CACHE_PATH", "http-cache", "v3-cache"}, keeps: alwaysKeeps(Observed, "nuget believes lists of versions for half an hour"),
		place: func(u *cacheUse) ([]cacheMount, string) {
			if dir := u.env("NUGET_HTTP_CACHE_PATH"); dir != "" {
				return dirs("locked", dir), ""
			}
			data := u.env("XDG_DATA_HOME")
			if data == "" {
				data = path.Join(u.home, ".local/share")
			}
			return dirs("locked", path.Join(data, "NuGet/http-cache"), path.Join(data, "NuGet/v3-cache")), ""
		},
	},
}

// distributions are official images whose apt has sources of its distribution alone, and docker-clean.
var distributions = map[string]string{
	"buildpack-deps": "debian", "debian": "debian", "golang": "debian", "httpd": "debian", "node": "debian", "php": "debian", "python": "debian", "redis": "debian",
	"ruby": "debian", "rust": "debian", "eclipse-temurin": "ubuntu", "ubuntu": "ubuntu",
}

// aptPlace: the official images' docker-clean deletes archives as soon as they are installed. It is covered by a file beside it that is in every image that has
// docker-clean and that apt has read already: one that says which languages of descriptions to fetch. Where the mount's target does not exist BuildKit removes
// the empty file that it made for it.
func aptPlace(u *cacheUse) ([]cacheMount, string) {
	list := []cacheMount{{kind: "tmpfs", target: "/var/cache/apt"}, {target: "/var/cache/apt/archives", sharing: "locked"}}
	if u.anyFlag("-s", "--simulate", "--dry-run") {
		return nil, ""
	}
	if strings.Contains(u.script.Text, "Dir::") {
		return nil, "the step moves apt's directories"
	}
	if !u.official {
		list[1].id = "apt-" + imageName(u.image)
		return list, ""
	}
	distribution := distributions[imageName(u.image)]
	if distribution == "" {
		return nil, "which distribution " + u.image + " is of is not known"
	}
	if u.from == "" {
		return nil, u.image + " deletes the archives, and FROM has a variable or a platform, which a mount cannot refer to"
	}
	list[1].id = "apt-" + distribution
	if keeps, _ := aptKeeps(u); keeps != Files {
		list[1].id += "-and-others"
	}
	return append([]cacheMount{{
		kind: "bind", from: u.from, source: "/etc/apt/apt.conf.d/docker-no-languages", target: "/etc/apt/apt.conf.d/docker-clean",
	}}, list...), ""
}

func aptKeeps(u *cacheUse) (Keeps, string) {
	for _, word := range []string{"/etc/apt", "sources.list", "add-apt", "apt-key", "apt_pref", "Acquire::", " /etc\n", " /etc/\n"} {
		if strings.Contains(u.chain, word) {
			return Observed, "apt does not check the archives that it has, and " + word + " may stand for a source of packages that changes them"
		}
	}
	for _, c := range u.commands {
		if slices.ContainsFunc(c.Args(), func(w script.Word) bool { return !u.packageName(w) }) {
			return Observed, "apt does not check the archives that it has, and `" + (cacheDrop{command: c}).text() + "` may take packages from elsewhere"
		}
	}
	if !u.official || u.strange != "" {
		what := u.strange
		if what == "" {
			what = u.image
		}
		return Observed, "apt does not check the archives that it has, and " + what + " may have added a source of packages that changes them"
	}
	return Files, ""
}

func mavenInstalls(c script.Command) bool {
	return slices.ContainsFunc(c.Operands(), func(w script.Word) bool {
		return !w.Literal || w.Value == "install" || w.Value == "deploy" || strings.HasSuffix(w.Value, ":install") || strings.HasSuffix(w.Value, ":install-file")
	})
}

// packageName reports whether a word, with the values of its variables, can only be names of packages and flags.
func (u *cacheUse) packageName(w script.Word) bool {
	texts := []string{w.Raw}
	for _, name := range w.Vars {
		v, ok := u.known(name)
		if !ok {
			return false
		}
		texts = append(texts, v)
	}
	return !slices.ContainsFunc(texts, func(s string) bool {
		return strings.ContainsAny(s, "/`") || strings.Contains(s, ".deb") || strings.Contains(s, "$(")
	})
}

func apkPlace(u *cacheUse) ([]cacheMount, string) {
	removes := slices.ContainsFunc(u.script.Commands(), func(c script.Command) bool {
		return c.Name() == "rm" && !c.Conditional && slices.ContainsFunc(c.Args(), func(w script.Word) bool { return w.Raw == "/var/cache/apk/*" })
	})
	if !removes {
		return nil, "with a cache, the index is no longer in the image, where a later step may need it"
	}
	return dirs("locked", "/etc/apk/cache"), ""
}

func yarnPlace(u *cacheUse) ([]cacheMount, string) {
	if u.anyFlag("--immutable", "--immutable-cache", "--check-cache") || slices.ContainsFunc([]string{".yarn", "yarn set", "corepack", "berry"}, func(s string) bool { return strings.Contains(u.chain, s) }) {
		return nil, "with yarn 2 and later programs can run from the cache itself"
	}
	if dir := u.flag("--cache-folder"); dir != "" {
		return dirs("locked", dir), ""
	}
	if dir := u.env("YARN_CACHE_FOLDER"); dir != "" {
		return dirs("locked", dir), ""
	}
	if dir := u.env("XDG_CACHE_HOME"); dir != "" || !u.at.Root() {
		return dirs("locked", u.xdg("yarn")), ""
	}
	return dirs("locked", "/usr/local/share/.cache/yarn"), ""
}

func pipFills(c script.Command) bool {
	ops := c.Operands()
	if strings.HasPrefix(c.Name(), "python") {
		args := c.Args()
		if len(args) < 2 || args[0].Raw != "-m" || args[1].Raw != "pip" || len(ops) < 2 {
			return false
		}
		ops = ops[1:]
	}
	return len(ops) > 0 && slices.Contains([]string{"install", "download", "wheel"}, ops[0].Value)
}

func pipPlace(u *cacheUse) ([]cacheMount, string) {
	if u.anyFlag("--no-cache-dir") || u.env("PIP_NO_CACHE_DIR") != "" {
		return nil, ""
	}
	dir := u.flag("--cache-dir")
	if dir == "" {
		dir = u.env("PIP_CACHE_DIR")
	}
	if dir == "" {
		dir = u.xdg("pip")
	}
	return dirs("", path.Join(dir, "http"), path.Join(dir, "http-v2")), "" // before pip 23.3, and since
}

func pipKeeps(u *cacheUse) (Keeps, string) {
	why := "another index than PyPI may call a file fresh that it changes"
	if u.anyFlag("-i", "--index-url", "--extra-index-url", "-f", "--find-links") {
		return Observed, why
	}
	for _, name := range []string{"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"} {
		if v, ok := u.known(name); v != "" || !ok {
			return Observed, why
		}
	}
	for _, c := range u.commands {
		if slices.ContainsFunc(c.Args(), func(w script.Word) bool { return strings.Contains(w.Raw, "://") }) {
			return Observed, why
		}
	}
	if u.anyFlag("-r", "--requirement", "-c", "--constraint") {
		return Observed, "the requirements file may name another index than PyPI, which may call a file fresh that it changes"
	}
	return Files, ""
}

func uvPlace(u *cacheUse) ([]cacheMount, string) {
	if u.anyFlag("--no-cache", "--no-cache-dir", "-n") || u.env("UV_NO_CACHE") != "" {
		return nil, ""
	}
	if mode := u.env("UV_LINK_MODE"); mode == "symlink" || u.flag("--link-mode") == "symlink" {
		return nil, "what uv installs are links into the cache"
	}
	if dir := u.flag("--cache-dir"); dir != "" {
		return dirs("", dir), ""
	}
	if dir := u.env("UV_CACHE_DIR"); dir != "" {
		return dirs("", dir), ""
	}
	return dirs("", u.xdg("uv")), ""
}

func goModules(u *cacheUse) ([]cacheMount, string) {
	if slices.ContainsFunc(u.commands, func(c script.Command) bool {
		w, ok := c.Flag("-mod")
		return ok && w.Raw == "vendor"
	}) || strings.Contains(u.env("GOFLAGS"), "-mod=vendor") {
		return nil, ""
	}
	if dir := u.env("GOMODCACHE"); dir != "" {
		return dirs("", dir), ""
	}
	gopath, _, _ := strings.Cut(u.env("GOPATH"), ":")
	if gopath == "" {
		gopath = path.Join(u.home, "go")
	}
	return dirs("", path.Join(gopath, "pkg/mod")), ""
}

func goModulesKeeps(u *cacheUse) (Keeps, string) {
	for _, name := range []string{"GOPRIVATE", "GONOSUMDB", "GONOSUMCHECK", "GOINSECURE", "GOSUMDB", "GONOSUM"} {
		if v, ok := u.known(name); v != "" || !ok {
			return Observed, "with " + name + " nobody checks that a version is what it was"
		}
	}
	return Files, ""
}

func goBuildKeeps(u *cacheUse) (Keeps, string) {
	if v, ok := u.known("CGO_ENABLED"); !ok || v != "0" {
		return Observed, "go does not look at the headers and libraries of C; CGO_ENABLED=0 would allow it"
	}
	for _, c := range u.commands {
		if count, _ := c.Flag("-count"); operands("test")(c) && count.Value != "1" {
			return Observed, "go takes over results of tests; -count=1 would allow it"
		}
		if c.HasFlag("-toolexec") {
			return Observed, "-toolexec may do anything"
		}
	}
	if v, ok := u.known("GOFLAGS"); !ok || strings.Contains(v, "toolexec") {
		return Observed, "GOFLAGS may have -toolexec"
	}
	return Files, ""
}
