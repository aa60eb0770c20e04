package strip

import (
	"os"
	"slices"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func config(f func(*dockerspec.DockerOCIImageConfig)) Config {
	var c dockerspec.DockerOCIImageConfig
	c.WorkingDir = "/"
	if f != nil {
		f(&c)
	}
	return Config(c)
}

func set(t *testing.T, text string) Set {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRuleOfPath(t *testing.T) {
	env := func(list ...string) Config {
		return config(func(c *dockerspec.DockerOCIImageConfig) { c.Env = list })
	}
	for _, test := range []struct {
		set    string
		config Config
		path   string
		rule   string
	}{
		{"default", env(), "/var/lib/apt/lists/deb.debian.org_InRelease", "apt-lists"},
		{"default", env(), "/var/lib/apt/lists", ""},
		{"default", env(), "/var/lib/apt/listsx/a", ""},
		{"default", env(), "/var/cache/apt/archives/x.deb", "apt-archives"},
		{"default", env(), "/var/cache/apt/archives/lock", ""},
		{"default", env(), "/var/cache/debconf/config.dat", ""},
		{"all", env(), "/var/cache/debconf/config.dat", "debconf"},
		{"default", env(), "/var/cache/debconf/config.dat-old", "dpkg-old"},
		{"default", env(), "/var/lib/dpkg/status", ""},
		{"default", env(), "/var/lib/dpkg/status-old", "dpkg-old"},
		{"default", env(), "/root/.npm/_cacache", "npm"},
		{"default", env(), "/home/node/.npm/_cacache/index-v5/a", "npm"},
		{"default", env(), "/home/a/b/.npm/_cacache", ""},
		{"default", env(), "/root/.npm/_npx/1/node_modules/x", ""},
		{"default", env("npm_config_cache=c"), "/c/_cacache/x", ""},
		{"default", env("HOME=/data"), "/data/.cache/pip/http/x", "pip"},
		{"default", env(), "/root/.yarn/berry/cache/a.zip", ""},
		{"default", env(), "/root/.cache/go-build/ab/abcd-d", "go"},
		{"default", env(), "/root/.m2/repository/a", ""},
		{"all", env(), "/root/.m2/repository/a", "maven"},
		{"default", env(), "/tmp/a", ""},
		{"tmp", env(), "/tmp/a", "tmp"},
		{"tmp", env(), "/var/log/dpkg.log", ""},
		{"-apt-logs", env(), "/var/log/dpkg.log", ""},
		{"-apt-logs", env(), "/var/lib/apt/lists/x", "apt-lists"},
		{"default,tmp", env(), "/var/lib/apt/lists/x", "apt-lists"},
		{"off", env(), "/var/lib/apt/lists/x", ""},
	} {
		if got := rule(New(set(t, test.set), test.config), test.path); got != test.rule {
			t.Errorf("--strip=%s with %q: %s is of rule %q, want %q", test.set, test.config.Env, test.path, got, test.rule)
		}
	}
}

// What the configuration names is kept, with all that is below it.
func TestNamedIsKept(t *testing.T) {
	for name, f := range map[string]func(*dockerspec.DockerOCIImageConfig){
		"volume":       func(c *dockerspec.DockerOCIImageConfig) { c.Volumes = map[string]struct{}{"/tmp/data": {}} },
		"volume above": func(c *dockerspec.DockerOCIImageConfig) { c.Volumes = map[string]struct{}{"/tmp/": {}} },
		"command":      func(c *dockerspec.DockerOCIImageConfig) { c.Cmd = []string{"cat", "/tmp/data/file"} },
		"command of a shell": func(c *dockerspec.DockerOCIImageConfig) {
			c.Cmd = []string{"sh", "-c", "exec java -jar='/tmp/data/file';"}
		},
		"entrypoint": func(c *dockerspec.DockerOCIImageConfig) { c.Entrypoint = []string{"/tmp/data/file"} },
		"relative":   func(c *dockerspec.DockerOCIImageConfig) { c.Cmd = []string{"sh", "tmp/data/file"} },
		"home": func(c *dockerspec.DockerOCIImageConfig) {
			c.Env, c.Cmd = []string{"HOME=/tmp"}, []string{"sh", "-c", "~/data/file"}
		},
		"home's variable": func(c *dockerspec.DockerOCIImageConfig) {
			c.Env, c.Cmd = []string{"HOME=/tmp"}, []string{"sh", "-c", "exec ${HOME}/data/file"}
		},
		"another variable": func(c *dockerspec.DockerOCIImageConfig) {
			c.Env, c.Cmd = []string{"PIP_CACHE_DIR=/tmp"}, []string{"sh", "-c", "exec $PIP_CACHE_DIR/data/file"}
		},
		"variable":          func(c *dockerspec.DockerOCIImageConfig) { c.Env = []string{"PATH=/bin:/tmp/data"} },
		"working directory": func(c *dockerspec.DockerOCIImageConfig) { c.WorkingDir = "/tmp/data" },
		"label":             func(c *dockerspec.DockerOCIImageConfig) { c.Labels = map[string]string{"a": "see /tmp/data"} },
		"trigger":           func(c *dockerspec.DockerOCIImageConfig) { c.OnBuild = []string{"COPY --from=x /tmp/data /a"} },
		"health": func(c *dockerspec.DockerOCIImageConfig) {
			c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "/tmp/data/file"}}
		},
		"path with a dot in it":  func(c *dockerspec.DockerOCIImageConfig) { c.Cmd = []string{"/tmp/./data/../data/file"} },
		"directory with a slash": func(c *dockerspec.DockerOCIImageConfig) { c.Cmd = []string{"ls", "/tmp/data/"} },
	} {
		s := New(set(t, "all"), config(f))
		if got := rule(s, "/tmp/data/file"); got != "" {
			t.Errorf("%s: /tmp/data/file is of rule %q", name, got)
		}
		if name != "volume above" {
			if got := rule(s, "/tmp/database"); got != "tmp" {
				t.Errorf("%s: /tmp/database is of rule %q, want tmp", name, got)
			}
		}
	}
}

func TestParse(t *testing.T) {
	if _, err := Parse("apt"); err == nil || !strings.Contains(err.Error(), "apt-lists") {
		t.Errorf("an unknown rule: %v", err)
	}
	for _, text := range []string{"off", "all", "default", "tmp", "-tmp"} {
		s := set(t, text)
		if again := set(t, s.String()); !slices.Equal(again, s) {
			t.Errorf("%s: %v is read as %v", text, s, again)
		}
	}
}

// Each rule has a section in the README, and each section a rule.
func TestPages(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var pages []string
	for line := range strings.SplitSeq(string(b), "\n") {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			pages = append(pages, name)
		}
	}
	if names := Names(); !slices.Equal(pages, names) {
		t.Errorf("README.md has %q, the table %q", pages, names)
	}
}
