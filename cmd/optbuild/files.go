package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// replaceFile writes a file as a whole or not at all: to a new file beside it, which then takes its name. What stands for a
// stream (see streamOf) is written to as it is.
func replaceFile(path string, write func(io.Writer) error) error {
	if open := streamOf(path); open != nil {
		stream, err := open()
		if err != nil {
			return err
		}
		return errors.Join(write(stream), stream.Close())
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8])
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, errors.Unwrap(err)) // not the temporary name
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// removeFile removes what replaceFile has written, if that was a file.
func removeFile(path string) error {
	if streamOf(path) != nil {
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// streamOf returns how to open a path that stands for a stream and not for a file: a pipe, a device, or the file that
// standard output or error goes to, as /dev/stdout does. For others it returns nil.
func streamOf(path string) (open func() (io.WriteCloser, error)) {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	for _, std := range []*os.File{os.Stdout, os.Stderr} {
		if to, err := std.Stat(); err == nil && os.SameFile(info, to) {
			return func() (io.WriteCloser, error) { return keptOpen{std}, nil }
		}
	}
	if info.Mode().IsRegular() {
		return nil
	}
	return func() (io.WriteCloser, error) { return os.OpenFile(path, os.O_WRONLY, 0) }
}

// keptOpen is a stream that others write to as well.
type keptOpen struct{ io.Writer }

func (keptOpen) Close() error { return nil }
