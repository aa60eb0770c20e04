package replay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"
)

// Times are the files of one COPY and when they were modified, so that another machine, whose checkout is new, gives those that did not change the times that they had: what was made
// from them there must not look older than they are. See keeper.
type Times struct {
	Files []FileTime `json:"files"` // in the order of paths
}

// FileTime is one name of a COPY's layer.
type FileTime struct {
	Path     string `json:"p"` // below the layer's root, without a slash at the beginning
	Modified int64  `json:"m"` // nanoseconds since 1970
	Mode     uint32 `json:"t"` // st_mode
	Size     int64  `json:"s,omitempty"`
	// Digest is of a regular file's content, a link's target, or the names in a directory: the first 16 bytes of their SHA-256, in hexadecimal digits.
	Digest string `json:"d,omitempty"`
}

// Copied is a COPY from the context.
type Copied struct {
	Name  string
	Key   string // that other machines find it under
	Times func(context.Context) (*Times, error)
}

// maxTimed is how many names a COPY may have for its times to be passed on.
const maxTimed = 100_000

// errManyFiles says that a COPY has more than that.
var errManyFiles = errors.New("it has too many files")

// timesKey is what a COPY is known by on all machines: what it does, and the steps that it lies on by their names.
func timesKey(v solver.Vertex, op *pb.FileOp) string {
	b, err := op.MarshalVT()
	if err != nil {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "optbuild shared times 1\n%q\n", b)
	for edge, n := (solver.Edge{Vertex: v}), 0; n < maxChain; n++ {
		fmt.Fprintf(h, "%q\n", stepName(edge.Vertex))
		in, ok := inputOf(edge.Vertex, 0)
		if !ok {
			break
		}
		edge = in
	}
	return hex.EncodeToString(h.Sum(nil))
}

// tableOf lists the files of a layer.
func tableOf(ctx context.Context, dir string) (*Times, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t := &Times{}
	err = fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case len(t.Files) >= maxTimed:
			return errManyFiles
		}
		f, err := fileTime(root, p)
		if err == nil && p != "." {
			t.Files = append(t.Files, f)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(t.Files, func(a, b FileTime) int { return strings.Compare(a.Path, b.Path) })
	return t, nil
}

func fileTime(root *os.Root, p string) (f FileTime, err error) {
	st, err := lstat(root, p)
	if err != nil {
		return f, err
	}
	f = FileTime{Path: p, Modified: st.Mtim.Nano(), Mode: st.Mode}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f.Size = st.Size
	case unix.S_IFLNK, unix.S_IFDIR:
	default:
		return f, nil
	}
	f.Digest, err = contentOf(root, p, st.Mode)
	return f, err
}

func lstat(root *os.Root, p string) (st unix.Stat_t, err error) {
	dir, err := root.Open(path.Dir(p))
	if err != nil {
		return st, err
	}
	defer dir.Close()
	name := path.Base(p)
	err = unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func contentOf(root *os.Root, p string, mode uint32) (string, error) {
	h := sha256.New()
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		to, err := root.Readlink(p)
		if err != nil {
			return "", err
		}
		io.WriteString(h, to)
	case unix.S_IFDIR:
		entries, err := fs.ReadDir(root.FS(), p)
		if err != nil {
			return "", err
		}
		for _, e := range entries { // sorted
			fmt.Fprintf(h, "%q\n", e.Name())
		}
	default:
		f, err := root.Open(p)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// apply gives files of a layer that are as a table has them, and look newer, the times that they had.
func (t *Times) apply(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range slices.Backward(t.Files) { // what is in a directory before the directory
		st, err := lstat(root, f.Path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return err
		}
		if st.Mode != f.Mode || st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size != f.Size || st.Mtim.Nano() <= f.Modified {
			continue
		}
		if f.Digest != "" {
			is, err := contentOf(root, f.Path, st.Mode)
			if err != nil {
				return err
			}
			if is != f.Digest {
				continue
			}
		}
		parent, err := root.Open(path.Dir(f.Path))
		if err != nil {
			return err
		}
		at := unix.NsecToTimespec(f.Modified)
		err = unix.UtimesNanoAt(int(parent.Fd()), path.Base(f.Path), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
		parent.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Encode returns the bytes of a table.
func (t *Times) Encode() ([]byte, error) { return json.Marshal(t) }

// DecodeTimes is its inverse.
func DecodeTimes(b []byte) (*Times, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	t := &Times{}
	if err := d.Decode(t); err != nil {
		return nil, err
	}
	if len(t.Files) > maxTimed {
		return nil, errManyFiles
	}
	for _, f := range t.Files {
		if !fs.ValidPath(f.Path) {
			return nil, fmt.Errorf("%q is no path in a layer", f.Path)
		}
	}
	return t, nil
}
