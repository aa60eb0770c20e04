package export

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
)

// Adjacent RUNs become one layer, which can't be made before the last of them has run. But most of it is known by then, and the compression remembers what it has compressed. So what the layer
// would be without the RUN that begins now is compressed while that runs, and thrown away:
//
//	RUN apt-get install python3     (begins)
//	RUN apt-get install curl        (begins)   the layer of python3 is rehearsed
//	RUN apt-get install vim         (begins)   python3 and curl: what is new of it is compressed
//	export                                     all three: what is new of it is compressed
//
// A rehearsal reads all files of the layer, so there is one each time that the layer has grown by a third.

// Rehearsed is what of an image was rehearsed: bytes of a layer, by the record of its first step.
type Rehearsed map[string]int64

// minRehearsed is from how many bytes of files on a layer is rehearsed.
const minRehearsed = 4 << 20

// Rehearse writes the layers that the last RUNs of ref would become, if no other followed, to a compression that remembers what it does. It keeps no blob.
func (m *Merger) Rehearse(ctx context.Context, ref cache.ImmutableRef, u Unfinished, s session.Group, past Rehearsed) error {
	o, _, err := takeOptions(u.Attrs)
	if err != nil {
		return err
	}
	if o = o.without(u.Off); o.Squash != SquashRuns {
		return nil
	}
	config, err := u.cut(ref)
	if err != nil {
		return err
	}
	j := &job{Merger: m, comp: u.Compression, session: s}
	_, steps, release, err := j.begin(ctx, ref, config, u.BaseConfig, o)
	if err != nil {
		return err
	}
	defer release()
	units := unitsOf(steps, j.base, o.Squash)
	if len(units) == 0 {
		return nil
	}
	parts, err := j.divide(ctx, units[len(units)-1])
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := j.rehearse(ctx, part, past); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) rehearse(ctx context.Context, u unit, past Rehearsed) error {
	if u.runs() == 0 {
		return nil
	}
	if _, ok := j.known(ctx, j.exactKey(u), false); ok {
		return nil // an image has had it
	}
	un, like, release, err := j.union(ctx, u)
	if err != nil {
		return err
	}
	defer release()
	list, err := un.changes(ctx)
	if err != nil {
		return err
	}
	first, bytes := j.chain[u.first].ID(), written(list)
	if !past.due(first, bytes) {
		return nil
	}
	if err := j.discard(ctx, un, list, like); err != nil {
		return err // one that had to give way is still due
	}
	past[first] = bytes
	return nil
}

// due is true if the layer that begins with a record is worth a rehearsal, now that it has so many bytes of files.
func (p Rehearsed) due(first string, bytes int64) bool {
	return bytes >= minRehearsed && bytes-p[first] >= bytes/4
}

// written is how many bytes of files a layer has.
func written(list []change) (bytes int64) {
	for _, c := range list {
		if c.rule == "" && c.info != nil && c.info.Mode().IsRegular() {
			bytes += c.info.Size()
		}
	}
	return bytes
}

// discard compresses a layer into nothing.
func (j *job) discard(ctx context.Context, un *union, list []change, like mount.Mount) error {
	compress, _ := j.comp.Type.Compress(ctx, j.comp)
	if compress == nil {
		return nil
	}
	w, err := compress(io.Discard, j.comp.Type.MediaType())
	if err != nil {
		return fmt.Errorf("rehearse a layer: %w", err)
	}
	if err := un.writeTar(ctx, w, list, like); err != nil {
		_ = w.Close()
		return fmt.Errorf("rehearse a layer: %w", err)
	}
	return w.Close()
}
