package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// buildCache makes a tree like that of a compiler's cache: half of what is in it can be compressed.
func buildCache(b *testing.B, files, bytes int) string {
	dir := b.TempDir()
	for i := range 256 {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	for i := range files {
		text := noise(uint64(i), bytes/2) + strings.Repeat(fmt.Sprint("object ", i), bytes/2/12)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02x/%d-d", i%256, i)), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// processor reports the time of all cores, which does not depend on what else the machine does as much as the other does. It returns a function for the end.
func processor(b *testing.B) func() {
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begun := used()
	return func() { b.ReportMetric(float64((used()-begun).Milliseconds())/float64(b.N), "cpu-ms/op") }
}

const benchFiles, benchBytes = 10_000, 20_000

func BenchmarkSave(b *testing.B) {
	dir := buildCache(b, benchFiles, benchBytes)
	defer processor(b)()
	for b.Loop() {
		if _, err := Save(b.Context(), dir, &blobs{}, SaveOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSaveOneChanged(b *testing.B) {
	dir := buildCache(b, benchFiles, benchBytes)
	a, err := Save(b.Context(), dir, &blobs{}, SaveOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer processor(b)()
	for i := 0; b.Loop(); i++ {
		if err := os.WriteFile(filepath.Join(dir, "00/0-d"), []byte(noise(uint64(i), benchBytes)), 0o644); err != nil {
			b.Fatal(err)
		}
		if _, err := Save(b.Context(), dir, &blobs{}, SaveOptions{Previous: a.Manifest, State: a.State}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnchanged(b *testing.B) {
	dir := buildCache(b, benchFiles, benchBytes)
	t, err := walk(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	defer processor(b)()
	for b.Loop() {
		if same, err := Unchanged(b.Context(), dir, Head{Fingerprint: t.fingerprint}); err != nil || !same {
			b.Fatal(same, err)
		}
	}
}

func BenchmarkRestore(b *testing.B) {
	dir := buildCache(b, benchFiles, benchBytes)
	s := &blobs{}
	a, err := Save(b.Context(), dir, s, SaveOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer processor(b)() // with what removes the trees
	for b.Loop() {
		b.StopTimer()
		to, err := os.MkdirTemp(b.TempDir(), "")
		if err != nil {
			b.Fatal(err)
		}
		m, err := Fetch(b.Context(), s, a.Descriptor, Limits{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := Restore(b.Context(), to, m, s); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(to); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
