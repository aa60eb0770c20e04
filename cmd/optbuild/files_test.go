package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.tar")
	write := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			if _, werr := io.WriteString(w, text); werr != nil {
				return werr
			}
			return err
		}
	}
	contents := func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			b, _ := os.ReadFile(filepath.Join(dir, e.Name()))
			out = append(out, e.Name()+" "+string(b))
		}
		return strings.Join(out, "\n")
	}
	for _, c := range []struct {
		err  error
		text string
		want string
	}{
		{io.ErrUnexpectedEOF, "half", ""},
		{nil, "first", "x.tar first"},
		{io.ErrUnexpectedEOF, "half", "x.tar first"},
		{nil, "second", "x.tar second"},
	} {
		if err := replaceFile(path, write(c.text, c.err)); !errors.Is(err, c.err) {
			t.Errorf("error %v, want %v", err, c.err)
		}
		if got := contents(); got != c.want {
			t.Errorf("directory has %q, want %q", got, c.want)
		}
	}
}

// TestReplaceFileSpecial: a pipe, and the file that a standard stream goes to, are written to and stay.
func TestReplaceFileSpecial(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	stdout := os.Stdout
	os.Stdout = log
	defer func() { os.Stdout = stdout }()
	if _, err := log.WriteString("before "); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "stdout") // as /dev/stdout
	if err := os.Symlink(log.Name(), link); err != nil {
		t.Fatal(err)
	}
	id := func(w io.Writer) error { _, err := io.WriteString(w, "id"); return err }
	for _, path := range []string{path, link} {
		if err := errors.Join(removeFile(path), replaceFile(path, id)); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 2)
	if _, err := io.ReadFull(pipe, b); err != nil || string(b) != "id" {
		t.Errorf("the pipe gave %q, %v", b, err)
	}
	if b, err := os.ReadFile(link); err != nil || string(b) != "before id" {
		t.Errorf("standard output has %q, %v", b, err)
	}
}

// TestReplaceFileLink: a link stays, and what it names is replaced.
func TestReplaceFileLink(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o600), os.Symlink("file", link)); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(link, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if target, lerr := os.Readlink(link); err != nil || lerr != nil || string(b) != "new" || target != "file" {
		t.Errorf("file has %q, %v; the link names %q, %v", b, err, target, lerr)
	}
}
