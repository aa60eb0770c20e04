package mounts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
)

// What of the packs of an archive may be dead, which is what no file has any more.
const (
	maxDeadOfOne = 0.5 // of one pack
	maxDead      = 0.3 // of all
	// maxSmall is how many packs with less than a quarter of PackBytes there may be: each time that an archive is saved adds one.
	maxSmall = 16
	// A pack that has more than fewChunks chunks has at most maxDeadChunks times as many as are needed of it, or lists of small files would grow on.
	maxDeadChunks = 4
	fewChunks     = 256
)

// keepPacks chooses which packs of the previous archive the next one refers to. The chunks of the others are written anew, if they are needed. It depends on nothing but its arguments.
func keepPacks(packs []Pack, needed map[Sum]bool) []Pack {
	type used struct {
		Pack
		live, all int64
		chunks    int // that are live
	}
	var kept []used
	found := map[Sum]bool{}
	for _, p := range packs {
		u := used{Pack: p, all: p.bytes()}
		for _, c := range p.Chunks {
			if needed[c.Sum] && !found[c.Sum] {
				found[c.Sum] = true
				u.live += c.Bytes
				u.chunks++
			}
		}
		crowded := len(p.Chunks) > fewChunks && len(p.Chunks) > maxDeadChunks*u.chunks
		if float64(u.all-u.live) <= maxDeadOfOne*float64(u.all) && u.live > 0 && !crowded {
			kept = append(kept, u)
		}
	}
	for {
		var all, dead int64
		worst := -1
		for i, u := range kept {
			all, dead = all+u.all, dead+u.all-u.live
			if worst < 0 || float64(u.live)/float64(u.all) < float64(kept[worst].live)/float64(kept[worst].all) {
				worst = i
			}
		}
		if float64(dead) <= maxDead*float64(all) {
			break
		}
		kept = slices.Delete(kept, worst, worst+1)
	}
	small := func(u used) bool { return u.all < PackBytes/4 }
	count := 0
	for _, u := range kept {
		if small(u) {
			count++
		}
	}
	if count > maxSmall {
		kept = slices.DeleteFunc(kept, small)
	}
	result := make([]Pack, len(kept))
	for i, u := range kept {
		result[i] = u.Pack
	}
	return result
}

// piece is where a chunk that is to be written can be read.
type piece struct {
	Chunk
	from   *regular
	offset int64
}

// packer puts the chunks of files into packs.
type packer struct {
	kept    []Pack
	new     [][]piece
	written int64 // bytes of blobs
}

func newPacker(previous *Manifest, contents []*regular) *packer {
	p := &packer{}
	needed := map[Sum]bool{}
	for _, c := range contents {
		for _, s := range c.sums {
			needed[s] = true
		}
	}
	if previous != nil {
		p.kept = keepPacks(previous.Packs, needed)
	}
	there := map[Sum]bool{}
	for _, k := range p.kept {
		for _, c := range k.Chunks {
			there[c.Sum] = true
		}
	}
	var current []piece
	size := int64(0)
	for _, c := range contents {
		offset := int64(0)
		for i, n := range chunkSizes(c.stat.Size) {
			if s := c.sums[i]; !there[s] {
				there[s] = true
				if size+n > PackBytes || len(current) == packChunks {
					p.new = append(p.new, current)
					current, size = nil, 0
				}
				current = append(current, piece{Chunk{s, n}, c, offset})
				size += n
			}
			offset += n
		}
	}
	if len(current) > 0 {
		p.new = append(p.new, current)
	}
	return p
}

// write makes the new packs, puts them, and returns all packs of the archive.
func (p *packer) write(ctx context.Context, root *os.Root, sink Sink) ([]Pack, error) {
	made := make([]Pack, len(p.new))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, pieces := range p.new {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			var b bytes.Buffer
			if err := writePack(&b, root, pieces); err != nil {
				return err
			}
			d := describe(MediaTypePack, b.Bytes())
			made[i] = Pack{Digest: d.Digest, Size: d.Size}
			for _, piece := range pieces {
				made[i].Chunks = append(made[i].Chunks, piece.Chunk)
			}
			if err := sink.Put(ctx, d, b.Bytes()); err != nil {
				return fmt.Errorf("put pack: %w", err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, m := range made {
		p.written += m.Size
	}
	return append(p.kept, made...), nil
}

// writePack compresses chunks, and makes sure that they are those that were read first.
func writePack(w io.Writer, root *os.Root, pieces []piece) error {
	z, err := newEncoder(w)
	if err != nil {
		return err
	}
	var f *os.File
	var of *regular
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	buf := make([]byte, 256<<10)
	for _, p := range pieces {
		if of != p.from {
			if f != nil {
				f.Close()
			}
			if f, err = p.from.open(root); err != nil {
				return err
			}
			of = p.from
		}
		h := sha256.New()
		n, err := io.CopyBuffer(onlyWriter{io.MultiWriter(z, h)}, onlyReader{io.NewSectionReader(f, p.offset, p.Bytes)}, buf)
		if err != nil {
			return fmt.Errorf("read %s: %w", p.from.path, err)
		}
		if n != p.Bytes || Sum(h.Sum(nil)) != p.Sum {
			return fmt.Errorf("%s: %w", p.from.path, ErrChanged)
		}
	}
	return z.Close()
}
