package mounts

import (
	"bufio"
	"encoding/gob"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// State is what is known of a directory since it was saved or restored. It belongs to one directory of one machine.
type State struct {
	Head
	Files map[string]Known // by path
}

// Head is what tells that nothing has changed.
type Head struct {
	// Manifest is the blob of the archive that the directory is equal to, or was when it was saved or restored last.
	Manifest ocispecs.Descriptor
	// Fingerprint is of all that stat told of the directory. The zero value stands for none.
	Fingerprint Sum
}

// Known is what was in a file, and what stat told of it then.
type Known struct {
	Stat   Stat
	Sums   []Sum // of its chunks
	Xattrs map[string][]byte
}

// settled is how long ago a file must have changed for stat to tell a later change apart: clocks of file systems go in ticks of 10 ms or less.
const settled = 50 * time.Millisecond

func isSettled(ctime int64, at time.Time) bool { return ctime < at.Add(-settled).UnixNano() }

// Unchanged walks through a directory and says whether it is as it was when the state was made.
func (h Head) unchanged(t *tree) bool {
	return h.Fingerprint != Sum{} && h.Fingerprint == t.fingerprint
}

// Write stores a state, so that its head can be read alone.
func (s *State) Write(w io.Writer) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	enc := gob.NewEncoder(z)
	err = enc.Encode(s.Head)
	if err == nil {
		err = z.Flush()
	}
	if err == nil {
		err = enc.Encode(s.Files)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// ReadState reads what Write has written; only the head unless files are asked for.
func ReadState(r io.Reader, files bool) (*State, error) {
	z, err := zstd.NewReader(bufio.NewReader(r), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	dec := gob.NewDecoder(z)
	s := &State{}
	err = dec.Decode(&s.Head)
	if err == nil && files {
		err = dec.Decode(&s.Files)
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return s, nil
}

// chunkSizes returns how a file is cut.
func chunkSizes(size int64) []int64 {
	if size == 0 {
		return nil
	}
	sizes := slices.Repeat([]int64{ChunkBytes}, int((size-1)/ChunkBytes))
	return append(sizes, size-int64(len(sizes))*ChunkBytes)
}
