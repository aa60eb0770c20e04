package main

import (
	"slices"
	"strings"
	"testing"
)

func TestNormaliseArgs(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"optbuild", "optbuild"},
		{"optbuild --help", "optbuild --help"},
		{"optbuild build .", "optbuild build -- ."},
		{"optbuild build . -t app", "optbuild build -t app -- ."},
		{"optbuild build . -tapp -fDockerfile", "optbuild build -t app -f Dockerfile -- ."},
		{"optbuild build -t=app .", "optbuild build -t app -- ."},
		{"optbuild build --tag=app . --tag=", "optbuild build --tag app --tag <> -- ."},
		{"optbuild build -tapp=1 .", "optbuild build -t app=1 -- ."},
		{"optbuild build --build-arg A=B=C .", "optbuild build --build-arg A=B=C -- ."},
		{"optbuild build --build-arg=A=B=C .", "optbuild build --build-arg A=B=C -- ."},
		{"optbuild build -f - .", "optbuild build -f - -- ."},
		{"optbuild build - -f x", "optbuild build -f x -- -"},
		{"optbuild build -f -x .", "optbuild build -f -x -- ."},
		{"optbuild build --no-cache .", "optbuild build --no-cache -- ."},
		{"optbuild build . --no-cache=false --pull", "optbuild build --no-cache=false --pull -- ."},
		{"optbuild build -q=true .", "optbuild build -q=true -- ."},
		{"optbuild build -qt app .", "optbuild build -q -t app -- ."},
		{"optbuild build -qtapp .", "optbuild build -q -t app -- ."},
		{"optbuild build . -D", "optbuild -D build -- ."},
		{"optbuild build -qD .", "optbuild -D build -q -- ."},
		{"optbuild build . --root /x", "optbuild --root /x build -- ."},
		{"optbuild --root /x build .", "optbuild --root /x build -- ."},
		{"optbuild --root=/x -D build .", "optbuild --root /x -D build -- ."},
		{"optbuild build -- -t", "optbuild build -- -t"},
		{"optbuild build . -- x -t y", "optbuild build -- . x -t y"},
		{"optbuild build . --nope", "optbuild build --nope -- ."},
		{"optbuild build . --nope=x", "optbuild build --nope=x -- ."},
		{"optbuild build -t", "optbuild build -t"},
		{"optbuild build . -t", "optbuild build -t"},
		{"optbuild build . --root", "optbuild --root"},
		{"optbuild image ls -q x --format", "optbuild image ls --format"},
		{"optbuild image ls x --root", "optbuild --root"},
		{"optbuild --root", "optbuild --root"},
		{"optbuild --version", "optbuild version"},
		{"optbuild -v", "optbuild version"},
		{"optbuild buildx build . -t app -D", "optbuild -D buildx build -t app -- ."},
		{"optbuild build . --help", "optbuild build --help"},
		{"optbuild build -m 1g -c 5 .", "optbuild build -m 1g -c 5 -- ."},
		{"optbuild b . -t app", "optbuild b -t app -- ."},
		{"optbuild build . --insecure-registry r.example:5000 --root=/x --push", "optbuild --insecure-registry r.example:5000 --root /x build --push -- ."},
		{"optbuild image push r.example/app --insecure-registry r.example -q", "optbuild --insecure-registry r.example image push -q -- r.example/app"},
		{"optbuild build --build-arg --root=/x .", "optbuild build --build-arg --root=/x -- ."},
		{"optbuild login -u me -p --root r.example", "optbuild login -u me -p --root -- r.example"},
		{"optbuild build -- --root", "optbuild build -- --root"},
		{"optbuild build --unknown x", "optbuild build --unknown -- x"},
		{"optbuild nope . -t app", "optbuild nope . -t app"},
	} {
		fields := strings.Fields(test.in)
		got := normaliseArgs(fields)
		for i, a := range got {
			if a == "" {
				got[i] = "<>"
			}
		}
		if !slices.Equal(got, strings.Fields(test.want)) {
			t.Errorf("%s\ngot  %s\nwant %s", test.in, strings.Join(got, " "), test.want)
		}
	}
}
