package request

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A command that is killed leaves what it had staged. Names of staged things say whose they are, by pid namespace and pid, so
// that the next build with the same destination can remove what belongs to nobody any more: with `-o .` it would otherwise be
// part of the context.

// stagingName is a name for something staged beside or in a destination; it begins with prefix.
func stagingName(prefix string) string {
	return fmt.Sprintf("%s%s-%d-%s", prefix, pidNamespace(), os.Getpid(), rand.Text())
}

// pidNamespace is the number of this process's pid namespace.
func pidNamespace() string {
	link, err := os.Readlink("/proc/self/ns/pid") // pid:[4026531836]
	if err != nil {
		return "0"
	}
	return strings.TrimSuffix(strings.TrimPrefix(link, "pid:["), "]")
}

// removeAbandoned removes from dir what processes that are gone had staged under names that begin with prefix. What belongs
// to another pid namespace stays: whether its process lives can't be told from here.
func removeAbandoned(dir, prefix string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // whoever writes there will say why
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix+pidNamespace()+"-")
		if !ok {
			continue
		}
		pid, _, _ := strings.Cut(rest, "-")
		if n, err := strconv.Atoi(pid); err == nil && n > 0 && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			removeStaged(filepath.Join(dir, e.Name()))
		}
	}
}

// removeStaged removes something staged, also directories that their owner may not write to.
func removeStaged(path string) {
	if os.RemoveAll(path) == nil {
		return
	}
	_ = filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	_ = os.RemoveAll(path)
}
