// Package compress makes layers smaller: gzip, zstd, eStargz and zstd:chunked, on all cores, with bytes that depend on nothing but what goes in.
//
// What comes in is a layer's tar stream; what goes out is a blob. [New] gives a compression to BuildKit (a compression.Type), which then makes its blobs with it
// wherever it is asked to, and [Writer] one to those who write layers themselves. The package knows nothing of snapshots, images or builds.
//
//	tar ──> pieces that end where the content says so, or one chunk for each file ──> compressed at once ──> written in their order
//
// Deterministic means: the same tar, format and level give the same blob on every machine and with any number of cores, as long as [Key] is the same.
//
// Where it is weak: gzip is larger than that of the standard library by two to three percent at the same level (see the README for figures). zstd is one stream and
// so uses little more than one core, of which it needs a fifth of what gzip does.
package compress

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/moby/buildkit/util/compression"
)

// Format is how a layer is compressed. Its value is what users write.
type Format string

// The formats. All but [Uncompressed] exist in several levels.
const (
	Gzip         Format = "gzip"
	Zstd         Format = "zstd"
	EStargz      Format = "estargz"
	ZstdChunked  Format = "zstd:chunked"
	Uncompressed Format = "uncompressed"
)

// Formats are the formats in the order in which users are told of them.
func Formats() []Format { return []Format{Gzip, Zstd, EStargz, ZstdChunked, Uncompressed} }

// Parse reads what a user has written.
func Parse(s string) (Format, error) {
	if f := Format(s); slices.Contains(Formats(), f) {
		return f, nil
	}
	return "", fmt.Errorf("%q is not gzip, zstd, estargz, zstd:chunked or uncompressed", s)
}

// Lazy says whether images of this format can be pulled lazily, so that every layer must have it.
func (f Format) Lazy() bool { return f == EStargz || f == ZstdChunked }

// Levels returns the lowest, the highest and the default level of f, which are those of its tools; all 0 without levels.
func (f Format) Levels() (lowest, highest, usual int) {
	switch f {
	case Gzip, EStargz:
		return 0, 9, 6
	case Zstd, ZstdChunked:
		return 1, 22, 3
	default:
		return 0, 0, 0
	}
}

// CheckLevel says what is wrong with a level.
func (f Format) CheckLevel(level int) error {
	lowest, highest, _ := f.Levels()
	switch {
	case highest == 0:
		return fmt.Errorf("%s has no levels", f)
	case level < lowest || level > highest:
		return fmt.Errorf("levels of %s are %d to %d", f, lowest, highest)
	}
	return nil
}

func (f Format) level(asked *int) int {
	_, _, usual := f.Levels()
	if asked == nil || f.CheckLevel(*asked) != nil {
		return usual
	}
	return *asked
}

// Options are about how it is done: they change no byte of the result.
type Options struct {
	// Cores is how many may be used at once. 0 means all.
	Cores int
	// Memo has pieces of gzip that were compressed before. May be nil.
	Memo *Memo
	// Rehearse says that the Memo is to remember what is compressed.
	Rehearse bool
}

func (o Options) cores() int {
	const most = 16 // with more, reading the layer is what takes time, and each needs memory
	return min(cmp.Or(o.Cores, runtime.GOMAXPROCS(0)), most)
}

// Version is counted up when the bytes change that this package makes of the same input, which includes those that klauspost/compress makes: a test fails then.
const Version = 2

// Key names everything that a blob depends on besides its content. Blobs under equal keys are equal.
func Key(f Format, level *int) string {
	if f == Uncompressed {
		return string(f)
	}
	return fmt.Sprintf("%s-%d-v%d", f, f.level(level), Version)
}

// Writer returns a writer that compresses what is written to it, and that must be closed. Of eStargz and zstd:chunked it makes only the blob: their annotations need [New].
func Writer(dst io.Writer, f Format, level *int, o Options) (io.WriteCloser, error) {
	switch f {
	case Uncompressed:
		return nopCloser{dst}, nil
	case Gzip:
		return newGzip(dst, f.level(level), o)
	case Zstd:
		return newZstd(dst, f.level(level), o.cores())
	case EStargz:
		return newStargz(dst, f.level(level), o.cores()), nil
	case ZstdChunked:
		return newChunked(dst, f.level(level), o.cores(), 0), nil
	default:
		return nil, fmt.Errorf("compress: no format %q", f)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// New returns f as BuildKit knows compressions: with media types and conversions from the others as stock, but with this package's writers.
func New(f Format, o Options) (compression.Type, error) {
	switch f {
	case Uncompressed:
		return compression.Uncompressed, nil
	case Gzip:
		return plain{compression.Gzip, f, o}, nil
	case Zstd:
		return plainZstd{plain{compression.Zstd, f, o}}, nil
	case ZstdChunked:
		return chunked{compression.Zstd, o}, nil
	case EStargz:
		return stargz{compression.EStargz, o}, nil
	default:
		return nil, fmt.Errorf("compress: no format %q", f)
	}
}

// Instead returns c with this package's writers in place of BuildKit's.
func Instead(c compression.Config, o Options) compression.Config {
	if c.Type == nil {
		return c
	}
	if t, err := New(Format(c.Type.String()), o); err == nil {
		c.Type = t
	}
	return c
}

// Rehearses is true of a compression of this package that makes use of a Memo.
func Rehearses(c compression.Config) bool {
	t, ok := c.Type.(plain)
	return ok && t.format == Gzip && t.options.Memo != nil
}

// Rehearsing returns c with a Memo that remembers what is compressed. c must be one that Rehearses.
func Rehearsing(c compression.Config) compression.Config {
	t := c.Type.(plain)
	t.options.Rehearse = true
	c.Type = t
	return c
}

// plain is a compression that is only a stream.
type plain struct {
	compression.Type
	format  Format
	options Options
}

func (t plain) Compress(_ context.Context, c compression.Config) (compression.Compressor, compression.Finalizer) {
	return func(dst io.Writer, _ string) (io.WriteCloser, error) {
		return Writer(dst, t.format, c.Level, t.options)
	}, nil
}

// NeedsComputeDiffBySelf is false because the engine's differ compresses with what it is given.
func (plain) NeedsComputeDiffBySelf(compression.Config) bool { return false }
