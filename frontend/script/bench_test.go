package script

import (
	"reflect"
	"strings"
	"testing"
)

// typical is a RUN as it is found in many Dockerfiles.
const typical = `apt-get update && apt-get install -y --no-install-recommends ca-certificates curl git gnupg && ` +
	`curl -fsSL "https://example.com/v${VERSION}/tool-$(uname -m).tar.gz" | tar -xz -C /usr/local && rm -rf /var/lib/apt/lists/*`

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := Parse(typical, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLong is a script of 100 kB.
func BenchmarkLong(b *testing.B) {
	text := strings.Repeat(typical+"\n", 100_000/len(typical))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse(text, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzParse: no panic, places within the text, the same answer twice.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		typical, "", "a &", "f() { a; }; f", "cat <<E\n$x\nE", "sh -c 'a; b'", "a `b \\`c\\``", "for i in 1; do x; done", "${!x} $((i++))",
		"case a in b) ;; esac", "export A=$(b) C", "env A=$B sudo -u x y", "set -eo pipefail; [ -v", "\xff", "{a,b} ~ $'x'", "a=(1 2) b[1]+=2",
		"trap 'x' EXIT", "read -p x y", "printf -v \"$a\" b", "--a", "cat <<-\"E\"\n\tx\nE", "alias a=b; a", "A[1]=2 export x[2]=3",
	} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, bash bool) {
		shell := []string{"/bin/sh", "-c"}
		if bash {
			shell = []string{"/bin/bash", "-eo", "pipefail", "-c"}
		}
		s, err := Parse(text, shell)
		again, err2 := Parse(text, shell)
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatal("two answers:", err, err2)
		}
		if err != nil {
			return
		}
		if !reflect.DeepEqual(s, again) {
			t.Fatal("two results")
		}
		place := func(what string, start, end uint) {
			if start > end || end > uint(len(text)) {
				t.Fatalf("%s at %d-%d in %d bytes", what, start, end, len(text))
			}
		}
		for _, c := range s.Commands() {
			place(c.Name(), c.Start, c.End)
			c.Is("a", "b")
			c.HasFlag("-a", "--b")
			c.Operands("-o")
			if v, ok := c.Flag("-o", "--b"); ok {
				v.Expand(func(string) (string, bool) { return "x", true })
			}
			for _, w := range c.Words {
				w.Expand(func(string) (string, bool) { return "x", true })
			}
		}
		for _, h := range s.Hazards() {
			place(string(h.Kind), h.Start, h.End)
		}
		for _, c := range s.Comments() {
			place("comment", c.Start, c.End)
		}
		s.Straight()
		s.MayRead("X")
	})
}
