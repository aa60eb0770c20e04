package main

import (
	"strings"
	"testing"
)

func TestNormaliseArgs(t *testing.T) {
	for _, tt := range [][2]string{
		{"build . -t app", "build -t app -- ."},
		{"build -fDockerfile -qt app .", "build -f Dockerfile -q -t app -- ."},
		{"build . --insecure-registry r.example:5000 --root=/x --push", "--insecure-registry r.example:5000 --root=/x build --push -- ."},
		{"--root /x build -D .", "--root /x -D build -- ."},
		{"image push r.example/app --insecure-registry r.example -q", "--insecure-registry r.example image push -q -- r.example/app"},
		{"build --build-arg --root=/x .", "build --build-arg --root=/x -- ."},
		{"login -u me -p --root r.example", "login -u me -p --root -- r.example"},
		{"build -- --root", "build -- --root"},
		{"build --unknown x", "build --unknown -- x"},
		{"nonsense --root /x", "nonsense --root /x"},
	} {
		got := strings.Join(normaliseArgs(append([]string{"optbuild"}, strings.Fields(tt[0])...)), " ")
		if want := "optbuild " + tt[1]; got != want {
			t.Errorf("%s\ngot  %s\nwant %s", tt[0], got, want)
		}
	}
}
