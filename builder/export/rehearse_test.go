package export

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/util/compression"

	"github.com/optbuild/optbuild/builder/compress"
)

// TestRehearse: a layer that was rehearsed without its last RUN is the same, bit for bit, and most of it is not compressed again.
func TestRehearse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	root := t.TempDir()
	var members []directory // the highest first
	for layer := range 3 {
		dir := filepath.Join(root, fmt.Sprint(layer))
		r := rand.New(rand.NewPCG(uint64(layer), 1))
		for i := range 400 {
			path := filepath.Join(dir, fmt.Sprintf("usr/d%d/f%d", i/20, (i*3+layer)%1200)) // between those of the others
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			text := make([]byte, r.IntN(20_000))
			for k := range text {
				text[k] = byte('a' + r.IntN(3))
			}
			if layer == 2 && i > 3 { // which is small
				break
			}
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		members = slices.Insert(members, 0, directory{path: dir, made: true})
	}
	memo := compress.NewMemo(t.TempDir())
	tar := func(c compression.Config, members []directory) []byte {
		un := &union{members: members}
		list, err := un.changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		j := &job{comp: c}
		if compress.Rehearses(c) && len(members) < 3 {
			j.comp = compress.Rehearsing(c)
			if err := j.discard(t.Context(), un, list, mount.Mount{}); err != nil {
				t.Fatal(err)
			}
			return nil
		}
		do, _ := c.Type.Compress(t.Context(), c)
		var out bytes.Buffer
		w, err := do(&out, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := un.writeTar(t.Context(), w, list, mount.Mount{}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	gzip := compression.New(compression.Gzip)
	want := tar(compress.Instead(gzip, compress.Options{}), members)
	with := compress.Instead(gzip, compress.Options{Memo: memo})
	tar(with, members[1:])
	if got := tar(with, members); !bytes.Equal(got, want) {
		t.Error("the layer is another one after its rehearsal")
	}
	if got := tar(compress.Rehearsing(with), members); !bytes.Equal(got, want) {
		t.Error("the layer is another one while it is remembered")
	}
	if found, missed := memo.Asked(); found < missed {
		t.Errorf("%d pieces were found, %d were not", found, missed)
	}
}

func TestRehearsalDue(t *testing.T) {
	const mib = 1 << 20
	p := Rehearsed{}
	for _, test := range []struct {
		first string
		bytes int64
		want  bool
	}{
		{"a", minRehearsed - 1, false}, {"a", minRehearsed, true}, {"a", minRehearsed + 1, false}, {"b", 8 * mib, true}, {"b", 10 * mib, false}, {"b", 11 * mib, true}, {"b", 3 * mib, false},
	} {
		got := p.due(test.first, test.bytes)
		if got != test.want || p.due(test.first, test.bytes) != got { // to ask changes nothing
			t.Errorf("%s of %d bytes: %v", test.first, test.bytes, got)
		}
		if got {
			p[test.first] = test.bytes
		}
	}
}
