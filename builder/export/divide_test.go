package export

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A RUN that has read files of the context begins a unit, where that saves a large layer from being made again and hides nothing large.
func TestDivide(t *testing.T) {
	type layer struct {
		name  string
		reads bool
		do    func(root string)
	}
	large := bytes.Repeat([]byte("large"), minDivided/5+1)
	add := func(path string, content []byte) func(string) {
		return func(root string) {
			must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755))
			must(t, os.WriteFile(filepath.Join(root, path), content, 0o644))
		}
	}
	remove := func(path string) func(string) {
		return func(root string) { must(t, os.RemoveAll(filepath.Join(root, path))) }
	}
	install := layer{"install", false, add("usr/lib/tool", large)}
	residueToo := layer{"install with a cache", false, func(root string) {
		add("residue/x", []byte("x"))(root)
		add("usr/lib/tool", large)(root)
	}}
	link := func(to, path string) func(string) {
		return func(root string) {
			must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755))
			must(t, os.Symlink(to, filepath.Join(root, path)))
		}
	}
	modules := layer{"modules", true, add("app/node_modules/a", large)}
	bundle := layer{"bundle", true, add("app/dist/a", []byte("small"))}
	for _, test := range []struct {
		name   string
		layers []layer
		want   string
	}{
		{"what reads begins a unit", []layer{install, modules, bundle}, "[1 1 1]"},
		{"what does not read goes with what is below", []layer{install, {"more", false, add("x", large)}, modules, {"still more", false, add("y", large)}, bundle}, "[2 2 1]"},
		{"what nobody has noted is merged", []layer{install, {"modules", false, modules.do}}, "[2]"},
		{"small layers stay together", []layer{{"small", false, add("x", []byte("x"))}, modules, bundle}, "[2 1]"},
		{"a small layer grows", []layer{{"small", false, add("x", large[:len(large)/2])}, {"small", true, add("y", large[:len(large)/2+1])}, bundle}, "[2 1]"},
		{"residue does not count", []layer{{"residue", false, add("residue/x", large)}, modules, bundle}, "[2 1]"},
		{"deleted", []layer{install, modules, {"purge", true, remove("usr/lib/tool")}}, "[3]"},
		{"a directory deleted", []layer{install, modules, {"purge", true, remove("usr")}}, "[3]"},
		{"a directory in place of another", []layer{install, modules, {"other", true, func(root string) {
			remove("app/node_modules")(root)
			add("app/node_modules/b", []byte("b"))(root)
		}}}, "[1 2]"},
		{"changed", []layer{install, modules, {"chown", true, func(root string) { must(t, os.Chown(filepath.Join(root, "app/node_modules/a"), 5, 5)) }}}, "[1 2]"},
		{"deleted from two units below", []layer{install, bundle, {"purge", false, remove("usr/lib/tool")}}, "[3]"},
		{"residue deleted", []layer{{"residue", false, func(root string) {
			add("residue/x", large)(root)
			install.do(root)
		}}, {"rm", true, remove("residue/x")}}, "[1 1]"},
		{"residue linked", []layer{residueToo, modules, {"link", true, link("../residue/x", "usr/x")}}, "[3]"},
		{"what is above residue linked", []layer{residueToo, {"link", true, link("/residue", "x")}}, "[2]"},
		{"residue linked from residue", []layer{residueToo, {"link", true, link("x", "residue/y")}}, "[1 1]"},
		{"something else linked", []layer{residueToo, {"link", true, link("../usr/lib/tool", "bin/tool")}}, "[1 1]"},
		{"nothing linked", []layer{residueToo, {"link", true, link("/residue/none", "usr/x")}}, "[1 1]"},
		{"a little deleted", []layer{{"install", false, func(root string) {
			add("tmp/x", large[:minDivided-1])(root)
			install.do(root)
		}}, {"rm", true, remove("tmp")}}, "[1 1]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStack(t)
			s.layer(add("base", nil))
			reads := map[string]bool{}
			for _, l := range test.layers {
				s.layer(l.do)
				reads[s.dirs[len(s.dirs)-1]] = l.reads
			}
			residue := func(path string) string {
				if filepath.Dir(path) == "/residue" {
					return "residue"
				}
				return ""
			}
			u := s.union(2, residue, every)
			for i := range u.members {
				u.members[i].read = reads[u.members[i].path]
			}
			sizes, err := u.divide(t.Context())
			must(t, err)
			if got := fmt.Sprint(sizes); got != test.want {
				t.Errorf("divided as %s, want %s", got, test.want)
			}
			if whole := (unit{last: len(sizes), steps: make([]step, len(test.layers))}); !whole.fits(sizes) {
				t.Errorf("%v does not fit %d layers", sizes, len(test.layers))
			}
		})
	}
}
