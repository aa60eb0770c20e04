package export

import (
	"bytes"
	"errors"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/samefile"
)

// sameFile is true if a file of the members is the one below them, only copied up: a chown to the owner that it had, a file that was moved away and back. What
// counts is what BuildKit looks at when it makes a layer of a step.
func sameFile(upper, below resolved) (bool, error) {
	a, b := upper.info, below.info
	x, ok := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || x.Mode != y.Mode || x.Uid != y.Uid || x.Gid != y.Gid || x.Rdev != y.Rdev || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) {
		return false, nil
	}
	capsA, err := capabilities(upper.file)
	if err != nil {
		return false, err
	}
	capsB, err := capabilities(below.file)
	if err != nil || !bytes.Equal(capsA, capsB) {
		return false, err
	}
	switch {
	case a.Mode()&os.ModeSymlink != 0:
		to, err := os.Readlink(upper.file)
		if err != nil {
			return false, err
		}
		was, err := os.Readlink(below.file)
		return to == was, err
	case a.ModTime().Nanosecond() != 0 || a.Size() == 0:
		return true, nil
	default: // the time is that of an archive: it may be that of another version
		return samefile.Content(upper.file, below.file)
	}
}

// sameDirectory is true if a directory is the one below, only copied up. Its time does not count, as it does not for BuildKit: overlayfs has it copied up whenever something is made in it, be it for a
// moment. A layer that was fetched lacks such directories, and must give the same layers of images as one that was made here.
func sameDirectory(upper, below resolved) (bool, error) {
	if below.info == nil || !below.info.IsDir() {
		return false, nil
	}
	x, ok := upper.info.Sys().(*syscall.Stat_t)
	y, ok2 := below.info.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || x.Mode != y.Mode || x.Uid != y.Uid || x.Gid != y.Gid {
		return false, nil
	}
	a, err := capabilities(upper.file)
	if err != nil {
		return false, err
	}
	b, err := capabilities(below.file)
	return bytes.Equal(a, b), err
}

func capabilities(file string) ([]byte, error) {
	v, err := sysx.LGetxattr(file, "security.capability")
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	return v, err
}

// leaveWays leaves out the directories that lead to residue that is known by its form, as directories of residue are: each is there if something in it is. One that leads to none stays, though it may be empty: it may be anybody's.
func leaveWays(list []change) {
	leads := map[string]string{} // directories
	for _, c := range list {
		if c.rule == "" || c.root == "" {
			continue
		}
		for p := path.Dir(c.path); p != c.root && p != "/"; p = path.Dir(p) {
			leads[p] = c.rule
		}
	}
	for i, c := range list {
		if rule := leads[c.path]; c.way && rule != "" {
			list[i].rule, list[i].dir = rule, true
		}
	}
}

// keepLinked takes back what is residue by its place but has a symbolic link leading to it, or to a directory above it, from something that stays: programs may be run from
// there. A link may lead through others, which then stay, too.
func keepLinked(list []change) {
	links := map[string]string{}
	for _, c := range list {
		if c.link != "" {
			links[c.path] = c.link
		}
	}
	if len(links) == 0 {
		return
	}
	wanted := map[string]bool{}
	var want func(target string)
	want = func(target string) {
		if wanted[target] || len(wanted) > mostLinks {
			return
		}
		wanted[target] = true
		for p := target; p != "/"; p = path.Dir(p) {
			if to, ok := links[p]; ok {
				wanted[p] = true
				want(path.Join(to, strings.TrimPrefix(target, p)))
			}
		}
	}
	for again := true; again; {
		again = false
		for _, c := range list {
			if c.rule == "" && c.link != "" {
				want(c.link)
			}
		}
		for i, c := range list {
			if c.rule == "" {
				continue
			}
			for p := c.path; p != "/"; p = path.Dir(p) {
				if wanted[p] {
					list[i].rule, list[i].dir = "", false
					again = again || c.link != ""
					break
				}
			}
		}
	}
}

// mostLinks bounds how many paths are followed: links may lead in circles that never come to the same path again.
const mostLinks = 1 << 20
