package mounts

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// name is a file's name, a path or the target of a link, all of which are bytes that need not be UTF-8. In JSON a backslash and bytes that are not are written as \xNN.
type name string

// MarshalText escapes.
func (n name) MarshalText() ([]byte, error) {
	if utf8.ValidString(string(n)) && !strings.Contains(string(n), `\`) {
		return []byte(n), nil
	}
	var b []byte
	for i := 0; i < len(n); {
		r, size := utf8.DecodeRuneInString(string(n[i:]))
		if r == '\\' || r == utf8.RuneError && size == 1 {
			b = fmt.Appendf(b, `\x%02x`, n[i])
		} else {
			b = append(b, n[i:i+size]...)
		}
		i += size
	}
	return b, nil
}

// UnmarshalText takes only what MarshalText writes: a name has one spelling.
func (n *name) UnmarshalText(b []byte) error {
	var raw []byte
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			raw = append(raw, b[i])
			continue
		}
		var c byte
		if len(b) < i+4 {
			return fmt.Errorf("a name that ends in an escape: %q", b)
		}
		if _, err := fmt.Sscanf(string(b[i:i+4]), `\x%02x`, &c); err != nil {
			return fmt.Errorf("a name with an escape that is none: %q", b)
		}
		raw = append(raw, c)
		i += 3
	}
	*n = name(raw)
	if again, _ := n.MarshalText(); string(again) != string(b) {
		return fmt.Errorf("a name that is not spelt as it should be: %q", b)
	}
	return nil
}

// Bounds of what names file systems and Linux allow.
const (
	maxName = 255
	maxPath = 4000 // PATH_MAX less what is before it
)

// rootName stands for the directory itself.
const rootName = "."

// checkPath refuses what could lead elsewhere, or is not the one spelling of a path.
func checkPath(p string) error {
	switch {
	case p == rootName:
		return nil
	case p == "" || len(p) > maxPath:
		return fmt.Errorf("a path of %d bytes", len(p))
	case strings.ContainsRune(p, 0):
		return errors.New("a path with a zero byte")
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." || len(part) > maxName {
			return fmt.Errorf("a path that is none: %.100q", p)
		}
	}
	return nil
}

// parent is the directory that a path is in.
func parent(p string) string { return path.Dir(p) }

// compareTree orders paths so that what is in a directory follows it, before anything else.
func compareTree(a, b string) int {
	if a == rootName || b == rootName {
		return cmp.Compare(boolInt(b == rootName), boolInt(a == rootName))
	}
	for i := 0; i < min(len(a), len(b)); i++ {
		if a[i] != b[i] {
			return cmp.Compare(rank(a[i]), rank(b[i]))
		}
	}
	return cmp.Compare(len(a), len(b))
}

func rank(c byte) int {
	if c == '/' {
		return -1
	}
	return int(c)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
