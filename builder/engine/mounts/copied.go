package mounts

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/cache/mounts"
)

// Programs such as make take what they made before if it is younger than what they make it from. On one machine that is right as long as the files that are edited get
// the time of the edit. A mount that comes from another machine may hold what was made, later than this machine's checkout, from another version of a file. So of a mount
// that is not known to be checked ([mounts.Kind]) the archive says which files had been copied for the step that left it, and it is restored only where each copied file is
// younger than all of the archive, or the same as it was there.

// mediaTypeCopied is of a list of lines: the SHA-256 of a file, a space, its path as a quoted string of Go.
const mediaTypeCopied = "application/vnd.optbuild.mount.copied.v1+zstd"

// Bounds of such a list.
const (
	maxCopied      = 100_000
	maxCopiedBlob  = 16 << 20
	maxCopiedPlain = 64 << 20
)

// errMany is returned for steps that have too many files for a list of them.
var errMany = errors.New("too many files were copied")

// copiedFile is a regular file in a directory of what was copied.
type copiedFile struct {
	path  string // on this machine
	mtime int64  // ns
}

// copiedFiles lists regular files as a step sees them. Directories lie on each other, the topmost first.
func copiedFiles(ctx context.Context, dirs []string) (map[string]copiedFile, error) {
	files := map[string]copiedFile{}
	hidden := map[string]bool{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel := strings.TrimPrefix(p, dir)
			if hidden[rel] {
				return nil
			}
			hidden[rel] = true
			if len(hidden) > maxCopied {
				return errMany
			}
			if !d.Type().IsRegular() {
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			files[rel] = copiedFile{p, info.ModTime().UnixNano()}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

func (f copiedFile) sum() (sum mounts.Sum, err error) {
	r, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return sum, err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// outOfDate says why an archive must not be restored for a step, if so.
func (st *step) outOfDate(ctx context.Context, blobs content.Provider, u *use, a Archive, m *mounts.Manifest) string {
	const why = "it may hold what was made from other files than those that were copied here, and look newer"
	if u.copied == nil {
		return why
	}
	files, err := copiedFiles(ctx, u.copied)
	if err != nil {
		return fmt.Sprintf("%s (%v)", why, err)
	}
	newest := m.Newest().UnixNano()
	var there map[string]mounts.Sum
	for _, p := range slices.Sorted(maps.Keys(files)) {
		f := files[p]
		if f.mtime > newest {
			continue
		}
		if there == nil {
			if there, err = readCopied(ctx, blobs, a); err != nil {
				return fmt.Sprintf("%s (%v)", why, err)
			}
		}
		sum, err := f.sum()
		if err != nil {
			return fmt.Sprintf("%s (%v)", why, err)
		}
		if there[p] != sum {
			return fmt.Sprintf("%s (%s)", why, p)
		}
	}
	return ""
}

// listCopied makes the list of what was copied for a step.
func listCopied(ctx context.Context, dirs []string) (ocispecs.Descriptor, []byte, error) {
	files, err := copiedFiles(ctx, dirs)
	if err != nil {
		return ocispecs.Descriptor{}, nil, err
	}
	var plain bytes.Buffer
	for _, p := range slices.Sorted(maps.Keys(files)) {
		sum, err := files[p].sum()
		if err != nil {
			return ocispecs.Descriptor{}, nil, err
		}
		fmt.Fprintf(&plain, "%x %s\n", sum, strconv.Quote(p))
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return ocispecs.Descriptor{}, nil, err
	}
	b := z.EncodeAll(plain.Bytes(), nil)
	if plain.Len() > maxCopiedPlain || len(b) > maxCopiedBlob {
		return ocispecs.Descriptor{}, nil, errMany
	}
	return ocispecs.Descriptor{MediaType: mediaTypeCopied, Digest: digest.FromBytes(b), Size: int64(len(b))}, b, nil
}

// readCopied reads the list that an archive has: an empty one if it has none.
func readCopied(ctx context.Context, blobs content.Provider, a Archive) (map[string]mounts.Sum, error) {
	i := slices.IndexFunc(a.Holds, func(d ocispecs.Descriptor) bool { return d.MediaType == mediaTypeCopied })
	sums := map[string]mounts.Sum{}
	if i < 0 {
		return sums, nil
	}
	d := a.Holds[i]
	if d.Size < 1 || d.Size > maxCopiedBlob || d.Digest.Validate() != nil {
		return nil, errors.New("a list of files that is too long")
	}
	ra, err := blobs.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	b := make([]byte, d.Size)
	if _, err := io.ReadFull(io.NewSectionReader(ra, 0, d.Size), b); err != nil {
		return nil, err
	}
	if d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, errors.New("a list of files that is another one")
	}
	z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	lines := bufio.NewScanner(io.LimitReader(z, maxCopiedPlain))
	for lines.Scan() {
		hexSum, quoted, _ := strings.Cut(lines.Text(), " ")
		p, err := strconv.Unquote(quoted)
		var sum mounts.Sum
		if err == nil {
			err = sum.UnmarshalText([]byte(hexSum))
		}
		if err != nil || len(sums) >= maxCopied {
			return nil, fmt.Errorf("a list of files with a line that is none: %.100q", lines.Text())
		}
		sums[p] = sum
	}
	return sums, lines.Err()
}
