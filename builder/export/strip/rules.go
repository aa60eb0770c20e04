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
		Why:   "downloads and wheels that are installed already; what pip cache purge removes",
		Paths: []Path{{Base: "~/.cache/pip"}},
		Trees: []Tree{{
			Roots: []Root{{Var: "PIP_CACHE_DIR"}, {Var: "XDG_CACHE_HOME", Dir: "pip"}},
			Forms: []Form{
				{Path: `http(-v2)?(/[0-9a-f]){5}/[0-9a-f]{56}(\.body)?`},
				{Path: `wheels(/[0-9a-f]{2}){3}/[0-9a-f]{50}`},
				{Path: `selfcheck/[0-9a-f]{56}`},
			},
		}},
	},
	{
		Name: "uv", Default: true, Linked: true,
		Why:   "downloads and unpacked wheels, of which environments have copies or hard links; what uv cache clean removes. What a symbolic link leads to is kept",
		Paths: []Path{{Base: "~/.cache/uv"}},
		Trees: []Tree{{
			Roots: []Root{{Var: "UV_CACHE_DIR"}, {Var: "XDG_CACHE_HOME", Dir: "uv"}},
			Forms: []Form{{Path: `(archive|simple|wheels|sdists)-v[0-9]+`, Tagged: true}},
		}},
	},
	{
		Name: "npm", Default: true, Linked: true,
		Why: "downloads by their digest, and logs of npm itself; npm fetches what it misses there. Not _npx, which has programs",
		Paths: []Path{
			{Base: "~/.npm", Below: "_cacache"},
			{Base: "~/.npm", Below: "_logs"},
		},
		Trees: []Tree{{
			Roots: []Root{{Var: "npm_config_cache"}, {Var: "NPM_CONFIG_CACHE"}},
			Forms: []Form{
				{Path: `_cacache/content-v[0-9]+/sha[0-9]+(/[0-9a-f]{2}){2}/[0-9a-f]{36,}`},
				{Path: `_cacache/index-v[0-9]+(/[0-9a-f]{2}){2}/[0-9a-f]{36,}`},
				{Path: `_cacache/(tmp|_lastverified)`, Beside: []string{"_cacache/index-v5"}},
				{Path: `_logs/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9_]+Z-(debug|eresolve)[^/]*`},
			},
		}},
	},
	{
		Name: "yarn", Default: true, Linked: true,
		Why: "the cache of yarn 1 (v6 and the like); what yarn cache clean removes. Not that of later versions, from which programs are run",
		Paths: []Path{
			{Base: "/usr/local/share/.cache/yarn", Below: "v[0-9]"},
			{Base: "~/.cache/yarn", Below: "v[0-9]"},
		},
		Trees: []Tree{{
			Roots: []Root{{Var: "YARN_CACHE_FOLDER"}, {Var: "XDG_CACHE_HOME", Dir: "yarn"}},
			Forms: []Form{{Path: `v[0-9]+/npm-[^/]+-[0-9a-f]{40}(-integrity)?`}},
		}},
	},
	{
		Name: "pnpm", Default: true, Linked: true,
		Why:   "metadata of the registry; not the store, to which installed packages may be linked",
		Paths: []Path{{Base: "~/.cache/pnpm", Below: "metadata*"}},
		Trees: []Tree{{
			Roots: []Root{{Var: "XDG_CACHE_HOME", Dir: "pnpm"}},
			Forms: []Form{{Path: `metadata(-[a-z]+)*(-v[0-9.]+)?/[^/]*[.+][^/]*/.+\.jsonl?`}},
		}},
	},
	{
		Name: "bundler", Default: true, Linked: true,
		Why:   "gems that are installed already, and the index; what rm -r of $GEM_HOME/cache removes. gem pristine fetches what it misses",
		Paths: []Path{{Base: "~/.bundle", Below: "cache"}},
		Trees: []Tree{{
			Roots: []Root{{Var: "GEM_HOME"}, {Dir: "/usr/local/bundle"}, {Dir: "/var/lib/gems/*"}, {Dir: "/usr/local/lib/ruby/gems/*"}},
			Forms: []Form{{Path: `cache/([^/]+)\.gem`, Beside: []string{"specifications/$1.gemspec"}}},
		}},
	},
	{
		Name: "composer", Default: true, Linked: true,
		Why: "archives that are installed already; what composer clear-cache removes",
		Paths: []Path{
			{Base: "~/.composer", Below: "cache"},
			{Base: "~/.cache/composer"},
		},
		Trees: []Tree{{
			Roots: []Root{{Var: "COMPOSER_CACHE_DIR"}, {Var: "COMPOSER_HOME", Dir: "cache"}, {Var: "XDG_CACHE_HOME", Dir: "composer"}},
			Forms: []Form{
				{Path: `files/[^/]+/[^/]+/[0-9a-f]{40}[^/]*\.(zip|tar|gzip|xz|rar|phar)`},
				{Path: `repo/https?---[^/]+/[^/]+\.json`},
				{Path: `vcs/(https?|ssh|git)---[^/]+`},
			},
		}},
	},
	{
		Name: "go", Default: true, Linked: true,
		Why:   "what was compiled, and the archives of modules that are unpacked beside them; what is unpacked, and the sums, stay: go build works without network as before",
		Paths: []Path{{Base: "~/.cache/go-build", Below: "[0-9a-f][0-9a-f]"}},
		Trees: []Tree{
			{
				Roots: []Root{{Var: "GOCACHE"}, {Var: "XDG_CACHE_HOME", Dir: "go-build"}},
				Forms: []Form{{Path: `[0-9a-f]{2}/[0-9a-f]{64}-[ad]`}},
			},
			{
				Roots: moduleRoots,
				Forms: []Form{{Path: `cache/download/(.+)/@v/([^/]+)\.zip`, Beside: []string{"cache/download/$1/@v/$2.ziphash", "$1@$2"}}},
			},
		},
	},
	{
		Name: "nuget", Default: true, Linked: true,
		Why: "answers of servers; not packages, which programs are run from",
		Paths: []Path{
			{Base: "~/.local/share/NuGet/v3-cache", Below: "*"},
			{Base: "~/.local/share/NuGet/http-cache", Below: "*"},
		},
		Trees: []Tree{{
			Roots: []Root{{Var: "NUGET_HTTP_CACHE_PATH"}},
			Forms: []Form{{Path: `[0-9a-f]{40}\$[^/]+/[^/]+\.dat(-new)?`}},
		}},
	},
	{
		Name: "cargo", Default: false, Linked: true,
		Why: "cargo build without network needs them",
		Trees: []Tree{{
			Roots: []Root{{Var: "CARGO_HOME"}, {Dir: "~/.cargo"}, {Dir: "/usr/local/cargo"}},
			Forms: []Form{
				{Path: `registry/(cache|index|src)/[^/]+-[0-9a-f]{16}`},
				{Path: `git/(db|checkouts)/[^/]+-[0-9a-f]{16}`},
			},
		}},
	},
	{
		Name: "go-modules", Default: false, Linked: true,
		Why: "go run and go build in a container need the sources of modules",
		Trees: []Tree{{
			Roots: moduleRoots,
			Forms: []Form{
				{Path: `(.+?)@(v[0-9][^/]*)`, Beside: []string{"cache/download/$1/@v/$2.ziphash"}},
				{Path: `cache/download/.+/@v/[^/]+\.(info|mod|zip|ziphash|lock)`},
				{Path: `cache/download/.+/@v/list`},
				{Path: `cache/download/sumdb/[^/]+/(lookup|tile)`},
				{Path: `cache/vcs/[0-9a-f]{64}`},
			},
		}},
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
			{Base: "~/.gradle", Below: "caches"},
			{Base: "~/.gradle", Below: "daemon"},
		},
		Trees: []Tree{{
			Roots: []Root{{Var: "GRADLE_USER_HOME"}},
			Forms: []Form{
				{Path: `caches/(modules|jars|transforms|build-cache|journal)-[0-9]+`, Beside: []string{"caches/journal-1"}},
				{Path: `(caches|daemon)/[0-9]+\.[0-9][^/]*`, Beside: []string{"caches/journal-1"}},
			},
		}},
	},
	{
		Name: "nuget-packages", Default: false, Linked: true,
		Why:   "dotnet run takes assemblies from there",
		Paths: []Path{{Base: "~/.nuget/packages", Below: "*"}},
		Trees: []Tree{{
			Roots: []Root{{Var: "NUGET_PACKAGES"}},
			Forms: []Form{{Path: `([^/]+)/([^/]+)`, Beside: []string{"$1/$2/$1.$2.nupkg.sha512"}}},
		}},
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

// moduleRoots are where Go keeps modules.
var moduleRoots = []Root{{Var: "GOMODCACHE"}, {Var: "GOPATH", Dir: "pkg/mod"}, {Dir: "/go/pkg/mod"}, {Dir: "~/go/pkg/mod"}}
