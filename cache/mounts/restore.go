package mounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"golang.org/x/sys/unix"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Aside is the name of the directory in which a tree is made before it gets its place. As long as it is there the rest of the directory is a part of the tree at most: see [Recover].
const Aside = ".optbuild-restore"

// Restore makes the tree of a manifest in an empty directory, which must be nobody else's meanwhile, from the packs that blobs has. The directory is empty after an error,
// but for what [Recover] removes if even that fails. The state that it returns is for the next Save.
func Restore(ctx context.Context, dir string, m *Manifest, blobs content.Provider) (*State, error) {
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotEmpty)
	}
	if err := checkSpace(dir, m); err != nil {
		return nil, err
	}
	aside := path.Join(dir, Aside)
	if err := os.Mkdir(aside, 0o700); err != nil {
		return nil, err
	}
	s, err := restore(ctx, dir, aside, m, blobs)
	if err != nil {
		return nil, errors.Join(err, Recover(dir))
	}
	return s, nil
}

// Recover empties a directory in which a tree was being made when the process that did so ended. It does nothing to any other.
func Recover(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Lstat(Aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	for _, n := range names { // Aside last: until then all has to go
		if n != Aside {
			err = errors.Join(err, root.RemoveAll(n))
		}
	}
	if err != nil {
		return fmt.Errorf("remove part of a tree: %w", err)
	}
	return root.RemoveAll(Aside)
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// checkSpace refuses what would fill the disk: a tenth of what is free stays so.
func checkSpace(dir string, m *Manifest) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	bytes, entries := m.Size()
	free := int64(st.Bavail) * st.Bsize
	if need := bytes + int64(entries)*st.Bsize; need > free/10*9 {
		return fmt.Errorf("restoring takes %d bytes, %d are free: %w", need, free, unix.ENOSPC)
	}
	return nil
}

// restorer makes one tree.
type restorer struct {
	*Manifest
	root *os.Root // where the tree is made
}

func restore(ctx context.Context, dir, aside string, m *Manifest, blobs content.Provider) (*State, error) {
	root, err := os.OpenRoot(aside)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	r := &restorer{m, root}
	// Symbolic links come when all that has a name below others is there, so that there is none to follow; attributes of directories after all that changes them.
	if err := r.directories(); err != nil {
		return nil, err
	}
	if err := r.files(ctx, blobs); err != nil {
		return nil, err
	}
	if err := r.links(); err != nil {
		return nil, err
	}
	for i := range slices.Backward(m.Entries) {
		if e := &m.Entries[i]; e.Type == Directory && e.Path != rootName {
			if err := r.attributes(e); err != nil {
				return nil, err
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return r.place(ctx, dir)
}

// place gives the tree its place. The directory is a part of a tree until Aside is gone.
func (r *restorer) place(ctx context.Context, dir string) (*State, error) {
	names, err := readNames(r.root.Name())
	if err != nil {
		return nil, err
	}
	whole, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer whole.Close()
	for _, n := range names {
		if err := whole.Rename(path.Join(Aside, n), n); err != nil {
			return nil, err
		}
	}
	top := &restorer{r.Manifest, whole}
	self := &r.Entries[0]
	if err := top.attributes(self); err != nil {
		return nil, err
	}
	if err := whole.Remove(Aside); err != nil {
		return nil, err
	}
	// The tree is complete. What comes now is not worth losing it.
	_ = top.times(self)
	return top.state(ctx, dir)
}

func (r *restorer) directories() error {
	for i := range r.Entries {
		if e := &r.Entries[i]; e.Type == Directory && e.Path != rootName {
			if err := r.root.Mkdir(string(e.Path), 0o700); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *restorer) links() error {
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Type == HardLink {
			if err := r.root.Link(string(e.Target), string(e.Path)); err != nil {
				return err
			}
		}
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Type != Symlink {
			continue
		}
		if err := r.root.Symlink(string(e.Target), string(e.Path)); err != nil {
			return err
		}
		if err := r.root.Lchown(string(e.Path), int(e.UID), int(e.GID)); err != nil {
			return err
		}
		d, err := r.root.Open(parent(string(e.Path)))
		if err != nil {
			return err
		}
		ts := unix.NsecToTimespec(e.MTime)
		err = unix.UtimesNanoAt(int(d.Fd()), path.Base(string(e.Path)), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
		if err = errors.Join(err, d.Close()); err != nil {
			return fmt.Errorf("set times of %s: %w", e.Path, err)
		}
	}
	return nil
}

// attributes gives a file or directory its owner, mode, extended attributes and times, in the order in which none undoes another.
func (r *restorer) attributes(e *Entry) error {
	f, err := r.root.OpenFile(string(e.Path), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.apply(f, e)
}

// apply is attributes of an open file.
func (r *restorer) apply(f *os.File, e *Entry) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(e.UID), int(e.GID)); err != nil {
		return fmt.Errorf("give %s to %d:%d: %w", e.Path, e.UID, e.GID, err)
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return fmt.Errorf("set mode of %s: %w", e.Path, err)
	}
	for k, v := range e.Xattrs {
		if err := unix.Fsetxattr(fd, k, v, 0); err != nil {
			return fmt.Errorf("set %s of %s: %w", k, e.Path, err)
		}
	}
	ts := unix.NsecToTimespec(e.MTime)
	if err := unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH); err != nil {
		return r.times(e) // Linux before 5.8
	}
	return nil
}

func (r *restorer) times(e *Entry) error {
	t := time.Unix(0, e.MTime)
	return r.root.Chtimes(string(e.Path), t, t)
}

// state is what is known of the tree that was made. Of what changed just now stat could tell too little.
func (r *restorer) state(ctx context.Context, dir string) (*State, error) {
	t, err := walk(ctx, dir)
	if err != nil {
		return &State{}, nil
	}
	all := r.chunks()
	sums := map[string]*Entry{}
	for i := range r.Entries {
		if e := &r.Entries[i]; e.Type == File {
			sums[string(e.Path)] = e
		}
	}
	at := now()
	s := &State{Files: make(map[string]Known, len(sums))}
	for _, n := range t.nodes {
		e := sums[n.path]
		if e == nil || !isSettled(n.stat.CTime, at) {
			continue
		}
		k := Known{Stat: n.stat, Xattrs: e.Xattrs}
		for _, c := range e.Chunks {
			k.Sums = append(k.Sums, all[c].Sum)
		}
		s.Files[n.path] = k
	}
	return s, nil
}

// Fetch reads the blob of a manifest, verifies and decodes it.
func Fetch(ctx context.Context, blobs content.Provider, d ocispecs.Descriptor, l Limits) (*Manifest, error) {
	if d.Size < 1 || d.Size > MaxManifest || d.Digest.Validate() != nil {
		return nil, fmt.Errorf("%w: a manifest of %d bytes", ErrDamaged, d.Size)
	}
	ra, err := blobs.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	b := make([]byte, d.Size)
	if _, err := io.ReadFull(io.NewSectionReader(ra, 0, d.Size), b); err != nil {
		return nil, damaged(err)
	}
	if d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, fmt.Errorf("%w: its manifest is another one", ErrDamaged)
	}
	return Decode(b, l)
}
