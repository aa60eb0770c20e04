package strip

// Rules is the table. A rule is on by default if what it drops is, by its tool's own documentation, there to save time, a backup that nothing reads, or a log of the
// build; one that a program in the image may fail without is not.
//
// Of two rules that match a path the first counts.
var Rules = []Rule{
	{
		Name: "apt-lists", Default: true,
		Why: "the index of packages is out of date within days, and apt-get update, without which no install should be, fetches it anew",
		Paths: []Path{
			{Base: "/var/lib/apt/lists", Below: "*"},
			{Base: "/var/cache/apt/pkgcache.bin"},
			{Base: "/var/cache/apt/srcpkgcache.bin"},
		},
	},
	{
		Name: "apt-archives", Default: true,
		Why: "packages that are installed already; what apt-get clean removes",
		Paths: []Path{
			{Base: "/var/cache/apt/archives", Below: "*.deb"},
			{Base: "/var/cache/apt/archives", Below: "partial/*"},
		},
	},
	{
		Name: "apt-logs", Default: true,
		Why: "logs of what was installed when; no tool reads them, and logging goes on without them",
		Paths: []Path{
			{Base: "/var/log/apt", Below: "*"},
			{Base: "/var/log/dpkg.log"},
			{Base: "/var/log/alternatives.log"},
			{Base: "/var/log/bootstrap.log"},
		},
	},
	{
		Name: "dpkg-old", Default: true,
		Why: "copies of the databases as they were before the last change, for people to go back to by hand",
		Paths: []Path{
			{Base: "/var/lib/dpkg", Below: "*-old"},
			{Base: "/var/cache/debconf", Below: "*-old"},
		},
	},
	{
		Name: "ldconfig", Default: true,
		Why:   "a cache that saves ldconfig from reading libraries again; programs read /etc/ld.so.cache, which stays",
		Paths: []Path{{Base: "/var/cache/ldconfig", Below: "aux-cache"}},
	},
	{
		Name: "debconf", Default: false,
		Why: "for all its place below /var/cache this is no cache: it has the answers to packages' questions, which an upgrade in an image made from this one asks for",
		Paths: []Path{
			{Base: "/var/cache/debconf", Below: "config.dat"},
			{Base: "/var/cache/debconf", Below: "passwords.dat"},
			{Base: "/var/cache/debconf", Below: "templates.dat"},
		},
	},
	{
		Name: "apk", Default: true,
		Why:   "the index of packages and packages that are installed already; apk update fetches the first anew",
		Paths: []Path{{Base: "/var/cache/apk", Below: "*"}},
	},
	{
		Name: "dnf", Default: true,
		Why: "metadata that dnf, yum and zypper fetch anew by themselves, and packages that are installed already; what dnf clean all removes",
		Paths: []Path{
			{Base: "/var/cache/dnf", Below: "*"},
			{Base: "/var/cache/libdnf5", Below: "*"},
			{Base: "/var/cache/yum", Below: "*"},
			{Base: "/var/cache/zypp", Below: "*"},
		},
	},
	{
		Name: "pacman", Default: true,
		Why:   "packages that are installed already; what pacman -Scc removes",
		Paths: []Path{{Base: "/var/cache/pacman/pkg", Below: "*"}},
	},
	{
		Name: "pip", Default: true, Linked: true,
		Why: "downloads and wheels that are installed already; what pip cache purge removes",
		Paths: []Path{
			{Vars: []string{"PIP_CACHE_DIR"}, Below: "http"},
			{Vars: []string{"PIP_CACHE_DIR"}, Below: "http-v2"},
			{Vars: []string{"PIP_CACHE_DIR"}, Below: "wheels"},
			{Vars: []string{"PIP_CACHE_DIR"}, Below: "selfcheck"},
			{Vars: []string{"XDG_CACHE_HOME"}, Base: "~/.cache", Below: "pip"},
		},
	},
	{
		Name: "uv", Default: true, Linked: true,
		Why: "downloads and unpacked wheels, of which environments have copies or hard links; what uv cache clean removes. What a symbolic link leads to is kept",
		Paths: []Path{
			{Vars: []string{"UV_CACHE_DIR"}, Below: "archive-v*"},
			{Vars: []string{"UV_CACHE_DIR"}, Below: "simple-v*"},
			{Vars: []string{"UV_CACHE_DIR"}, Below: "wheels-v*"},
			{Vars: []string{"UV_CACHE_DIR"}, Below: "sdists-v*"},
			{Vars: []string{"XDG_CACHE_HOME"}, Base: "~/.cache", Below: "uv"},
		},
	},
	{
		Name: "npm", Default: true, Linked: true,
		Why: "downloads by their digest, and logs of npm itself; npm fetches what it misses there. Not _npx, which has programs",
		Paths: []Path{
			{Vars: []string{"npm_config_cache", "NPM_CONFIG_CACHE"}, Base: "~/.npm", Below: "_cacache"},
			{Vars: []string{"npm_config_cache", "NPM_CONFIG_CACHE"}, Base: "~/.npm", Below: "_logs"},
		},
	},
	{
		Name: "yarn", Default: true, Linked: true,
		Why: "the cache of yarn 1 (v6 and the like); what yarn cache clean removes. Not that of later versions, from which programs are run",
		Paths: []Path{
			{Vars: []string{"YARN_CACHE_FOLDER"}, Base: "/usr/local/share/.cache/yarn", Below: "v[0-9]"},
			{Vars: []string{"XDG_CACHE_HOME"}, Base: "~/.cache", Below: "yarn/v[0-9]"},
		},
	},
	{
		Name: "pnpm", Default: true, Linked: true,
		Why:   "metadata of the registry; not the store, to which installed packages may be linked",
		Paths: []Path{{Vars: []string{"XDG_CACHE_HOME"}, Base: "~/.cache", Below: "pnpm/metadata*"}},
	},
	{
		Name: "bundler", Default: true, Linked: true,
		Why: "gems that are installed already, and the index; what rm -r of $GEM_HOME/cache removes. gem pristine fetches what it misses",
		Paths: []Path{
			{Vars: []string{"GEM_HOME"}, Base: "/usr/local/bundle", Below: "cache/*.gem"},
			{Base: "/var/lib/gems", Below: "*/cache/*.gem"},
			{Base: "/usr/local/lib/ruby/gems", Below: "*/cache/*.gem"},
			{Base: "~/.bundle", Below: "cache"},
		},
	},
	{
		Name: "composer", Default: true, Linked: true,
		Why: "archives that are installed already; what composer clear-cache removes",
		Paths: []Path{
			{Vars: []string{"COMPOSER_CACHE_DIR"}, Below: "files"},
			{Vars: []string{"COMPOSER_CACHE_DIR"}, Below: "repo"},
			{Vars: []string{"COMPOSER_CACHE_DIR"}, Below: "vcs"},
			{Vars: []string{"COMPOSER_HOME"}, Base: "~/.composer", Below: "cache"},
			{Vars: []string{"XDG_CACHE_HOME"}, Base: "~/.cache", Below: "composer"},
		},
	},
	{
		Name: "go", Default: true, Linked: true,
		Why: "what was compiled, and the archives of modules that are unpacked beside them; what is unpacked, and the sums, stay: go build works without network as before",
		Paths: []Path{
			{Vars: []string{"GOCACHE"}, Below: "[0-9a-f][0-9a-f]"},
			{Vars: []string{"XDG_CACHE_HOME"}, Base: "~/.cache", Below: "go-build/[0-9a-f][0-9a-f]"},
			{Vars: []string{"GOMODCACHE"}, Below: "cache/download/**/@v/*.zip"},
			{Vars: []string{"GOPATH"}, Base: "/go", Below: "pkg/mod/cache/download/**/@v/*.zip"},
			{Base: "~/go", Below: "pkg/mod/cache/download/**/@v/*.zip"},
		},
	},
	{
		Name: "nuget", Default: true, Linked: true,
		Why: "answers of servers; not packages, which programs are run from",
		Paths: []Path{
			{Vars: []string{"NUGET_HTTP_CACHE_PATH"}, Base: "~/.local/share/NuGet/v3-cache", Below: "*"},
			{Base: "~/.local/share/NuGet/http-cache", Below: "*"},
		},
	},
	{
		Name: "cargo", Default: false, Linked: true,
		Why: "cargo build without network needs them",
		Paths: []Path{
			{Vars: []string{"CARGO_HOME"}, Base: "~/.cargo", Below: "registry/cache"},
			{Vars: []string{"CARGO_HOME"}, Base: "~/.cargo", Below: "registry/index"},
			{Vars: []string{"CARGO_HOME"}, Base: "~/.cargo", Below: "registry/src"},
			{Vars: []string{"CARGO_HOME"}, Base: "~/.cargo", Below: "git/db"},
			{Vars: []string{"CARGO_HOME"}, Base: "~/.cargo", Below: "git/checkouts"},
			{Base: "/usr/local/cargo", Below: "registry/cache"},
			{Base: "/usr/local/cargo", Below: "registry/index"},
			{Base: "/usr/local/cargo", Below: "registry/src"},
			{Base: "/usr/local/cargo", Below: "git/db"},
			{Base: "/usr/local/cargo", Below: "git/checkouts"},
		},
	},
	{
		Name: "go-modules", Default: false, Linked: true,
		Why: "go run and go build in a container need the sources of modules",
		Paths: []Path{
			{Vars: []string{"GOMODCACHE"}, Below: "cache"},
			{Vars: []string{"GOMODCACHE"}, Below: "*@*"},
			{Vars: []string{"GOMODCACHE"}, Below: "**/*@*"},
			{Vars: []string{"GOPATH"}, Base: "/go", Below: "pkg/mod"},
			{Base: "~/go", Below: "pkg/mod"},
		},
	},
	{
		Name: "maven", Default: false, Linked: true,
		Why:   "mvn in a container needs its plugins",
		Paths: []Path{{Base: "~/.m2", Below: "repository"}},
	},
	{
		Name: "gradle", Default: false, Linked: true,
		Why: "gradle in a container needs its plugins",
		Paths: []Path{
			{Vars: []string{"GRADLE_USER_HOME"}, Base: "~/.gradle", Below: "caches"},
			{Vars: []string{"GRADLE_USER_HOME"}, Base: "~/.gradle", Below: "daemon"},
		},
	},
	{
		Name: "nuget-packages", Default: false, Linked: true,
		Why:   "dotnet run takes assemblies from there",
		Paths: []Path{{Vars: []string{"NUGET_PACKAGES"}, Base: "~/.nuget/packages", Below: "*"}},
	},
	{
		Name: "tmp", Default: false, Linked: true,
		Why: "nobody says that what a step leaves in /tmp is not meant for the container: installers that unpack there exist",
		Paths: []Path{
			{Base: "/tmp", Below: "*"},
			{Base: "/var/tmp", Below: "*"},
		},
	},
}
