package strip

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// rule is that of a path in an image that has nothing else.
func rule(s *Stripper, path string) string {
	return s.Find(path, func(string) ([]byte, bool) { return nil, false }).Rule
}

// TestMovedDirectories has each variable that moves a tool's directory lead to one with other things in it. What the tool made there, as its real versions do, is residue; what only has
// a similar name is not.
func TestMovedDirectories(t *testing.T) {
	hex := func(n int) string { return strings.Repeat("0123456789abcdef", n/16+1)[:n] }
	met := map[string]bool{"HOME": true}
	const tag = signature + "\n# This file is a cache directory tag created by a tool."
	for _, test := range []struct {
		vars    string // separated by commas: each is set to /srv
		rules   string // "" is all
		there   map[string]string
		residue map[string]string // the rule of each path
		stays   []string
	}{
		{
			vars: "PIP_CACHE_DIR",
			residue: map[string]string{
				"/srv/http-v2/0/1/2/3/4/" + hex(56):           "pip",
				"/srv/http-v2/0/1/2/3/4/" + hex(56) + ".body": "pip",
				"/srv/http/0/1/2/3/4/" + hex(56):              "pip",
				"/srv/wheels/ab/cd/ef/" + hex(50) + "/a.whl":  "pip",
				"/srv/selfcheck/" + hex(56):                   "pip",
			},
			stays: []string{
				"/srv", "/srv/http", "/srv/http/index.html", "/srv/http/0/1/index.html", "/srv/http-v2/0/1/2/3/4/" + hex(57), "/srv/http-v2/0/1/2/3/4/mine",
				"/srv/wheels/a.whl", "/srv/wheels/ab/cd/ef/a.whl", "/srv/selfcheck/run.sh", "/srv/pip/x", "/srv2/selfcheck/" + hex(56),
			},
		},
		{
			vars: "XDG_CACHE_HOME",
			there: map[string]string{
				"/srv/uv/CACHEDIR.TAG": tag,
			},
			residue: map[string]string{
				"/srv/pip/http-v2/0/1/2/3/4/" + hex(56): "pip",
				"/srv/uv/archive-v0/a":                  "uv",
				"/srv/yarn/v6/npm-left-pad-1.3.0-" + hex(40) + "-integrity/node_modules/a.js": "yarn",
				"/srv/pnpm/metadata-v1.3/registry.npmjs.org/left-pad.json":                    "pnpm",
				"/srv/composer/files/monolog/monolog/" + hex(40) + ".zip":                     "composer",
				"/srv/go-build/ab/" + hex(64) + "-d":                                          "go",
			},
			stays: []string{"/srv/pip/index.html", "/srv/pip", "/srv/yarn/v6/data", "/srv/pnpm/metadata/a", "/srv/composer/files/a.zip", "/srv/go-build/ab/data", "/srv/uv/data"},
		},
		{
			vars:    "UV_CACHE_DIR",
			there:   map[string]string{"/srv/CACHEDIR.TAG": tag},
			residue: map[string]string{"/srv/archive-v0/Cm8pW0pPlz6E1vBhCRPKs/a.py": "uv", "/srv/wheels-v5/pypi/a": "uv", "/srv/simple-v15/a": "uv"},
			stays:   []string{"/srv/archive-v0x/a", "/srv/archive-vx/a", "/srv/archive/a", "/srv/environments-v2/a", "/srv/CACHEDIR.TAG"},
		},
		{vars: "UV_CACHE_DIR", stays: []string{"/srv/archive-v0/Cm8pW0pPlz6E1vBhCRPKs/a.py"}},
		{vars: "UV_CACHE_DIR", there: map[string]string{"/srv/CACHEDIR.TAG": "mine"}, stays: []string{"/srv/archive-v0/a"}},
		{
			vars:  "npm_config_cache",
			there: map[string]string{"/srv/_cacache/index-v5": ""},
			residue: map[string]string{
				"/srv/_cacache/content-v2/sha512/5c/8e/" + hex(124): "npm",
				"/srv/_cacache/content-v2/sha1/5c/8e/" + hex(36):    "npm",
				"/srv/_cacache/index-v5/83/f3/" + hex(60):           "npm",
				"/srv/_cacache/tmp/0123abcd":                        "npm",
				"/srv/_logs/2026-11-30T00_56_38_123Z-debug-0.log":   "npm",
				"/srv/_logs/2019-11-30T00_56_38_123Z-debug.log":     "npm",
			},
			stays: []string{"/srv/_npx/1/x", "/srv/_cacache/x", "/srv/_cacache/content-v2/x", "/srv/_logs/mine.log", "/srv/index-v5/83/f3/" + hex(60)},
		},
		{vars: "NPM_CONFIG_CACHE", residue: map[string]string{"/srv/_cacache/index-v5/83/f3/" + hex(60): "npm"}, stays: []string{"/srv/_cacache/tmp/mine"}},
		{
			vars:    "YARN_CACHE_FOLDER",
			residue: map[string]string{"/srv/v6/npm-@babel-types-8.1.3-" + hex(40) + "-integrity/node_modules/@babel/types/index.js": "yarn", "/srv/v4/npm-a-1.0.0-" + hex(40): "yarn"},
			stays:   []string{"/srv/v6", "/srv/v6/data", "/srv/v1/api.json", "/srv/v6/npm-data", "/srv/left-pad-npm-1.0.0.zip"},
		},
		{
			vars:    "GEM_HOME",
			there:   map[string]string{"/srv/specifications/rack-3.0.0.gemspec": "x"},
			residue: map[string]string{"/srv/cache/rack-3.0.0.gem": "bundler"},
			stays:   []string{"/srv/cache/rails-7.0.0.gem", "/srv/cache/data", "/srv/cache/x/rack-3.0.0.gem"},
		},
		{
			vars:    "COMPOSER_CACHE_DIR",
			residue: map[string]string{"/srv/files/a/b/" + hex(40) + ".zip": "composer", "/srv/repo/https---repo.packagist.org/packages.json": "composer", "/srv/vcs/https---github.com-a-b.git/HEAD": "composer"},
			stays:   []string{"/srv/files/a.zip", "/srv/files/a/b/c.zip", "/srv/files/a/b/" + hex(39) + ".zip", "/srv/repo/data.json", "/srv/repo/mine/packages.json", "/srv/vcs/mine.git/HEAD"},
		},
		{
			vars:    "COMPOSER_HOME",
			residue: map[string]string{"/srv/cache/files/a/b/" + hex(40) + ".zip": "composer"},
			stays:   []string{"/srv/cache", "/srv/cache/files/a", "/srv/files/a/b/" + hex(40) + ".zip"},
		},
		{
			vars:    "GOCACHE",
			residue: map[string]string{"/srv/ab/" + hex(64) + "-a": "go", "/srv/ab/" + hex(64) + "-d/m": "go"},
			stays:   []string{"/srv/ab", "/srv/ab/data", "/srv/README", "/srv/trim.txt", "/srv/fuzz/x", "/srv/ab/" + hex(64)},
		},
		{
			vars:    "GOMODCACHE",
			rules:   "default",
			there:   map[string]string{"/srv/cache/download/golang.org/x/sys/@v/v0.1.0.ziphash": "h1:", "/srv/golang.org/x/sys@v0.1.0": ""},
			residue: map[string]string{"/srv/cache/download/golang.org/x/sys/@v/v0.1.0.zip": "go"},
			stays:   []string{"/srv/cache/download/golang.org/x/sys/@v/v0.2.0.zip", "/srv/cache/download/golang.org/x/sys/@v/v0.1.0.mod", "/srv/cache/x.zip", "/srv/golang.org/x/sys@v0.1.0/a.go"},
		},
		{
			vars:    "NUGET_HTTP_CACHE_PATH",
			residue: map[string]string{"/srv/" + hex(40) + "$ps:_api.nuget.org_v3_index.json/nupkg_a.1.0.0.dat": "nuget"},
			stays:   []string{"/srv/data", "/srv/" + hex(40) + "/a.dat", "/srv/" + hex(40) + "$x/mine"},
		},
		{
			vars:    "CARGO_HOME",
			residue: map[string]string{"/srv/registry/src/index.crates.io-6f17d22bba15001f/a/src/lib.rs": "cargo", "/srv/git/db/a-6f17d22bba15001f/HEAD": "cargo"},
			stays:   []string{"/srv/bin/tool", "/srv/registry/src/a", "/srv/git/db/a", "/srv/config.toml"},
		},
		{
			vars:    "GOMODCACHE,GOPATH",
			there:   map[string]string{"/srv/cache/download/golang.org/x/sys/@v/v0.1.0.ziphash": "", "/srv/pkg/mod/cache/download/a.org/b/@v/v1.0.0.ziphash": ""},
			residue: map[string]string{"/srv/golang.org/x/sys@v0.1.0/a@v1/a.go": "go-modules", "/srv/pkg/mod/a.org/b@v1.0.0/b.go": "go-modules", "/srv/cache/download/x/@v/v1.info": "go-modules"},
			stays:   []string{"/srv/cache/x", "/srv/mail/joe@v1.org/x", "/srv/golang.org/x/sys@v0.2.0/a.go", "/srv/pkg/mod/x", "/srv/a@b/c"},
		},
		{
			vars:    "GRADLE_USER_HOME",
			there:   map[string]string{"/srv/caches/journal-1": ""},
			residue: map[string]string{"/srv/caches/modules-2/files-2.1/a": "gradle", "/srv/caches/8.5/x": "gradle", "/srv/daemon/8.5/daemon-1.out.log": "gradle"},
			stays:   []string{"/srv/caches/x", "/srv/daemon/x", "/srv/wrapper/dists/x"},
		},
		{vars: "GRADLE_USER_HOME", stays: []string{"/srv/caches/8.5/x", "/srv/caches/modules-2/x"}},
		{
			vars:    "NUGET_PACKAGES",
			there:   map[string]string{"/srv/a/1.0.0/a.1.0.0.nupkg.sha512": "x"},
			residue: map[string]string{"/srv/a/1.0.0/lib/a.dll": "nuget-packages"},
			stays:   []string{"/srv/a", "/srv/a/2.0.0/lib/a.dll", "/srv/b/c"},
		},
	} {
		var env []string
		for v := range strings.SplitSeq(test.vars, ",") {
			env = append(env, v+"=/srv")
			met[v] = true
		}
		s := New(set(t, cmp.Or(test.rules, "all")), config(func(c *dockerspec.DockerOCIImageConfig) { c.Env = env }))
		look := func(path string) ([]byte, bool) { text, ok := test.there[path]; return []byte(text), ok }
		for _, path := range slices.Sorted(maps.Keys(test.residue)) {
			got := s.Find(path, look)
			if got.Rule != test.residue[path] {
				t.Errorf("%s: %s is of rule %q, want %q", test.vars, path, got.Rule, test.residue[path])
			}
			if !strings.HasPrefix(got.Root, "/srv") {
				t.Errorf("%s: %s is below %q", test.vars, path, got.Root)
			}
		}
		for _, path := range test.stays {
			if got := s.Find(path, look); got != (Residue{}) {
				t.Errorf("%s: %s is %v, and should stay", test.vars, path, got)
			}
		}
	}
	for _, v := range movers() {
		if !met[v] {
			t.Errorf("%s is not tried", v)
		}
	}
}

// What a variable says is a directory's name, to the letter.
func TestRoots(t *testing.T) {
	hex := strings.Repeat("0", 56)
	for _, test := range []struct{ env, path, rule string }{
		{"PIP_CACHE_DIR=/", "/selfcheck/" + hex, "pip"},
		{"PIP_CACHE_DIR=", "/selfcheck/" + hex, ""},
		{"PIP_CACHE_DIR=relative", "/relative/selfcheck/" + hex, ""},
		{"PIP_CACHE_DIR=/a/../b/", "/b/selfcheck/" + hex, "pip"},
		{"PIP_CACHE_DIR=/a*b", "/a*b/selfcheck/" + hex, "pip"},
		{"PIP_CACHE_DIR=/a*b", "/axb/selfcheck/" + hex, ""},
		{"PIP_CACHE_DIR=/a.b", "/axb/selfcheck/" + hex, ""},
	} {
		s := New(set(t, "all"), config(func(c *dockerspec.DockerOCIImageConfig) { c.Env = []string{test.env} }))
		if got := rule(s, test.path); got != test.rule {
			t.Errorf("%s: %s is of rule %q, want %q", test.env, test.path, got, test.rule)
		}
	}
}

// What the program is known to read stays, itself only; what no rule would take anyway changes no key.
func TestReadIsKept(t *testing.T) {
	s := New(set(t, "default"), config(nil), "root/.cache/pip/model", "/bin/sh")
	if got := rule(s, "/root/.cache/pip/model"); got != "" {
		t.Errorf("a file that is read is of rule %s", got)
	}
	if got := rule(s, "/root/.cache/pip/model/x"); got != "pip" {
		t.Errorf("a file below it is of rule %q", got)
	}
	if other := New(set(t, "default"), config(nil), "/root/.cache/pip/model", "/bin/true"); other.Key() != s.Key() {
		t.Error("a file that no rule takes is in the key")
	}
	if other := New(set(t, "default"), config(nil)); other.Key() == s.Key() {
		t.Error("a file that stays is not in the key")
	}
}

func TestNear(t *testing.T) {
	s := New(Set{"pip", "apt-logs"}, config(func(c *dockerspec.DockerOCIImageConfig) { c.Env = []string{"PIP_CACHE_DIR=/srv/pip"} }))
	for path, want := range map[string]bool{
		"/": true, "/srv": true, "/srv/pip": true, "/srv/pip/x/y": true, "/srv/pipes": false, "/usr": false, "/var": true, "/var/log/apt/x": true, "/var/lib": false, "/home": true, "/home/a/x": true,
	} {
		if got := s.Near(path); got != want {
			t.Errorf("%s: %t, want %t", path, got, want)
		}
	}
}
