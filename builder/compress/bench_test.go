package compress

import (
	"io"
	"testing"
)

// BenchmarkWriter compresses a layer of some 16 MB with each format, as it comes from a tar writer: in pieces of 32 KiB.
func BenchmarkWriter(b *testing.B) {
	in := layer(b, 7, 1000)
	for _, f := range []Format{Gzip, Zstd, EStargz} {
		b.Run(string(f), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			out := 0
			for b.Loop() {
				var n counted
				w, err := Writer(&n, f, nil, Options{})
				if err != nil {
					b.Fatal(err)
				}
				for rest := in; len(rest) > 0; rest = rest[min(32<<10, len(rest)):] {
					if _, err := w.Write(rest[:min(32<<10, len(rest))]); err != nil {
						b.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
				out = int(n)
			}
			b.ReportMetric(float64(out)/float64(len(in)), "of-input")
		})
	}
}

type counted int

var _ io.Writer = (*counted)(nil)

func (c *counted) Write(p []byte) (int, error) {
	*c += counted(len(p))
	return len(p), nil
}
