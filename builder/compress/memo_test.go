package compress

import (
	"bytes"
	"os"
	"slices"
	"testing"
)

// pieces counts what a memo remembers.
func (m *Memo) pieces() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil {
		return 0
	}
	return len(m.kept.pieces)
}

// changed is a layer with a file more in the middle.
func changed(t *testing.T, in []byte) []byte {
	header := bytes.LastIndex(in[:len(in)/2], []byte("ustar")) - 257
	if header%tarBlock != 0 {
		t.Fatalf("a header at %d", header)
	}
	file := in[header : header+tarBlock]
	return slices.Concat(in[:header], file, bytes.Repeat([]byte{1}, tarBlock), in[header:])
}

// TestMemo: blobs are the same with what was compressed before, and little is compressed again.
func TestMemo(t *testing.T) {
	in := layer(t, 3, 500)
	in2 := changed(t, in)
	want, want2 := compressed(t, Gzip, nil, Options{}, in, 32<<10), compressed(t, Gzip, nil, Options{}, in2, 32<<10)
	dir := t.TempDir()
	m := NewMemo(dir)
	if got := compressed(t, Gzip, nil, Options{Memo: m}, in, 32<<10); !bytes.Equal(got, want) || m.pieces() != 0 {
		t.Errorf("without a rehearsal: other bytes, or %d pieces are remembered", m.pieces())
	}
	if got := compressed(t, Gzip, nil, Options{Memo: m, Rehearse: true}, in, 32<<10); !bytes.Equal(got, want) {
		t.Error("a rehearsal has made other bytes")
	}
	all := m.pieces()
	if all < 8 {
		t.Fatalf("%d pieces of %d bytes", all, len(in))
	}
	for k, s := range m.kept.pieces { // if these are taken, the blob will be another one
		if s.length > 100 {
			if _, err := m.kept.file.WriteAt([]byte{0xff}, s.at+50); err != nil {
				t.Fatal(err)
			}
			if got := compressed(t, Gzip, nil, Options{Memo: m}, in, 32<<10); bytes.Equal(got, want) {
				t.Error("what is remembered was not used")
			}
			delete(m.kept.pieces, k)
			break
		}
	}
	if got := compressed(t, Gzip, nil, Options{Memo: m, Rehearse: true}, in, 32<<10); !bytes.Equal(got, want) || m.pieces() != all {
		t.Errorf("again: other bytes, or %d pieces, want %d", m.pieces(), all)
	}
	if got := compressed(t, Gzip, nil, Options{Memo: m, Rehearse: true}, in2, 1000); !bytes.Equal(got, want2) {
		t.Error("with a file more: other bytes")
	}
	if more := m.pieces() - all; more < 1 || more > 3 {
		t.Errorf("with a file more: %d new pieces besides %d", more, all)
	}
	seven := 7
	if got := compressed(t, Gzip, &seven, Options{Memo: m}, in, 32<<10); !bytes.Equal(got, compressed(t, Gzip, &seven, Options{}, in, 32<<10)) {
		t.Error("another level has got these pieces")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

// TestMemoBounded: when there is too much, it begins anew.
func TestMemoBounded(t *testing.T) {
	m := NewMemo(t.TempDir())
	m.most = 1 << 20
	for seed := range uint64(4) {
		in := layer(t, seed, 400)
		if got := compressed(t, Gzip, nil, Options{Memo: m, Rehearse: true}, in, 32<<10); !bytes.Equal(got, compressed(t, Gzip, nil, Options{}, in, 32<<10)) {
			t.Error("other bytes")
		}
		if m.kept.size > m.most {
			t.Errorf("%d bytes are remembered", m.kept.size)
		}
	}
	if m.pieces() == 0 {
		t.Error("nothing is remembered")
	}
}

// TestMemoWithoutFile: where nothing can be remembered, layers are made all the same.
func TestMemoWithoutFile(t *testing.T) {
	in := layer(t, 1, 100)
	if got := compressed(t, Gzip, nil, Options{Memo: NewMemo("/nowhere"), Rehearse: true}, in, 32<<10); !bytes.Equal(got, compressed(t, Gzip, nil, Options{}, in, 32<<10)) {
		t.Error("other bytes")
	}
}

// TestPieces: no piece is smaller or larger than it may be, but for the last, also where nothing says that it ends.
func TestPieces(t *testing.T) {
	for name, in := range map[string][]byte{"zeros": make([]byte, 9<<20+100), "files": layer(t, 5, 1000)} {
		m := NewMemo(t.TempDir())
		compressed(t, Gzip, nil, Options{Memo: m, Rehearse: true, Cores: 1}, in, 32<<10)
		if n := m.pieces(); name == "files" && (n < len(in)/maxPiece+1 || n > len(in)/minPiece+1) {
			t.Errorf("%s: %d pieces of %d bytes", name, n, len(in))
		}
		if got := plainText(t, Gzip, compressed(t, Gzip, nil, Options{Memo: m}, in, 32<<10)); !bytes.Equal(got, in) {
			t.Errorf("%s: something else comes back", name)
		}
	}
}
