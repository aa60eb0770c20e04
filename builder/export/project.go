package export

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// project digests as much of a lower layer as changes can depend on: what it has at paths that members have, too. A COPY below a RUN that has other files
// now, none of which the RUN touched, so makes no new layer of the RUN.
func (u *union) project(lower directory) (string, error) {
	p := projection{hash: sha256.New(), lower: lower.path}
	var dirs []string
	for _, m := range u.members {
		dirs = append(dirs, m.path)
	}
	if err := p.walk("/", dirs, false); err != nil {
		return "", err
	}
	return hex.EncodeToString(p.hash.Sum(nil)), nil
}

type projection struct {
	hash  hash.Hash
	lower string
}

// walk looks at a directory that the lower layer and some members have. all says that a member hides what is below it, and so depends on each name.
func (p *projection) walk(dir string, members []string, all bool) error {
	f, err := os.Open(filepath.Join(p.lower, dir))
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(dir, name)
		var in []string
		hidden, found := all, all
		for _, m := range members {
			fi, err := os.Lstat(filepath.Join(m, path))
			if err != nil {
				continue
			}
			found = true
			if fi.IsDir() {
				in = append(in, m)
				opaque, err := isOpaque(filepath.Join(m, path))
				if err != nil {
					return err
				}
				hidden = hidden || opaque
			} else {
				hidden = true
			}
		}
		if !found {
			continue
		}
		fi, err := os.Lstat(filepath.Join(p.lower, path))
		if err != nil {
			return err
		}
		if err := p.add(path, fi); err != nil {
			return err
		}
		if fi.IsDir() && len(in) > 0 { // else it is seen as a whole, or not at all
			if err := p.walk(path, in, hidden); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *projection) add(path string, fi os.FileInfo) error {
	file := filepath.Join(p.lower, path)
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%w: %s", errUnsupported, file)
	}
	caps, err := capabilities(file)
	if err != nil {
		return err
	}
	if fi.IsDir() { // what else there is to it no change depends on
		opaque, err := isOpaque(file)
		fmt.Fprintf(p.hash, "%q directory %t %o %d:%d %q\n", path, opaque, st.Mode, st.Uid, st.Gid, caps)
		return err
	}
	fmt.Fprintf(p.hash, "%q %o %d:%d %d %d %d %q\n", path, st.Mode, st.Uid, st.Gid, st.Rdev, fi.Size(), fi.ModTime().UnixNano(), caps)
	switch {
	case fi.Mode()&os.ModeSymlink != 0:
		to, err := os.Readlink(file)
		fmt.Fprintf(p.hash, "%q\n", to)
		return err
	case fi.Mode().IsRegular() && fi.Size() > 0 && fi.ModTime().Nanosecond() == 0: // see sameFile
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(p.hash, f)
		return err
	}
	return nil
}
