package mounts

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/containerd/containerd/v2/core/content"
	"golang.org/x/sync/errgroup"
)

// place of a chunk in a file.
type use struct {
	entry  *Entry
	offset int64
	whole  bool // the chunk is all of the file
}

// files makes regular files, each pack by itself, so that what is read is not kept.
func (r *restorer) files(ctx context.Context, blobs content.Provider) error {
	all := r.chunks()
	uses := make([][]use, len(all))
	var large []*Entry
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Type != File {
			continue
		}
		if len(e.Chunks) != 1 {
			if err := r.create(e, all); err != nil {
				return err
			}
			large = append(large, e)
		}
		offset := int64(0)
		for _, c := range e.Chunks {
			uses[c] = append(uses[c], use{e, offset, len(e.Chunks) == 1})
			offset += all[c].Bytes
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0)) // they wait for the network in turn
	for _, p := range r.Packs {
		mine := uses[:len(p.Chunks)]
		uses = uses[len(p.Chunks):]
		last := len(mine)
		for last > 0 && len(mine[last-1]) == 0 {
			last--
		}
		if last == 0 {
			continue // nobody needs it
		}
		g.Go(func() error {
			if err := r.unpack(gctx, p, mine[:last], blobs); err != nil {
				return fmt.Errorf("pack %s: %w", p.Digest, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, e := range large {
		if err := r.attributes(e); err != nil {
			return err
		}
	}
	return nil
}

// create makes a file with as many bytes as it will have.
func (r *restorer) create(e *Entry, all []Chunk) error {
	f, err := r.root.OpenFile(string(e.Path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	size := int64(0)
	for _, c := range e.Chunks {
		size += all[c].Bytes
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// unpack reads one pack and writes what is used of it.
func (r *restorer) unpack(ctx context.Context, p Pack, uses [][]use, blobs content.Provider) error {
	ra, err := blobs.ReaderAt(ctx, p.Descriptor())
	if err != nil {
		return err
	}
	defer ra.Close()
	if ra.Size() != p.Size {
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrDamaged, ra.Size(), p.Size)
	}
	z, err := newDecoder(io.NewSectionReader(ra, 0, p.Size))
	if err != nil {
		return err
	}
	defer z.Close()
	var buf []byte
	for i, us := range uses {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		c := p.Chunks[i]
		if len(us) == 0 {
			if _, err := io.CopyN(io.Discard, z, c.Bytes); err != nil {
				return damaged(err)
			}
			continue
		}
		if int64(cap(buf)) < c.Bytes {
			buf = make([]byte, c.Bytes)
		}
		b := buf[:c.Bytes]
		if _, err := io.ReadFull(z, b); err != nil {
			return damaged(err)
		}
		if sha256.Sum256(b) != c.Sum {
			return fmt.Errorf("%w: what is in it is not what it should be", ErrDamaged)
		}
		for _, u := range us {
			if err := r.write(u, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// damaged says of an error of reading that the blob is to blame, if it is.
func damaged(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrDamaged)
	}
	return fmt.Errorf("read: %w", err)
}

func (r *restorer) write(u use, b []byte) error {
	flags := os.O_WRONLY
	if u.whole {
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := r.root.OpenFile(string(u.entry.Path), flags, 0o600)
	if err != nil {
		return err
	}
	if !zero(b) || u.whole {
		_, err = f.WriteAt(b, u.offset)
	} // else: a hole, as there is one now
	if err == nil && u.whole {
		err = r.apply(f, u.entry)
	}
	return errors.Join(err, f.Close())
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
