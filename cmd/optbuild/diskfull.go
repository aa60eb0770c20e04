package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/cache"
)

// noSpace are the texts of errors for a full disk. They come out of the engine, or out of a step's log, as text.
var noSpace = []string{syscall.ENOSPC.Error(), syscall.EDQUOT.Error()}

// full says that a step or the engine ran out of disk space.
func full(text string, log *shownLog) bool {
	for _, message := range noSpace {
		if strings.Contains(text, message) || log != nil && strings.Contains(strings.ToLower(string(log.tail)), message) {
			return true
		}
	}
	return false
}

// writtenPath finds the file that could not be written, after the name of the operation as in an fs.PathError.
var writtenPath = regexp.MustCompile(`\b[a-z_]+ ([^\s:=][^\n:]*): (?:` + strings.Join(noSpace, "|") + `)`)

// explainFull names the directory whose disk is full, and the remedy. text is the engine's error.
func explainFull(text, state string) (message, hint string) {
	dir := state
	if m := writtenPath.FindAllStringSubmatch(text, -1); m != nil {
		path := m[len(m)-1][1] // a relative one is of this process, not of the engine
		if path == os.Stdout.Name() {
			return "no space left where standard output goes", "free some there, or choose another destination"
		}
		if abs, err := filepath.Abs(path); err == nil && strings.Contains(path, "/") && !strings.HasPrefix(abs, state+"/") {
			dir = filepath.Dir(path)
		}
	}
	what := "space"
	if noInodes(dir) {
		what = "inodes (too many files)"
	}
	if dir != state {
		return fmt.Sprintf("no %s left on the disk of %s", what, dir), "free some there, or choose another destination"
	}
	return fmt.Sprintf("no %s left on the disk of the state directory %s", what, state),
		"make room with `optbuild prune` (`optbuild df` shows what takes it), or choose another disk: optbuild --root DIR"
}

// outputFull names the directory of a local output that can't take any more, as an error would. The engine is not told why
// the transfer to a directory ended.
func (b *build) outputFull() string {
	for _, e := range b.solve.Exports {
		if e.OutputDir == "" {
			continue
		}
		if d, err := cache.DiskOf(e.OutputDir); err == nil && d.Free < 1<<20 || noInodes(e.OutputDir) {
			return fmt.Sprintf(": write %s/.: %s", filepath.Dir(e.OutputDir), noSpace[0])
		}
	}
	return ""
}

// noInodes reports whether the disk of dir is short of inodes rather than of space.
func noInodes(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Files == 0 {
		return false
	}
	return st.Ffree < st.Files/50 && st.Bavail > st.Blocks/50
}
