package mounts

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/optbuild/optbuild/builder/atomicfile"
	"github.com/optbuild/optbuild/cache/mounts"
)

// What is known of a mount is a file: its path in the first line, then its state. That there is one says that a step has used the mount, so that it is not new any more,
// even if it is empty. Paths are of snapshots, whose numbers are used once.

const stateSuffix = ".state"

func (k *Keeper) statePath(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(k.o.Dir, hex.EncodeToString(sum[:16])+stateSuffix)
}

func (k *Keeper) knows(path string) bool {
	_, err := os.Lstat(k.statePath(path))
	return err == nil
}

func (k *Keeper) remember(path string, s *mounts.State) error {
	var b bytes.Buffer
	fmt.Fprintln(&b, path)
	if err := s.Write(&b); err != nil {
		return err
	}
	return atomicfile.Write(k.statePath(path), b.Bytes(), 0o600)
}

// recall returns what is known of a mount: nothing if it can't be read.
func (k *Keeper) recall(path string, files bool) *mounts.State {
	f, err := os.Open(k.statePath(path))
	if err != nil {
		return &mounts.State{}
	}
	defer f.Close()
	r := bufio.NewReader(f)
	if line, err := r.ReadString('\n'); err != nil || line != path+"\n" {
		return &mounts.State{}
	}
	s, err := mounts.ReadState(r, files)
	if err != nil {
		return &mounts.State{}
	}
	return s
}

// forget removes what is known of mounts that are gone.
func (k *Keeper) forget() error {
	list, err := os.ReadDir(k.o.Dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		name := filepath.Join(k.o.Dir, e.Name())
		if strings.HasPrefix(e.Name(), atomicfile.Temporary) {
			err = errors.Join(err, os.Remove(name))
			continue
		}
		if !strings.HasSuffix(name, stateSuffix) {
			continue
		}
		f, openErr := os.Open(name)
		if openErr != nil {
			return openErr
		}
		path, _ := bufio.NewReader(f).ReadString('\n')
		f.Close()
		// The directory may not be there yet: overlayfs makes it when something is written. That of the snapshot is.
		if _, statErr := os.Lstat(snapshotOf(strings.TrimSuffix(path, "\n"))); errors.Is(statErr, fs.ErrNotExist) {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}

// snapshotOf returns the directory of the snapshot that a path is in, which ends in snapshots/N.
func snapshotOf(path string) string {
	for p := path; p != "/" && p != "."; p = filepath.Dir(p) {
		if filepath.Base(filepath.Dir(p)) == "snapshots" {
			return p
		}
	}
	return path
}
