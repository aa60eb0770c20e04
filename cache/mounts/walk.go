package mounts

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// node is one name that a walk has found.
type node struct {
	path   string
	stat   Stat
	mode   uint32 // with the type
	uid    uint32
	gid    uint32
	links  uint64
	target string // of a symbolic link
	xattrs map[string][]byte
}

// Stat is what tells whether a file is still the one that was read.
type Stat struct {
	Size         int64
	MTime, CTime int64 // ns
	Inode        uint64
}

func (n *node) is(format uint32) bool { return n.mode&unix.S_IFMT == format }

// tree is what a walk has found, in the order of compareTree.
type tree struct {
	nodes       []*node
	fingerprint Sum   // of all that stat tells
	newest      int64 // time of change, ns
}

// walk lists what is in the directory. Links are not followed, whatever somebody makes of the names meanwhile: each directory is opened in the one that it is in.
func walk(ctx context.Context, dir string) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	t := &tree{}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("stat %s: %w", dir, err)
	}
	t.nodes = append(t.nodes, newNode(rootName, &st))
	if err := t.walk(ctx, fd, ""); err != nil {
		if gone(err) {
			err = fmt.Errorf("%w: %w", ErrChanged, err)
		}
		return nil, fmt.Errorf("walk through %s: %w", dir, err)
	}
	slices.SortFunc(t.nodes, func(a, b *node) int { return compareTree(a.path, b.path) })
	h := sha256.New()
	var b []byte
	for _, n := range t.nodes {
		b = append(b[:0], n.path...)
		b = append(b, 0)
		b = append(b, n.target...)
		b = append(b, 0)
		for _, v := range []uint64{uint64(n.mode), uint64(n.uid), uint64(n.gid), n.links, uint64(n.stat.Size), uint64(n.stat.MTime), uint64(n.stat.CTime), n.stat.Inode} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		h.Write(b)
		t.newest = max(t.newest, n.stat.CTime)
	}
	h.Sum(t.fingerprint[:0])
	return t, nil
}

// walk adds what is in the open directory, and closes it.
func (t *tree) walk(ctx context.Context, fd int, path string) error {
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	for _, base := range names {
		p := base
		if path != "" {
			p = path + "/" + base
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "stat", Path: p, Err: err}
		}
		n := newNode(p, &st)
		t.nodes = append(t.nodes, n)
		switch {
		case n.is(unix.S_IFLNK):
			buf := make([]byte, unix.PathMax)
			size, err := unix.Readlinkat(fd, base, buf)
			if err != nil {
				return &fs.PathError{Op: "read link", Path: p, Err: err}
			}
			n.target = string(buf[:size])
		case n.is(unix.S_IFDIR):
			sub, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			if err != nil {
				return &fs.PathError{Op: "open", Path: p, Err: err}
			}
			if err := t.walk(ctx, sub, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func newNode(path string, st *unix.Stat_t) *node {
	n := &node{
		path: path, mode: st.Mode, uid: st.Uid, gid: st.Gid, links: uint64(st.Nlink),
		stat: Stat{Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(), Inode: st.Ino},
	}
	if n.is(unix.S_IFDIR) {
		n.stat.Size = 0 // says nothing
	}
	return n
}

// gone is true for what happens when a name becomes another one under a walk.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EINVAL)
}

// LeftOut counts what archives do not have.
type LeftOut struct {
	Special    int // devices, sockets, pipes
	Privileged int // files that are setuid or setgid, or have capabilities or access lists
	Strange    int // names that are too long, attributes that are too large
	Old        int // files that made room
	OldBytes   int64
}

func (l LeftOut) String() string {
	var s []string
	add := func(n int, what string) {
		if n > 0 {
			s = append(s, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(l.Special, "devices, sockets or pipes")
	add(l.Privileged, "files with setuid, setgid, capabilities or access lists")
	add(l.Strange, "files with names or attributes that are too long")
	add(l.Old, "files that were not used for long")
	return strings.Join(s, ", ")
}

// leaveOut removes what an archive can't have, and directories that are not to be had with all that is in them. It reads the attributes of files that known does not know.
func (t *tree) leaveOut(root *os.Root, known map[string]Known) (left LeftOut, err error) {
	kept := t.nodes[:0:0]
	skip := "" // a directory, with the slash
	for _, n := range t.nodes {
		if skip != "" && strings.HasPrefix(n.path, skip) {
			left.Strange++
			continue
		}
		switch {
		case !n.is(unix.S_IFREG) && !n.is(unix.S_IFDIR) && !n.is(unix.S_IFLNK):
			left.Special++
			continue
		case n.is(unix.S_IFREG) && n.mode&(unix.S_ISUID|unix.S_ISGID) != 0:
			left.Privileged++
			continue
		case checkPath(n.path) != nil || n.uid > 1<<31-1 || n.gid > 1<<31-1 || n.is(unix.S_IFLNK) && (n.target == "" || len(n.target) > maxPath):
			left.Strange++
			if n.is(unix.S_IFDIR) {
				skip = n.path + "/"
			}
			continue
		}
		if k, ok := known[n.path]; ok && k.Stat == n.stat {
			n.xattrs = k.Xattrs
		} else if !n.is(unix.S_IFLNK) {
			privileged, strange, err := n.readXattrs(root)
			if err != nil {
				return left, err
			}
			if privileged && n.is(unix.S_IFREG) {
				left.Privileged++
				continue
			}
			if strange {
				left.Strange++
				if n.is(unix.S_IFDIR) && n.path != rootName {
					skip = n.path + "/"
				}
				continue
			}
		}
		kept = append(kept, n)
	}
	t.nodes = kept
	return left, nil
}

// open opens the file or directory that the walk has found, and no other one.
func (n *node) open(root *os.Root) (*os.File, error) {
	f, err := root.OpenFile(n.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if gone(err) || errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrChanged, err)
		}
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, err
	}
	if now := newNode(n.path, &st); now.stat != n.stat || now.mode != n.mode {
		f.Close()
		return nil, fmt.Errorf("%s: %w", n.path, ErrChanged)
	}
	return f, nil
}

func (n *node) readXattrs(root *os.Root) (privileged, strange bool, err error) {
	f, err := n.open(root)
	if err != nil {
		return false, false, err
	}
	defer f.Close()
	fd := int(f.Fd())
	buf := make([]byte, 4096)
	size, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, 64<<10)
		size, err = unix.Flistxattr(fd, buf)
	}
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return false, false, nil
		}
		return false, false, fmt.Errorf("list attributes of %s: %w", n.path, err)
	}
	total := 0
	for k := range strings.SplitSeq(string(buf[:size]), "\x00") {
		switch {
		case k == "security.capability" || strings.HasPrefix(k, "system.posix_acl_"):
			privileged = true
		case keptXattr(k):
			v := make([]byte, maxXattrs)
			size, err := unix.Fgetxattr(fd, k, v)
			if err != nil && !errors.Is(err, unix.ERANGE) {
				return false, false, fmt.Errorf("read attribute of %s: %w", n.path, err)
			}
			total += len(k) + size
			if err != nil || total > maxXattrs || !utf8.ValidString(k) || strings.Contains(k, `\`) {
				return privileged, true, nil
			}
			if n.xattrs == nil {
				n.xattrs = map[string][]byte{}
			}
			n.xattrs[k] = slices.Clone(v[:size])
		}
	}
	return privileged, false, nil
}
