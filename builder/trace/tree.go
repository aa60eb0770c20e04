package trace

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/sys/unix"
)

// Limits bound what Tree reads. Zero is none at all.
type Limits struct {
	Entries int   // names, without the root
	Bytes   int64 // of content
}

// EmptyTree is the identity of a layer in which there is nothing: a root with mode 0755 that belongs to root, without extended
// attributes that count.
var EmptyTree = func() [32]byte {
	h := sha256.New()
	header(h, &Entry{Path: ".", Mode: unix.S_IFDIR | 0o755})
	return [32]byte(h.Sum(nil))
}()

// Tree returns the precise identity of a small layer: two layers with equal ones look the same to every step, but for times,
// inode numbers and hard links. It is not ok if the layer is larger than the limits allow.
func Tree(root string, limits Limits) (digest [32]byte, ok bool, err error) {
	w, err := newWalker(root)
	if err != nil {
		return digest, false, err
	}
	defer w.close()
	t := tree{walker: w, hash: sha256.New(), left: limits}
	ok, err = t.add(".")
	if !ok || err != nil {
		return digest, false, err
	}
	return [32]byte(t.hash.Sum(nil)), true, nil
}

type tree struct {
	*walker
	hash hash.Hash
	left Limits
}

// add adds a name and all that is below it. It is false if that is too much.
func (t *tree) add(path string) (bool, error) {
	wrap := func(err error) error { return fmt.Errorf("read %q of a layer: %w", path, err) }
	st, there, err := t.stat(path)
	if err == nil && !there {
		err = unix.ENOENT
	}
	if err != nil {
		return false, wrap(err)
	}
	e := Entry{Path: path, What: Looked}
	e.attributes(&st)
	if t.left.Bytes -= e.Size; t.left.Bytes < 0 {
		return false, nil
	}
	if e.kind() == unix.S_IFDIR {
		e.What |= Listed
	}
	if err := t.capture(&e); err != nil {
		return false, wrap(err)
	}
	if t.left.Entries -= len(e.Listing); t.left.Entries < 0 {
		return false, nil
	}
	header(t.hash, &e)
	for _, n := range e.Listing {
		below := n.Name
		if path != "." {
			below = path + "/" + n.Name
		}
		if ok, err := t.add(below); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// header adds an entry's own facts to a digest.
func header(h hash.Hash, e *Entry) {
	b := binary.AppendUvarint(nil, uint64(len(e.Path)))
	b = append(b, e.Path...)
	for _, v := range []uint64{uint64(e.Mode), uint64(e.UID), uint64(e.GID), uint64(e.Size), e.Rdev} {
		b = binary.AppendUvarint(b, v)
	}
	b = append(b, e.Content[:]...)
	b = append(b, e.Xattrs[:]...)
	h.Write(b)
}
