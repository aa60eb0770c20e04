package view

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// BenchmarkRatio measures what a step pays for being watched: the same work in a fresh overlay on a view and in one on the directory
// itself, in turns, because the machine's speed varies. The layer's files are in the page cache.
//
//	go test -run '^$' -bench Ratio ./builder/trace/view/
func BenchmarkRatio(b *testing.B) {
	needMounts(b)
	const files, directories, bigBytes = 10_000, 100, 256 << 20
	dir := scratch(b)
	small := filepath.Join(dir, "small")
	var names []string
	for d := range directories {
		many(b, filepath.Join(small, fmt.Sprint("d", d)), files/directories)
		for i := range files / directories {
			names = append(names, fmt.Sprintf("d%d/%d", d, i))
		}
	}
	big := filepath.Join(dir, "big")
	write(b, filepath.Join(big, "f"), string(make([]byte, bigBytes)), 0o644)
	buf := make([]byte, 128<<10)
	each := func(do func(path string) error) func(*testing.B, string) {
		return func(b *testing.B, root string) {
			for _, name := range names {
				if err := do(root + "/" + name); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	stat := func(path string) error {
		var st unix.Stat_t
		return unix.Lstat(path, &st)
	}
	open := func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	readAll := func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		return err
	}
	missing := func(path string) error {
		var st unix.Stat_t
		if err := unix.Lstat(path+"m", &st); err != unix.ENOENT {
			return fmt.Errorf("stat a missing name: %v", err)
		}
		return nil
	}
	readBig := func(b *testing.B, root string) {
		if err := readAll(root + "/f"); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		layer string
		ops   int
		again bool // measured is the second time
		work  func(b *testing.B, root string)
	}{
		{"stat", small, files, false, each(stat)},
		{"stat-again", small, files, true, each(stat)},
		{"missing", small, files, false, each(missing)},
		{"missing-again", small, files, true, each(missing)},
		{"open", small, files, false, each(open)},
		{"read", small, files, false, each(readAll)},
		{"read-again", small, files, true, each(readAll)},
		{"list", small, directories, false, func(b *testing.B, root string) {
			for d := range directories {
				if _, err := os.ReadDir(fmt.Sprintf("%s/d%d", root, d)); err != nil {
					b.Fatal(err)
				}
			}
		}},
		{"big-read", big, 1, false, readBig},
		{"big-read-again", big, 1, true, readBig},
	} {
		b.Run(c.name, func(b *testing.B) {
			var spent, cpu [2]time.Duration
			for range b.N {
				for i, watched := range []bool{false, true} {
					g := overlay(b, []layer{{Dir: c.layer, Watched: watched}}, "xino=on")
					if c.again {
						c.work(b, g.Merged)
					}
					start, busy := time.Now(), processorTime(b)
					c.work(b, g.Merged)
					spent[i] += time.Since(start)
					cpu[i] += processorTime(b) - busy
					g.close(b)
				}
			}
			b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
			b.ReportMetric(float64(cpu[1])/float64(cpu[0]), "cpu-ratio")
			b.ReportMetric(float64((cpu[1]-cpu[0]).Microseconds())/float64(b.N*c.ops), "cpu-µs-more/op")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// processorTime is what this process has used: the work and the view are both in it.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHandlers measures the package's own part of a request, without the kernel's way to it and back.
func BenchmarkHandlers(b *testing.B) {
	dir := b.TempDir()
	const files = 1000
	many(b, filepath.Join(dir, "d"), files)
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	backing, err := openBacking(dir)
	if err != nil {
		b.Fatal(err)
	}
	v := &View{tree: newTree(new(atomic.Uint32)), files: backing}
	defer backing.close(v.tree.root)
	f := newFileSystem(v)
	var out fuse.EntryOut
	if status := f.Lookup(nil, &fuse.InHeader{NodeId: rootID}, "d", &out); !status.Ok() {
		b.Fatal(status)
	}
	d := out.NodeId
	var ids [files]uint64
	for i, name := range names {
		f.Lookup(nil, &fuse.InHeader{NodeId: d}, name, &out)
		ids[i] = out.NodeId
	}
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			f.Lookup(nil, &fuse.InHeader{NodeId: d}, names[i%files], &out)
		}
	})
	b.Run("getxattr", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			f.GetXAttr(nil, &fuse.InHeader{NodeId: ids[i%files]}, "user.overlay.metacopy", nil)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 4096)
		for i := range b.N {
			in := fuse.ReadIn{InHeader: fuse.InHeader{NodeId: ids[i%files]}, Size: 4096}
			if _, status := f.Read(nil, &in, buf); !status.Ok() {
				b.Fatal(status)
			}
		}
	})
	if v.broken != nil {
		b.Error(v.broken)
	}
}
