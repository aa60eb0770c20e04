package compress

import (
	"io"

	"github.com/klauspost/compress/zstd"
)

// newZstd returns a writer of one frame. Its encoder works on a block and the one before it at once; more cores are of no use to it.
func newZstd(dst io.Writer, level, cores int) (io.WriteCloser, error) {
	return zstd.NewWriter(dst, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(min(cores, 2)))
}
