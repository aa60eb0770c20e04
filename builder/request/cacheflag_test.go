package request

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shared is what a request reads and writes, and what is said of it.
func shared(t *testing.T, r Request) (string, error) {
	t.Helper()
	if r.Context == "" {
		r.Context = "."
	}
	if r.Tags == nil {
		r.Tags = []string{"app"}
	}
	r.Stdout, r.KeepModes, r.Epoch = io.Discard, true, "off"
	s, err := New(t.Context(), r, "dockerfile.v0")
	if err != nil {
		return "", err
	}
	defer s.Discard()
	if err := s.Examine(t.Context()); err != nil {
		return "", err
	}
	var lines []string
	for line := range strings.Lines(describe(s)) {
		if strings.HasPrefix(line, "from ") || strings.HasPrefix(line, "to ") || strings.HasPrefix(line, "warning ") {
			lines = append(lines, line)
		}
	}
	for _, n := range s.Notes {
		lines = append(lines, "note "+n+"\n")
	}
	return strings.Join(lines, ""), nil
}

const (
	onBranch = "GITLAB_CI=true CI_COMMIT_BRANCH=fix CI_DEFAULT_BRANCH=main"
	fork     = "GITLAB_CI=true CI_MERGE_REQUEST_IID=1 CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=fix CI_MERGE_REQUEST_TARGET_BRANCH_NAME=main CI_DEFAULT_BRANCH=main CI_MERGE_REQUEST_SOURCE_PROJECT_ID=8 CI_MERGE_REQUEST_PROJECT_ID=7"
	doubtful = "CI=woodpecker CI_PIPELINE_EVENT=pull_request CI_COMMIT_SOURCE_BRANCH=fix CI_COMMIT_TARGET_BRANCH=main CI_REPO_DEFAULT_BRANCH=main"
)

func TestCacheMeaning(t *testing.T) {
	newContext(t)
	private, public := writeKeys(t)
	const both = "from optbuild access=rw mode=max read=main ref=r.example/c scope=fix\nto optbuild access=rw mode=max read=main ref=r.example/c scope=fix\n"
	const note = "note cache: writes fix; reads main (GitLab)\n"
	for name, test := range map[string]struct {
		r    Request
		env  string
		want string
	}{
		"none":            {Request{}, onBranch, ""},
		"flag":            {Request{Cache: "r.example/c"}, onBranch, both + note},
		"environment":     {Request{}, onBranch + " OPTBUILD_CACHE=r.example/c", both + note},
		"flag counts":     {Request{Cache: "r.example/c"}, onBranch + " OPTBUILD_CACHE=r.example/d", both + note},
		"off":             {Request{Cache: "off"}, onBranch + " OPTBUILD_CACHE=r.example/c", ""},
		"environment off": {Request{}, onBranch + " OPTBUILD_CACHE=off", ""},
		"short name":      {Request{Cache: "acme/c"}, onBranch, strings.ReplaceAll(both, "r.example/c", "docker.io/acme/c") + note},
		"no git, no system": {Request{Cache: "r.example/c"}, "", "from optbuild access=rw mode=max ref=r.example/c scope=default\nto optbuild access=rw mode=max ref=r.example/c scope=default\n" +
			"note cache: writes default\n"},
		"adds up": {Request{Cache: "r.example/c", CacheFrom: []string{"a/b"}, CacheTo: []string{"type=inline"}}, onBranch,
			"from optbuild access=rw mode=max read=main ref=r.example/c scope=fix\nfrom registry ref=a/b\nto inline\nto optbuild access=rw mode=max read=main ref=r.example/c scope=fix\n" + note},
		"read only": {Request{Cache: "r.example/c,mode=ro"}, onBranch, "from optbuild access=ro mode=max read=fix,main ref=r.example/c\nnote cache: read only, as asked for; reads fix, then main (GitLab)\n"},
		"fork":      {Request{Cache: "r.example/c"}, fork, "from optbuild access=ro mode=max read=main ref=r.example/c\nnote cache: read only, a merge request from a fork; reads main (GitLab)\n"},
		"fork that wants to write": {Request{Cache: "r.example/c,mode=rw,scope=main"}, fork,
			"from optbuild access=ro mode=max read=main ref=r.example/c\nnote cache: read only, a merge request from a fork; reads main (GitLab)\n"},
		"may be a fork": {Request{Cache: "r.example/c"}, doubtful, "from optbuild access=ro mode=max read=main ref=r.example/c\n" +
			"note cache: read only, a pull request, and Woodpecker does not say whether it is from a fork; reads main (Woodpecker); --cache REPO,mode=rw writes all the same\n"},
		"may be a fork, and is none": {Request{Cache: "r.example/c,mode=rw"}, doubtful, both + "note cache: writes fix; reads main (Woodpecker)\n"},
		"scope":                      {Request{Cache: "r.example/c,scope=arm"}, onBranch, strings.NewReplacer("scope=fix", "scope=arm", "read=main", "read=fix,main").Replace(both) + "note cache: writes arm; reads fix, then main (GitLab)\n"},
		"comma in a name":            {Request{Cache: `r.example/c,"scope=a,b"`}, onBranch, strings.NewReplacer("scope=fix", "scope=a,b", "read=main", "read=fix,main").Replace(both) + "note cache: writes \"a,b\"; reads fix, then main (GitLab)\n"},
		"all keys": {Request{Cache: "r.example/c,mode=rw,mounts=off,max-age=30d,max-size=20GB,sign=" + private + ",trust=" + public}, onBranch,
			strings.ReplaceAll(both, "access=rw mode=max read=main ref=r.example/c scope=fix", "access=rw max-age=2592000 max-size=20000000000 mode=max mounts=off read=main ref=r.example/c scope=fix sign="+abs(t, private)+" trust="+abs(t, public)) + note},
		"fork without the secret": {Request{Cache: "r.example/c,sign=gone"}, fork, "from optbuild access=ro mode=max read=main ref=r.example/c\nnote cache: read only, a merge request from a fork; reads main (GitLab)\n"},
		"read only with a key":    {Request{Cache: "r.example/c,mode=ro,sign=" + private}, onBranch, "from optbuild access=ro mode=max read=fix,main ref=r.example/c\nnote cache: read only, as asked for; reads fix, then main (GitLab)\n"},
		"mounts that stay":        {Request{Cache: `r.example/c,mounts-off=npm,"mounts-off=a,b",mounts-off=/root/.cache`}, onBranch, strings.ReplaceAll(both, "mode=max read", `mode=max mounts-off=npm,"a,b",/root/.cache read`) + note},
		"mounts on":               {Request{Cache: "r.example/c,mounts=on"}, onBranch, both + note},
		"remote context":          {Request{Cache: "r.example/c", Context: "https://example.com/x.git"}, onBranch, both + note},
		"question":                {Request{Cache: "r.example/c", Call: "check"}, onBranch, ""},
		"standard input":          {Request{Cache: "r.example/c", Context: "-", Stdin: strings.NewReader("FROM x")}, "", "from optbuild access=rw mode=max ref=r.example/c scope=default\nto optbuild access=rw mode=max ref=r.example/c scope=default\nnote cache: writes default\n"},
		"registry with a port":    {Request{Cache: "localhost:5000/c"}, onBranch, strings.ReplaceAll(both, "r.example/c", "localhost:5000/c") + note},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.r
			r.Environ = strings.Fields(test.env)
			got, err := shared(t, r)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

func TestCacheRefused(t *testing.T) {
	dir := newContext(t)
	private, public := writeKeys(t)
	write(t, "empty", "")
	for value, want := range map[string]string{
		"r.example/c:tag": "names a tag or a digest, and a cache has tags of its own: leave it out (r.example/c)",
		"r.example/c@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": "names a tag or a digest, and a cache has tags of its own: leave it out (r.example/c)",
		"cache":                         "is docker.io/library/cache, which only Docker can write to: name registry and repository, as in registry.example.com/cache",
		"https://r.example/c":           "is not REGISTRY/REPOSITORY: invalid reference format",
		"r.example/C":                   "is not REGISTRY/REPOSITORY: invalid reference format: repository name (C) must be lowercase",
		"type=registry,ref=r.example/c": "begins with type=registry: a repository comes first, REPO[,key=value...]; caches of other types are --cache-from and --cache-to",
		",mode=ro":                      "is not REGISTRY/REPOSITORY: invalid reference format",
		"r.example/c,ro":                "ro is not KEY=VALUE; keys are scope, mode, mounts, mounts-off, max-age, max-size, sign and trust",
		"r.example/c,made=ro":           "made is no key; keys are scope, mode, mounts, mounts-off, max-age, max-size, sign and trust",
		"r.example/c,mode=max":          "mode=max is neither rw (read and write) nor ro (read only)",
		"r.example/c,mode=ro,mode=rw":   "mode is given twice",
		"r.example/c,scope=":            `scope="" is no name of a scope: some letters and digits, as in scope=release-1.x`,
		"r.example/c,scope=a\x1bb":      `scope="a\x1bb" is no name of a scope: some letters and digits, as in scope=release-1.x`,
		"r.example/c,mounts-off=":       "mounts-off=\"\" is no id of a cache mount: what stands behind id= in RUN --mount=type=cache, or behind target= where there is none",
		"r.example/c,mounts=no":         "mounts=no is neither on (contents of cache mounts travel) nor off",
		"r.example/c,max-age=soon":      `max-age: "soon" is not an age (like 30d, 2w or 12h)`,
		"r.example/c,max-size=big":      `max-size: "big" is not a size (like 20GB or 500MiB)`,
		"r.example/c,max-size=0":        "max-size: is nothing: mode=ro adds nothing to a cache",
		"r.example/c,sign=gone":         "sign=gone: no such file or directory; make one with: openssl genpkey -algorithm ed25519 -out FILE",
		"r.example/c,sign=empty":        "sign=empty: read signing key DIR/empty: there is no private key in it; make one with: openssl genpkey -algorithm ed25519 -out FILE",
		"r.example/c,sign=" + public:    "sign=" + public + ": read signing key DIR/keys/public.pem: there is no private key in it; make one with: openssl genpkey -algorithm ed25519 -out FILE",
		"r.example/c,trust=" + private:  "trust=" + private + `: read trusted keys DIR/keys/private.pem: there is a "PRIVATE KEY" in it; make it from a private one with: openssl pkey -in PRIVATE -pubout -out FILE`,
		"r.example/c,trust=/dev/null":   "trust=/dev/null: is not a regular file; make it from a private one with: openssl pkey -in PRIVATE -pubout -out FILE",
		`r.example/c,"scope=a`:          `parse error on line 1, column 14: extraneous or missing " in quoted-field`,
	} {
		for _, r := range []Request{{Cache: value}, {Environ: []string{"OPTBUILD_CACHE=" + value}}} {
			_, err := shared(t, r)
			want := "--cache " + value + ": " + want
			if r.Cache == "" {
				want += " (from OPTBUILD_CACHE)"
			}
			var fe *FlagError
			if !errors.As(err, &fe) || strings.ReplaceAll(err.Error(), dir+"/", "DIR/") != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		}
	}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	return must(filepath.Abs(path))
}

// writeKeys makes a private and a public key, as openssl does.
func writeKeys(t *testing.T) (private, public string) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, "keys/private.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(priv))})))
	one := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(pub))})
	write(t, "keys/public.pem", string(one)+string(one))
	return "keys/private.pem", "keys/public.pem"
}

// TestCacheBranches: what git says of the context, in the shapes that checkouts have.
func TestCacheBranches(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := newContext(t)
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	run := func(in string, args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", in, "-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	expect := func(what, context, want string) {
		t.Helper()
		got, err := shared(t, Request{Cache: "r.example/c", Context: context})
		if err != nil {
			t.Fatal(err)
		}
		if _, note, _ := strings.Cut(got, "note cache: "); note != want+"\n" {
			t.Errorf("%s: got %q, want %q", what, note, want)
		}
	}
	run(dir, "init", "-q", "-b", "trunk", "origin")
	write(t, "origin/Dockerfile", "FROM scratch\n")
	write(t, "origin/sub/Dockerfile", "FROM scratch\n")
	expect("no commit yet", "origin", "writes trunk (git)")
	run("origin", "add", ".")
	run("origin", "commit", "-q", "-m", "x")
	run("origin", "branch", "main")
	run("origin", "branch", "master")
	run("origin", "branch", "hostile,\u202ex")
	expect("a local main", "origin", "writes trunk; reads main (git)")

	run(dir, "clone", "-q", "origin", "clone")
	expect("a clone", "clone", "writes trunk (git)")
	run("clone", "checkout", "-q", "-b", "fix/1")
	expect("a branch", "clone", "writes fix/1; reads trunk (git)")
	expect("below the root", "clone/sub", "writes fix/1; reads trunk (git)")
	run("clone", "checkout", "-q", "hostile,\u202ex")
	expect("an odd name", "clone", `writes "hostile,\u202ex"; reads trunk (git)`)
	run("clone", "worktree", "add", "-q", "-b", "linked", "../linked")
	expect("a linked work tree", "linked", "writes linked; reads trunk (git)")
	run("clone", "checkout", "-q", "--detach")
	expect("detached", "clone", "writes default; reads trunk")
	run("clone", "checkout", "-q", "fix/1")
	run("clone", "remote", "set-head", "origin", "-d")
	expect("no head of the remote", "clone", "writes fix/1; reads main (git)")
	run("clone", "pack-refs", "--all")
	expect("packed", "clone", "writes fix/1; reads main (git)")
	run("clone", "update-ref", "-d", "refs/remotes/origin/main")
	expect("master", "clone", "writes fix/1; reads master (git)")

	run(dir, "clone", "-q", "--depth=1", "--single-branch", "-b", "main", "file://"+dir+"/origin", "shallow")
	expect("a shallow one", "shallow", "writes main (git)")

	// Another user's repository, as in containers of CI systems: nothing is run for the question.
	run("clone", "config", "core.fsmonitor", dir+"/planted")
	write(t, "planted", "#!/bin/sh\ntouch "+dir+"/ran\n")
	if err := os.Chmod("planted", 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := filepath.WalkDir("clone", func(p string, _ os.DirEntry, err error) error { return errors.Join(err, os.Lchown(p, 1234, 1234)) }); err != nil {
			t.Fatal(err)
		}
	}
	expect("somebody else's", "clone", "writes fix/1; reads master (git)")
	if _, err := os.Stat("ran"); err == nil {
		t.Error("a program that the repository names has run")
	}
	t.Setenv("PATH", "")
	expect("no git", "clone", "writes default")
}
