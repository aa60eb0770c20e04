package request

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestProjectFile: where a project's file is looked for, and who is believed.
func TestProjectFile(t *testing.T) {
	dir := newContext(t)
	write(t, "plain/Dockerfile", "FROM scratch\n")
	write(t, "plain/.optbuild.toml", "# where CI keeps what it has built\ncache = \"r.example/c\"\n")
	write(t, "options/Dockerfile", "FROM scratch\n")
	write(t, "options/.optbuild.toml", "cache = 'r.example/c,scope=arm,mode=ro,max-age=7d'\n")
	write(t, "empty/Dockerfile", "FROM scratch\n")
	write(t, "empty/.optbuild.toml", "")
	write(t, "tree/.git/HEAD", "ref: refs/heads/fix\n")
	write(t, "tree/.optbuild.toml", "cache = \"r.example/root\"\n")
	write(t, "tree/a/b/Dockerfile", "FROM scratch\n")
	write(t, "tree/own/Dockerfile", "FROM scratch\n")
	write(t, "tree/own/.optbuild.toml", "cache = \"r.example/own\"\n")
	write(t, "tree/off/Dockerfile", "FROM scratch\n")
	write(t, "tree/off/.optbuild.toml", "cache = \"off\"\n")
	write(t, "above/.optbuild.toml", "cache = \"r.example/above\"\n") // no work tree: of no meaning to what is below
	write(t, "above/sub/Dockerfile", "FROM scratch\n")

	cache := func(ref string) string {
		entry := " optbuild access=rw mode=max read=main ref=" + ref + " scope=fix\n"
		return "from" + entry + "to" + entry + "note cache: writes fix; reads main (GitLab); .optbuild.toml names " + ref + "\n"
	}
	flag := strings.ReplaceAll(cache("r.example/flag"), "; .optbuild.toml names r.example/flag", "")
	for name, test := range map[string]struct {
		r    Request
		env  string
		want string
	}{
		"in the context":             {Request{Context: "plain"}, onBranch, cache("r.example/c")},
		"in the work tree's root":    {Request{Context: "tree/a/b"}, onBranch, cache("r.example/root")},
		"in the context before that": {Request{Context: "tree/own"}, onBranch, cache("r.example/own")},
		"off below":                  {Request{Context: "tree/off"}, onBranch, ""},
		"above, no work tree":        {Request{Context: "above/sub"}, onBranch, ""},
		"empty":                      {Request{Context: "empty"}, onBranch, ""},
		"options":                    {Request{Context: "options"}, onBranch, "from optbuild access=ro max-age=604800 mode=max read=arm,fix,main ref=r.example/c\nnote cache: read only, as asked for; reads arm, then fix, then main (GitLab); .optbuild.toml names r.example/c\n"},
		"flag counts":                {Request{Context: "plain", Cache: "r.example/flag"}, onBranch, flag},
		"environment counts":         {Request{Context: "plain"}, onBranch + " OPTBUILD_CACHE=r.example/flag", flag},
		"flag off":                   {Request{Context: "plain", Cache: "off"}, onBranch, ""},
		"environment off":            {Request{Context: "plain"}, onBranch + " OPTBUILD_CACHE=off", ""},
		"a person's machine":         {Request{Context: "plain"}, "HOME=/root", "note cache: .optbuild.toml names r.example/c, which is not used: --cache=project or OPTBUILD_CACHE=project uses it\n"},
		"a person who asks for it":   {Request{Context: "plain", Cache: "project"}, onBranch, cache("r.example/c")},
		"an environment that does":   {Request{Context: "plain"}, onBranch + " OPTBUILD_CACHE=project", cache("r.example/c")},
		"question":                   {Request{Context: "plain", Call: "check"}, onBranch, ""},
		"a stranger's":               {Request{Context: "plain"}, fork, "note cache: .optbuild.toml is not followed, a merge request from a fork: what --cache or OPTBUILD_CACHE names would be read\n"},
		"perhaps a stranger's":       {Request{Context: "plain"}, doubtful, "note cache: .optbuild.toml is not followed, a pull request, and Woodpecker does not say whether it is from a fork: what --cache or OPTBUILD_CACHE names would be read\n"},
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

	// The file of a context that is fetched, or that comes as an archive, is nobody's word, even if the command is run where one lies.
	t.Chdir("plain")
	for _, r := range []Request{{Context: "https://example.com/x.git"}, {Context: "-", Stdin: strings.NewReader("FROM x")}, {Context: "https://example.com/x.tar.gz"}} {
		r.Environ = strings.Fields(onBranch)
		if got, err := shared(t, r); err != nil || got != "" {
			t.Errorf("%s: got %s, %v", r.Context, got, err)
		}
	}

	if os.Geteuid() != 0 {
		t.Skip("only root can give files to other users")
	}
	// Anybody can put files into /tmp. In a container, a checkout is somebody else's as a whole.
	t.Chdir(dir)
	chown := func(uid int, paths ...string) {
		for _, p := range paths {
			if err := os.Lchown(p, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	env := strings.Fields(onBranch)
	chown(1234, "tree/.optbuild.toml", "plain/.optbuild.toml")
	for context, path := range map[string]string{"tree/a/b": "tree/.optbuild.toml", "plain": "plain/.optbuild.toml"} {
		if got, err := shared(t, Request{Context: context, Environ: env}); err != nil || got != "warning "+dir+"/"+path+" is ignored: it belongs to another user than the context\n" {
			t.Errorf("%s: got %s, %v", context, got, err)
		}
	}
	chown(1234, "tree/a/b", "plain")
	for context, ref := range map[string]string{"tree/a/b": "r.example/root", "plain": "r.example/c"} {
		if got, err := shared(t, Request{Context: context, Environ: env}); err != nil || got != cache(ref) {
			t.Errorf("%s: got %s, %v", context, got, err)
		}
	}
}

// A person's machine is asked for what it has not: the project names no cache.
func TestProjectFileMissing(t *testing.T) {
	newContext(t)
	write(t, "plain/Dockerfile", "FROM scratch\n")
	_, err := shared(t, Request{Context: "plain", Cache: "project"})
	if err == nil || !strings.Contains(err.Error(), "there is no .optbuild.toml that names one") {
		t.Error(err)
	}
}

func TestProjectFileRefused(t *testing.T) {
	dir := newContext(t)
	write(t, "secret", "password = \"x\"\n")
	for name, test := range map[string]struct {
		make func() error
		want string
	}{
		"unknown key":   {func() error { return os.WriteFile(ProjectFile, []byte("\ncach = \"r.example/c\"\n"), 0o644) }, `:2: unknown key "cach"`},
		"no TOML":       {func() error { return os.WriteFile(ProjectFile, []byte("cache r.example/c\n"), 0o644) }, ":1: expected '=' after key"},
		"another type":  {func() error { return os.WriteFile(ProjectFile, []byte("# x\ncache = 1\n"), 0o644) }, ":2: cannot decode TOML integer into struct field request.project.Cache of type string"},
		"wrong value":   {func() error { return os.WriteFile(ProjectFile, []byte("cache = 'r.example/c:1'\n"), 0o644) }, `: cache = "r.example/c:1": names a tag or a digest, and a cache has tags of its own: leave it out (r.example/c)`},
		"key":           {func() error { return os.WriteFile(ProjectFile, []byte("cache = 'r.example/c,trust=k'\n"), 0o644) }, `: cache = "r.example/c,trust=k": trust names a file of the person who builds: it goes into --cache or OPTBUILD_CACHE`},
		"link":          {func() error { return os.Symlink("secret", ProjectFile) }, ": is not a regular file"},
		"pipe":          {func() error { return syscall.Mkfifo(ProjectFile, 0o644) }, ": is not a regular file"},
		"directory":     {func() error { return os.Mkdir(ProjectFile, 0o755) }, ": is not a regular file"},
		"without bound": {func() error { return os.WriteFile(ProjectFile, make([]byte, projectLimit+1), 0o644) }, ": is larger than 64 kB"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(ProjectFile), test.make()); err != nil {
				t.Fatal(err)
			}
			_, err := shared(t, Request{})
			var ie *InputError
			if want := dir + "/" + ProjectFile + test.want; !errors.As(err, &ie) || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if got, err := shared(t, Request{Cache: "off"}); err != nil || got != "" {
				t.Errorf("with --cache off: got %s, %v", got, err)
			}
		})
	}
}
