package mounts

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// checker follows the entries of a manifest in their order.
type checker struct {
	limits Limits
	chunks []Chunk
	types  map[string]Type // of the entries so far that others may refer to
	last   string
	bytes  int64
}

func (c *checker) entry(e Entry) error {
	p := string(e.Path)
	if err := checkPath(p); err != nil {
		return err
	}
	if c.last == "" {
		if p != rootName || e.Type != Directory {
			return errors.New("the first is not the directory itself")
		}
	} else {
		if compareTree(c.last, p) >= 0 {
			return fmt.Errorf("%.100q is there twice or not in its place", p)
		}
		if c.types[parent(p)] != Directory {
			return fmt.Errorf("%.100q is in nothing that is a directory", p)
		}
	}
	c.last = p
	if e.UID > math.MaxInt32 || e.GID > math.MaxInt32 {
		return fmt.Errorf("%.100q has the owner %d:%d", p, e.UID, e.GID)
	}
	if e.Mode&^modes[e.Type] != 0 {
		return fmt.Errorf("%.100q has the mode %o", p, e.Mode)
	}
	if len(e.Chunks) > 0 && e.Type != File || len(e.Xattrs) > 0 && e.Type != File && e.Type != Directory {
		return fmt.Errorf("%.100q has what a %.20q has not", p, e.Type)
	}
	switch e.Type {
	case Directory:
		c.types[p] = e.Type
	case File:
		c.types[p] = e.Type
		for _, i := range e.Chunks {
			if i < 0 || i >= len(c.chunks) {
				return fmt.Errorf("%.100q refers to chunk %d of %d", p, i, len(c.chunks))
			}
			if c.bytes += c.chunks[i].Bytes; c.bytes > c.limits.Bytes {
				return fmt.Errorf("its files have more than %d bytes", c.limits.Bytes)
			}
		}
	case HardLink:
		if c.types[string(e.Target)] != File {
			return fmt.Errorf("%.100q is a link to %.100q, which is no file before it", p, e.Target)
		}
	case Symlink:
		if e.Target == "" || len(e.Target) > maxPath || strings.ContainsRune(string(e.Target), 0) {
			return fmt.Errorf("%.100q is a link to nothing", p)
		}
	default:
		return fmt.Errorf("%.100q is of type %.20q", p, e.Type)
	}
	return checkXattrs(p, e.Xattrs)
}

// modes are the bits that entries may have.
var modes = map[Type]uint32{Directory: 0o3777, File: 0o777}

func checkXattrs(p string, xattrs map[string][]byte) error {
	n := 0
	for k, v := range xattrs {
		if !keptXattr(k) || len(k) > maxName || strings.ContainsRune(k, 0) {
			return fmt.Errorf("%.100q has the attribute %.100q", p, k)
		}
		if n += len(k) + len(v); n > maxXattrs {
			return fmt.Errorf("%.100q has attributes of more than %d bytes", p, maxXattrs)
		}
	}
	return nil
}

// keptXattr says whether an extended attribute belongs to a file's content: those of the user do, but for overlayfs's own in user namespaces.
func keptXattr(k string) bool {
	return strings.HasPrefix(k, "user.") && !strings.HasPrefix(k, "user.overlay.")
}
