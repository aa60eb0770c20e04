package export

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
)

// BenchmarkMerge makes one layer of three: 10,000 files of 1 KiB, a tenth of which each of two later steps wrote again.
func BenchmarkMerge(b *testing.B) {
	root := b.TempDir()
	u := &union{}
	size := 0
	for layer := 2; layer >= 0; layer-- { // the highest first
		dir := filepath.Join(root, fmt.Sprint(layer))
		for i := range 10_000 {
			if layer > 0 && i%10 != layer {
				continue
			}
			path := filepath.Join(dir, fmt.Sprintf("usr/lib/d%d/f%d", i/100, i))
			if i%100 == 0 || layer > 0 {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					b.Fatal(err)
				}
			}
			text := bytes.Repeat(fmt.Appendf(nil, "%d %031d\n", layer, i), 30)
			if err := os.WriteFile(path, text, 0o644); err != nil {
				b.Fatal(err)
			}
			if layer == 0 {
				size += len(text)
			}
		}
		u.members = append(u.members, directory{path: dir, made: true})
	}
	b.SetBytes(int64(size))
	for b.Loop() {
		list, err := u.changes(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if len(list) < 10_000 {
			b.Fatalf("the layer has %d entries", len(list))
		}
		if err := u.writeTar(b.Context(), io.Discard, list, mount.Mount{}); err != nil {
			b.Fatal(err)
		}
	}
}
