package request

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestUnpack(t *testing.T) {
	when := time.Unix(1700000000, 0)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o750},
		{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4711, Size: 2, Uid: 1234, Gid: 1234},
		{Name: "d/.wh.f", Typeflag: tar.TypeReg, Mode: 0o600, Size: 2},
		{Name: "d/same", Typeflag: tar.TypeLink, Linkname: "d/f", Mode: 0o4711},
		{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		{Name: "out/passwd.optbuild", Typeflag: tar.TypeReg, Mode: 0o600, Size: 2},
		{Name: "../escaped", Typeflag: tar.TypeReg, Mode: 0o600, Size: 2},
	} {
		h.ModTime = when
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, "x\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "staged")
	out, err := unpackTo(dir)(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, &b)
	if cerr := out.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}

	f, err := os.Stat(filepath.Join(dir, "d/f"))
	if err != nil {
		t.Fatal(err)
	}
	if want := 0o711 | os.ModeSetuid; f.Mode() != want || !f.ModTime().Equal(when) {
		t.Errorf("d/f has mode %v and time %v, want %v and %v", f.Mode(), f.ModTime(), want, when)
	}
	d, err := os.Stat(filepath.Join(dir, "d"))
	if err != nil || d.Mode().Perm() != 0o750 || !d.ModTime().Equal(when) {
		t.Errorf("d: %v, error %v", d, err)
	}
	if same, err := os.Stat(filepath.Join(dir, "d/same")); err != nil || !os.SameFile(f, same) {
		t.Errorf("d/same is not a link to d/f: %v", err)
	}
	for _, name := range []string{"d/.wh.f", "escaped"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"/etc/passwd.optbuild", filepath.Join(parent, "escaped")} {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s was made outside of the output", name)
		}
	}
}

func TestUnpackBroken(t *testing.T) {
	out, err := unpackTo(filepath.Join(t.TempDir(), "staged"))(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(out, "this is no archive, but long enough for the reader to try: "+string(make([]byte, 1024)))
	if err := out.Close(); err == nil {
		t.Error("no error for what is no archive")
	}
}

func TestUnpackOrdinary(t *testing.T) {
	dir := t.TempDir()
	o := ordinary{dir: dir}
	h := tar.Header{Name: "closed/", Typeflag: tar.TypeDir, Mode: 0o555, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.trusted.overlay": "x", "SCHILY.xattr.user.a": "x",
	}}
	if ok, err := o.prepare(&h); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if h.Mode != 0o755 {
		t.Errorf("mode while it is filled: %o, want 755", h.Mode)
	}
	if len(h.PAXRecords) != 1 || h.PAXRecords["SCHILY.xattr.user.a"] != "x" {
		t.Errorf("attributes %v, want user.a only", h.PAXRecords)
	}
	if err := os.Mkdir(filepath.Join(dir, "closed"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := o.closeDirectories(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "closed")); err != nil || fi.Mode().Perm() != 0o555 {
		t.Errorf("got %v, %v, want mode 555", fi.Mode(), err)
	}
}
