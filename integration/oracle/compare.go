package oracle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Level is how much has to be the same.
type Level int

const (
	// LevelFiles wants the same files and the same configuration. History and layers may differ, and so may residue.
	LevelFiles Level = iota
	// LevelImage wants the same configuration and the same layers, byte for byte.
	LevelImage
)

// Rules say how two images are compared.
type Rules struct {
	Level Level
	// Residue are paths that the image need not have, with all that is below them: a download cache that a rewrite keeps out
	// of it. What is there in both images may differ; what only the rewritten one has is a difference. A directory that is
	// there only to hold residue goes with it.
	Residue []string
	// AnyLinks says that hard links are not compared. Merged layers have those that a step made to a file of the step before, and copies where the step before had
	// linked what it did not; stock BuildKit's layers the other way round. A program that writes to a file can't tell: overlayfs copies up one name.
	AnyLinks bool
}

// Compare returns what tells got from want, one line a difference; nil if nothing does.
func Compare(want, got *Image, rules Rules) []string {
	var out []string
	if rules.Level == LevelImage {
		if !bytes.Equal(want.Config, got.Config) {
			out = append(out, compareJSON("config", want.Config, got.Config, nil)...)
			if out == nil {
				out = append(out, "config: the same values, written differently")
			}
		}
		if !slices.Equal(want.Layers, got.Layers) {
			out = append(out, fmt.Sprintf("layers: %s, want %s", short(got.Layers), short(want.Layers)))
		}
		if out == nil {
			return nil
		}
		return append(out, compareTrees(want.Tree, got.Tree, nil)...)
	}
	out = compareJSON("config", want.Config, got.Config, notCompared)
	a, b := want.Tree, got.Tree
	if rules.AnyLinks {
		a, b = a.unlinked(), b.unlinked()
	}
	return append(out, compareTrees(a, b, rules.Residue)...)
}

// notCompared are the parts of the configuration that tell how an image was built, not what it is.
var notCompared = []string{"config.history", "config.rootfs.diff_ids", "config.created"}

func short(digests []string) string {
	var s []string
	for _, d := range digests {
		s = append(s, d[:min(len(d), len("sha256:")+8)])
	}
	return "[" + strings.Join(s, " ") + "]"
}

func compareJSON(name string, want, got []byte, ignore []string) []string {
	var w, g any
	if err := json.Unmarshal(want, &w); err != nil {
		return []string{fmt.Sprintf("%s: wanted, but not JSON: %v", name, err)}
	}
	if err := json.Unmarshal(got, &g); err != nil {
		return []string{fmt.Sprintf("%s: not JSON: %v", name, err)}
	}
	return compareValues(name, w, g, ignore)
}

func compareValues(name string, want, got any, ignore []string) []string {
	if slices.Contains(ignore, name) {
		return nil
	}
	w, ok := want.(map[string]any)
	g, ok2 := got.(map[string]any)
	if !ok || !ok2 {
		if a, b := text(want), text(got); a != b {
			return []string{fmt.Sprintf("%s: %s, want %s", name, b, a)}
		}
		return nil
	}
	keys := map[string]bool{}
	for _, m := range []map[string]any{w, g} {
		for k := range m {
			keys[k] = true
		}
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		out = append(out, compareValues(name+"."+k, w[k], g[k], ignore)...)
	}
	return out
}

func text(v any) string {
	if v == nil {
		return "nothing"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func compareTrees(want, got Tree, residue []string) []string {
	paths := map[string]bool{}
	for p := range want {
		paths[p] = true
	}
	for p := range got {
		paths[p] = true
	}
	var out []string
	for _, r := range residue {
		if !path.IsAbs(r) || path.Clean(r) == "/" {
			return []string{fmt.Sprintf("%q is no path of residue", r)}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		w, inWant := want[p]
		g, inGot := got[p]
		switch {
		case within(p, residue) && inWant:
		case inWant && inGot:
			out = append(out, compareEntries(p, w, g, residue)...)
		case inWant && !want.holdsOnly(p, residue):
			out = append(out, fmt.Sprintf("%s: missing, want %s", p, w))
		case inGot:
			out = append(out, fmt.Sprintf("%s: %s, want nothing", p, g))
		}
	}
	return out
}

// unlinked is the tree with every name a file of its own.
func (t Tree) unlinked() Tree {
	out := maps.Clone(t)
	for p, e := range out {
		e.Links = nil
		out[p] = e
	}
	return out
}

// within says that the path is residue.
func within(p string, residue []string) bool {
	return slices.ContainsFunc(residue, func(r string) bool { return below(p, path.Clean(r)) })
}

// holdsOnly says that p is a directory that is there to hold residue: it is above a residue path, and what is in it is residue
// or such a directory.
func (t Tree) holdsOnly(dir string, residue []string) bool {
	above := func(p string) bool {
		return slices.ContainsFunc(residue, func(r string) bool { return below(path.Clean(r), p) })
	}
	if t[dir].Type != tar.TypeDir || !above(dir) {
		return false
	}
	for p, e := range t {
		if p != dir && below(p, dir) && !within(p, residue) && (e.Type != tar.TypeDir || !above(p)) {
			return false
		}
	}
	return true
}

func compareEntries(p string, want, got Entry, residue []string) []string {
	var out []string
	differ := func(what string, w, g any) {
		if w != g {
			out = append(out, fmt.Sprintf("%s: %s %v, want %v", p, what, g, w))
		}
	}
	if want.Type != got.Type {
		return []string{fmt.Sprintf("%s: %s, want %s", p, got, want)}
	}
	if want.Type != tar.TypeSymlink { // a link's own mode means nothing on Linux
		differ("mode", octal(want.Mode), octal(got.Mode))
	}
	differ("uid", want.UID, got.UID)
	differ("gid", want.GID, got.GID)
	for _, k := range slices.Sorted(maps.Keys(union(want.Xattrs, got.Xattrs))) {
		w, inWant := want.Xattrs[k]
		g, inGot := got.Xattrs[k]
		if inWant != inGot || w != g {
			differ("xattr "+k, xattrText(w, inWant), xattrText(g, inGot))
		}
	}
	if want.Content != got.Content {
		out = append(out, fmt.Sprintf("%s: content %s, want %s", p, got.preview(), want.preview()))
	}
	differ("target", want.Target, got.Target)
	differ("device", device(want), device(got))
	links := func(e Entry) string {
		if kept := slices.DeleteFunc(slices.Clone(e.Links), func(l string) bool { return within(l, residue) }); len(kept) > 1 {
			return strings.Join(kept, " = ")
		}
		return "none"
	}
	differ("hard links", links(want), links(got))
	return out
}

func union(a, b map[string]string) map[string]string {
	u := maps.Clone(a)
	if u == nil {
		u = map[string]string{}
	}
	maps.Copy(u, b)
	return u
}

func octal(mode int64) string { return fmt.Sprintf("%04o", mode) }

func device(e Entry) string { return fmt.Sprintf("%d:%d", e.Major, e.Minor) }

func xattrText(v string, there bool) string {
	if !there {
		return "nothing"
	}
	return fmt.Sprintf("%q", v)
}

// preview shows a file's content, or its digest if it is long.
func (e Entry) preview() string {
	if e.Size <= shown {
		return fmt.Sprintf("%q", e.head)
	}
	return fmt.Sprintf("%d bytes sha256:%s", e.Size, e.Content[:16])
}

// String describes an entry in a difference.
func (e Entry) String() string {
	kinds := map[byte]string{tar.TypeReg: "file", tar.TypeDir: "directory", tar.TypeSymlink: "symbolic link", tar.TypeChar: "character device",
		tar.TypeBlock: "block device", tar.TypeFifo: "fifo"}
	s := fmt.Sprintf("a %s %s %d:%d", kinds[e.Type], octal(e.Mode), e.UID, e.GID)
	switch e.Type {
	case tar.TypeReg:
		s += " " + e.preview()
	case tar.TypeSymlink:
		s += " -> " + e.Target
	case tar.TypeChar, tar.TypeBlock:
		s += " " + device(e)
	}
	return s
}
