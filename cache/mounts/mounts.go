// Package mounts keeps the contents of a directory, such as that of a cache mount, as blobs that a registry can hold, and makes the directory again from them.
//
//	a directory ──Save──> an archive: a manifest and packs ──Restore──> an empty directory that becomes the same
//
// What an archive consists of:
//
//	manifest  names, types, modes, owners, times in nanoseconds, targets of links, and for each file the chunks that it is made of
//	pack      a blob of some MiB, compressed, with the chunks of many files in it
//	chunk     what a file contains, or 4 MiB of it if it is larger; known by its SHA-256
//
// An archive that is saved after another one refers to the packs of that for all that did not change, so what is new is a manifest and a pack or two. Packs most of which
// nobody needs any more are made again. The same directory after the same archive gives the same bytes, whoever saves it.
//
// Saving an unchanged directory costs a walk through it: a [State] knows what files were like when they were read last, and is not believed about a file of which
// anything that stat tells is otherwise, among it the time of change, which nobody can set.
//
// Nothing that Restore reads is believed: sizes and counts are bounded before they are used, each chunk is compared with its sum before it is written, and names are
// created below the directory only. What does not fit leaves an empty directory and an error.
//
// The package knows nothing of builds, of who uses a directory, or of where blobs are kept. It needs Linux. Where it is weak: what others write into a directory while it
// is saved is noticed ([ErrChanged]) by what stat tells alone.
package mounts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of an archive's blobs.
const (
	MediaTypeManifest = "application/vnd.optbuild.mount.v1+zstd"
	MediaTypePack     = "application/vnd.optbuild.mount.pack.v1+zstd"
)

// Sizes of an archive's parts. Other values make other archives, but Restore takes what is smaller.
const (
	// ChunkBytes is how much of a file is one chunk. Cuts are at fixed places, not where the content says: files of package caches are written once, and those that
	// grow or are changed in place (databases, indexes, logs) keep what is before and after the change where it was.
	ChunkBytes = 4 << 20
	// PackBytes is how much is put into one pack before it is compressed. It is fetched as a whole: less means more requests, more means that more is fetched or
	// written again for the sake of little.
	PackBytes = 16 << 20
	// packChunks is how many chunks one pack has at most.
	packChunks = 1 << 15
)

// Limits bound an archive. The zero value of a field stands for its default.
type Limits struct {
	Bytes int64 // of all files; default 2 GiB
	Files int   // with directories and links; default 200,000
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 2 << 30
	}
	if l.Files == 0 {
		l.Files = 200_000
	}
	return l
}

var (
	// ErrChanged is wrapped by errors of Save when the directory changed meanwhile.
	ErrChanged = errors.New("it changed while it was read")
	// ErrTooLarge is wrapped by errors of Save when the directory is over its limits and nothing of it may be left out.
	ErrTooLarge = errors.New("it is too large")
	// ErrDamaged is wrapped by errors of Decode and Restore when an archive is not what Save makes.
	ErrDamaged = errors.New("the archive is damaged")
	// ErrNotEmpty is returned by Restore for a directory that has something in it.
	ErrNotEmpty = errors.New("the directory is not empty")
)

// Sink takes blobs. Put may be called concurrently, and is given the bytes to keep.
type Sink interface {
	Put(ctx context.Context, d ocispecs.Descriptor, b []byte) error
}

// Sum is a SHA-256.
type Sum [sha256.Size]byte

// MarshalText returns hex digits.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads hex digits.
func (s *Sum) UnmarshalText(b []byte) error {
	if len(b) != 2*len(s) {
		return fmt.Errorf("a sum of %d characters", len(b))
	}
	_, err := hex.Decode(s[:], b)
	return err
}

func describe(mediaType string, b []byte) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}
