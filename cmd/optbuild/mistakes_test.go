package main

import (
	"io"
	"strings"
	"testing"
)

func TestMistakes(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"build", "build takes one argument, the context: a directory, a URL, or - for standard input; none was given | to build the current directory: optbuild build ."},
		{"build -t a b .", "build takes one argument, the context: a directory, a URL, or - for standard input; got 2: b . | flags that are given twice have their name twice: -t one -t two"},
		{"build . -t", "-t needs a value (see `optbuild build --help`)"},
		{"build . --root", "--root needs a value (see `optbuild --help`)"},
		{"build --tga app .", "unknown flag --tga (see `optbuild build --help`) | did you mean --tag?"},
		{"build --no-chache .", "unknown flag --no-chache (see `optbuild build --help`) | did you mean --no-cache?"},
		{"build --wholly-unlike .", "unknown flag --wholly-unlike (see `optbuild build --help`)"},
		{"image ls --fromat x", "unknown flag --fromat (see `optbuild image ls --help`) | did you mean --format?"},
		{"--rot /x build .", "unknown flag --rot (see `optbuild --help`) | did you mean --root?"},
		{"build --pull=maybe .", "--pull=maybe: is not true or false"},
		{"build --rewrites=few .", "--rewrites=few: is not what the flag takes (see `optbuild build --help`)"},
		{"profile --for=long app", "--for=long: is not what the flag takes (see `optbuild profile --help`)"},
		{"build --iidfile none/id .", "--iidfile none/id: there is no directory none"},
		{"build --metadata-file mistakes.go/id .", "--metadata-file mistakes.go/id: there is no directory mistakes.go"},
		{"image prune", "unknown command \"image prune\" (see `optbuild image --help`) | an image that loses its name is not kept; `optbuild rmi` removes named ones, `optbuild prune` the cache"},
		{"builder create", "unknown command \"buildx create\" (see `optbuild buildx --help`) | there is one builder, in the command's own process tree; nothing has to be created"},
	} {
		app := newApp()
		app.Writer, app.ErrWriter = io.Discard, io.Discard
		err := app.Run(normaliseArgs(append([]string{"optbuild"}, strings.Fields(test.in)...)))
		if err == nil {
			t.Errorf("optbuild %s: no error", test.in)
			continue
		}
		checkMistake(t, test.in, test.want, err)
	}
}

func TestUnknownCommand(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"biuld", "unknown command \"biuld\" (see `optbuild --help`) | did you mean optbuild build?"},
		{"image lss", "unknown command \"image lss\" (see `optbuild image --help`) | did you mean optbuild image ls?"},
		{"run", "unknown command \"run\" (see `optbuild --help`) | " + noContainers},
		{"unlike", "unknown command \"unlike\" (see `optbuild --help`)"},
	} {
		checkMistake(t, test.in, test.want, unknownCommand(test.in))
	}
}

func checkMistake(t *testing.T, in, want string, err error) {
	t.Helper()
	got := messageFor(err)
	if hint := hintFor(err); hint != "" {
		got += " | " + hint
	}
	if got != want {
		t.Errorf("optbuild %s\ngot  %s\nwant %s", in, got, want)
	}
	if code := exitCode(err); code != exitUsage {
		t.Errorf("optbuild %s: exit code %d", in, code)
	}
}
