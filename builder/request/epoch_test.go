package request

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestEpoch has a row for each way in which an image gets its times: what was asked for, the state of the checkout, and what the outputs are told.
func TestEpoch(t *testing.T) {
	const committed = "1000000007"
	env := []string{"SOURCE_DATE_EPOCH=5"}
	dirty := func(t *testing.T) { write(t, "file", "y") }
	for name, test := range map[string]struct {
		r      Request
		change func(*testing.T)
		want   string // of the attributes of the image; "!" and an error
		note   string
	}{
		"clean":                 {Request{}, nil, "source-date-epoch=" + committed, "times: the image is dated with its commit, 2001-09-09T01:46:47Z"},
		"changed":               {Request{}, dirty, "", ""},
		"untracked":             {Request{}, func(t *testing.T) { write(t, "new", "x") }, "", ""},
		"staged":                {Request{}, func(t *testing.T) { write(t, "file", "y"); runGit(t, "add", "file") }, "", ""},
		"gone":                  {Request{}, func(t *testing.T) { os.Remove("file") }, "", ""},
		"ignored":               {Request{}, func(t *testing.T) { write(t, ".git/info/exclude", "new\n"); write(t, "new", "x") }, "source-date-epoch=" + committed, "times: the image is dated with its commit"},
		"no repository":         {Request{}, func(t *testing.T) { os.RemoveAll(".git") }, "", ""},
		"no commit":             {Request{}, func(t *testing.T) { os.RemoveAll(".git"); runGit(t, "init", "-q"); runGit(t, "add", ".") }, "", ""},
		"programs":              {Request{}, func(t *testing.T) { runGit(t, "config", "filter.x.clean", "touch "+t.TempDir()) }, "", ""},
		"a say of its own":      {Request{}, func(t *testing.T) { write(t, "Dockerfile", "ARG SOURCE_DATE_EPOCH=1\nFROM x\n"); commit(t) }, "", ""},
		"off":                   {Request{Epoch: "off"}, nil, "", ""},
		"to the letter":         {Request{Exact: true}, nil, "", ""},
		"environment":           {Request{Environ: env}, nil, "rewrite-timestamp=true", ""},
		"environment, exact":    {Request{Environ: env, Exact: true}, nil, "", ""},
		"environment, off":      {Request{Environ: env, Epoch: "off"}, nil, "", ""},
		"argument":              {Request{BuildArgs: []string{"SOURCE_DATE_EPOCH=5"}}, nil, "rewrite-timestamp=true", ""},
		"git":                   {Request{Epoch: "git"}, nil, "rewrite-timestamp=true source-date-epoch=" + committed, ""},
		"git, changed":          {Request{Epoch: "git"}, dirty, "rewrite-timestamp=true source-date-epoch=" + committed, "times: the context has changes that are not committed"},
		"git, no repository":    {Request{Epoch: "git"}, func(t *testing.T) { os.RemoveAll(".git") }, "!--epoch=git: is not a checkout of a git repository", ""},
		"git, remote":           {Request{Epoch: "git", Context: "https://git.example/x.git"}, nil, "!--epoch=git: the context is no local directory", ""},
		"seconds":               {Request{Epoch: "0"}, nil, "rewrite-timestamp=true source-date-epoch=0", ""},
		"seconds, environment":  {Request{Epoch: "7", Environ: env}, nil, "rewrite-timestamp=true source-date-epoch=7", ""},
		"output's own":          {Request{Epoch: "7", Outputs: []string{"type=image,source-date-epoch=8,rewrite-timestamp=false"}}, nil, "rewrite-timestamp=false source-date-epoch=8", ""},
		"directory, clean":      {Request{Outputs: []string{"out"}}, nil, "", ""},
		"directory, seconds":    {Request{Epoch: "7", Outputs: []string{"out"}}, nil, "source-date-epoch=7", ""},
		"directory, git":        {Request{Epoch: "git", Outputs: []string{"out"}}, nil, "source-date-epoch=" + committed, ""},
		"something else":        {Request{Epoch: "now"}, nil, "!--epoch now: is not auto, git, off or a number of seconds since 1970", ""},
		"a question, not built": {Request{Call: "check"}, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "Dockerfile", "FROM x\n")
			write(t, "file", "x")
			newRepository(t)
			if test.change != nil {
				test.change(t)
			}
			r := test.r
			if r.Context == "" {
				r.Context = "."
			}
			s, err := New(t.Context(), r, "dockerfile.v0")
			if err == nil {
				defer s.Discard()
				err = s.Examine(t.Context())
			}
			if err != nil {
				if !strings.HasPrefix(test.want, "!") || !strings.HasSuffix(err.Error(), test.want[1:]) {
					t.Errorf("got %v, want %s", err, test.want)
				}
				return
			}
			got := ""
			for line := range strings.Lines(describe(s)) {
				if strings.HasPrefix(line, "output ") {
					for _, word := range strings.Fields(line) {
						if strings.Contains(word, "epoch") || strings.Contains(word, "rewrite") {
							got = strings.TrimSpace(got + " " + word)
						}
					}
				}
			}
			notes := strings.Join(s.Notes, "\n")
			if got != test.want || !strings.HasPrefix(notes, test.note) || test.note == "" && notes != "" {
				t.Errorf("got  %s, %q\nwant %s, %q", got, notes, test.want, test.note)
			}
			if given := s.FrontendAttrs["build-arg:SOURCE_DATE_EPOCH"] != ""; given != (r.Environ != nil || r.BuildArgs != nil) {
				t.Errorf("steps see SOURCE_DATE_EPOCH: %v", given)
			}
		})
	}
}

// TestRepositoryPrograms: what a context's repository names as programs is not run.
func TestRepositoryPrograms(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "Dockerfile", "FROM x\n")
	write(t, "file", "x")
	write(t, ".gitattributes", "file filter=evil\n")
	newRepository(t)
	ran := t.TempDir() + "/ran"
	runGit(t, "config", "filter.evil.clean", "touch "+ran+"; cat")
	runGit(t, "config", "filter.evil.process", "touch "+ran)
	runGit(t, "config", "core.fsmonitor", "touch "+ran)
	runGit(t, "config", "core.pager", "touch "+ran)
	write(t, "file", "z")
	examine := func(epoch string) error {
		s, err := New(t.Context(), Request{Context: ".", Epoch: epoch}, "dockerfile.v0")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Discard()
		defer sent(t, s.LocalMounts["context"])
		return s.Examine(t.Context())
	}
	if err := errors.Join(examine("auto"), examine("git")); err != nil {
		t.Fatal(err)
	}
	// A clone that lacks the commit would fetch it.
	for key, value := range map[string]string{"extensions.partialClone": "origin", "remote.origin.url": "ssh://host.invalid/x", "remote.origin.promisor": "true", "core.sshCommand": "touch " + ran + "; false", "ssh.variant": "simple"} {
		runGit(t, "config", key, value)
	}
	runGit(t, "config", "core.repositoryFormatVersion", "1")
	if err := os.RemoveAll(".git/objects"); err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(".git/objects/pack", 0o755)
	if err := examine("git"); err == nil {
		t.Error("a commit that is not there has a time")
	}
	if err := examine("auto"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program of the repository was run")
	}
}
