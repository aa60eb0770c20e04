package trace

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// BenchmarkCheck compares files of 2 KiB, 20 in a directory, as many names that are absent as there are directories, and listings.
func BenchmarkCheck(b *testing.B) {
	for _, files := range []int{100, 10_000} {
		b.Run(fmt.Sprint(files), func(b *testing.B) {
			g := newGround(b)
			var seen []Seen
			for i := range files {
				dir := fmt.Sprintf("node_modules/module-%d", i/20)
				path := fmt.Sprintf("%s/index-%d.js", dir, i)
				g.write(path, strings.Repeat(fmt.Sprintf("%031d\n", i), 64))
				seen = append(seen, Seen{path, Read, uint32(len(seen))})
				if i%20 == 0 {
					seen = append(seen, Seen{dir + "/package.json", Absent, uint32(len(seen))}, Seen{dir, Listed, uint32(len(seen))})
				}
			}
			l := g.capture(seen...)
			b.ResetTimer()
			for range b.N {
				if d, err := l.Check(g.dir, started); d != nil || err != nil {
					b.Fatal(d, err)
				}
			}
			b.ReportMetric(float64(len(l.Entries)), "entries")
		})
	}
}

// BenchmarkCapture is what a step pays after it has run.
func BenchmarkCapture(b *testing.B) {
	g := newGround(b)
	var seen []Seen
	for i := range 10_000 {
		path := fmt.Sprintf("node_modules/module-%d/index-%d.js", i/20, i)
		g.write(path, strings.Repeat(fmt.Sprintf("%031d\n", i), 64))
		seen = append(seen, Seen{path, Read, uint32(i)})
	}
	b.ResetTimer()
	for range b.N {
		g.capture(seen...)
	}
}

// BenchmarkEncode and BenchmarkDecode have 100,000 names of which 40 % are absent and most of the others are files, three of
// four with a content of their own.
func BenchmarkEncode(b *testing.B) {
	t := invent(rand.New(rand.NewPCG(7, 8)), 2, 50_000)
	size := 0
	for range b.N {
		encoded, err := t.Encode(testKey)
		if err != nil {
			b.Fatal(err)
		}
		size = len(encoded)
	}
	b.ReportMetric(float64(size), "bytes")
}

func BenchmarkDecode(b *testing.B) {
	t := invent(rand.New(rand.NewPCG(7, 8)), 2, 50_000)
	encoded, err := t.Encode(testKey)
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		if _, err := Decode(encoded, testKey); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecodeSmall is what each stored trace of a step costs before it is compared.
func BenchmarkDecodeSmall(b *testing.B) {
	t := invent(rand.New(rand.NewPCG(7, 8)), 1, 200)
	t.Started = time.Now()
	encoded, err := t.Encode(testKey)
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		if _, err := Decode(encoded, testKey); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(encoded)), "bytes")
}

func BenchmarkTree(b *testing.B) {
	g := newGround(b)
	g.mkdir("app/sub")
	for range b.N {
		if _, ok, err := Tree(g.dir, Limits{Entries: 100, Bytes: 1 << 20}); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
