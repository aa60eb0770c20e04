package request

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// textLimit bounds a Dockerfile and an ignore file: BuildKit's frontend gets them in one message, which can't be larger.
const textLimit = 16 << 20

var errPipe = errors.New("is a pipe")

// ReadText reads a Dockerfile or an ignore file that lies in a context. The context may be somebody else's: a pipe in the
// file's place would be waited for in vain, and a link to an endless device fill the memory.
func ReadText(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe without a writer opens at once
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || fi.Mode()&fs.ModeNamedPipe != 0 {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errPipe}
	}
	return readAll(path, f)
}

// readNamed reads a file that the user named. It may be a pipe.
func readNamed(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(path, f)
}

func readAll(path string, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, textLimit+1))
	if err == nil && len(b) > textLimit {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("is larger than %d MB", textLimit>>20)}
	}
	return b, err
}
