package replay

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/samefile"
)

// copies are the layer that a COPY made last and the one that it makes now.
type copies struct {
	last, this string
	keeps      bool // set times

	changed, gone []string // what is told of them, maxChanges of each at most

	buffers samefile.Buffers
}

const maxChanges = 20

// reasons are what has changed, the names that are gone last.
func (c *copies) reasons() []string {
	all := slices.Concat(c.changed, c.gone)
	return all[:min(len(all), maxChanges)]
}

func note(list *[]string, path, what string) {
	if len(*list) < maxChanges {
		*list = append(*list, path+what)
	}
}

// compare gives what is the same in both the times that it had, if they are to be kept, and notes what is not. Both are walked at once, from directory to directory by
// descriptors: most files are only looked at, and the look is what costs.
func (c *copies) compare() error {
	last, err := openAt(unix.AT_FDCWD, c.last, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer last.Close()
	this, err := openAt(unix.AT_FDCWD, c.this, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer this.Close()
	was, is, err := names(last, this)
	if err != nil {
		return err
	}
	c.buffers = samefile.NewBuffers()
	return c.directory("/", pair{last, this}, was, is)
}

// pair is one directory in both layers.
type pair struct{ last, this *os.File }

// name is one that a directory has, with the type that the directory says it is of.
type name struct {
	string
	os.FileMode
}

// names lists a pair of directories, in order.
func names(last, this *os.File) (was, is []name, err error) {
	for _, l := range []struct {
		dir  *os.File
		into *[]name
	}{{last, &was}, {this, &is}} {
		entries, err := l.dir.ReadDir(-1)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			*l.into = append(*l.into, name{e.Name(), e.Type()})
		}
		slices.SortFunc(*l.into, func(a, b name) int { return strings.Compare(a.string, b.string) })
	}
	return was, is, nil
}

// directory compares what is in a pair of directories; path ends with a slash.
func (c *copies) directory(path string, in pair, was, is []name) error {
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(is) == 0 || len(was) > 0 && was[0].string < is[0].string:
			note(&c.gone, path+was[0].string, " is gone")
			was = was[1:]
		case len(was) == 0 || is[0].string < was[0].string:
			note(&c.changed, path+is[0].string, " is new")
			is = is[1:]
		default:
			if err := c.file(path, in, is[0].string); err != nil {
				return fmt.Errorf("compare %s%s: %w", path, is[0].string, err)
			}
			was, is = was[1:], is[1:]
		}
	}
	return nil
}

// file compares what both directories have under a name.
func (c *copies) file(path string, in pair, name string) error {
	was, err := statAt(in.last, name)
	if err != nil {
		return err
	}
	is, err := statAt(in.this, name)
	if err != nil {
		return err
	}
	path += name
	if was.Mode&unix.S_IFMT != is.Mode&unix.S_IFMT { // names in a link would lead elsewhere
		note(&c.changed, path, " is of another type")
		return nil
	}
	if was.Mode != is.Mode {
		note(&c.changed, path, fmt.Sprintf(": mode %04o -> %04o", was.Mode&0o7777, is.Mode&0o7777))
	}
	if is.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.subdirectory(path, in, name, was.Mtim, is.Mtim)
	}
	if was.Mtim == is.Mtim && was.Size == is.Size {
		return nil
	}
	same, err := c.sameButTime(in, name, was, is)
	if err != nil {
		return err
	}
	if !same {
		note(&c.changed, path, " changed")
		return nil
	}
	if time.Unix(is.Mtim.Unix()).Before(time.Unix(was.Mtim.Unix())) { // a checkout makes files newer; who sets a time back means it
		return nil
	}
	return c.setTime(in, name, was.Mtim)
}

// subdirectory compares a directory that both have. One with the same names has the time that it had.
func (c *copies) subdirectory(path string, in pair, name string, was, is unix.Timespec) error {
	last, err := openAt(int(in.last.Fd()), name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer last.Close()
	this, err := openAt(int(in.this.Fd()), name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer this.Close()
	had, has, err := names(last, this)
	if err != nil {
		return err
	}
	if was != is && slices.Equal(had, has) {
		if err := c.setTime(in, name, was); err != nil {
			return err
		}
	}
	return c.directory(path+"/", pair{last, this}, had, has)
}

func (c *copies) setTime(in pair, name string, t unix.Timespec) error {
	if !c.keeps {
		return nil
	}
	return unix.UtimesNanoAt(int(in.this.Fd()), name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// sameButTime compares what is not a directory.
func (c *copies) sameButTime(in pair, name string, was, is unix.Stat_t) (bool, error) {
	switch is.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if was.Size != is.Size {
			return false, nil
		}
		f, err := openAt(int(in.last.Fd()), name, 0)
		if err != nil {
			return false, err
		}
		defer f.Close()
		g, err := openAt(int(in.this.Fd()), name, 0)
		if err != nil {
			return false, err
		}
		defer g.Close()
		return c.buffers.Bytes(f, g)
	case unix.S_IFLNK:
		a, err := readlinkAt(in.last, name, was.Size)
		if err != nil {
			return false, err
		}
		b, err := readlinkAt(in.this, name, is.Size)
		return a == b, err
	}
	return false, nil
}

// openAt opens a name of a directory for reading, but not what a link leads to.
func openAt(dir int, name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if err != syscall.EINTR {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

func statAt(dir *os.File, name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func readlinkAt(dir *os.File, name string, size int64) (string, error) {
	b := make([]byte, size+1)
	n, err := unix.Readlinkat(int(dir.Fd()), name, b)
	if err != nil {
		return "", err
	}
	if int64(n) > size {
		return "", io.ErrShortBuffer // a link never changes: the file system says another size than it has
	}
	return string(b[:n]), nil
}
