package ledger

import (
	"context"
	"io/fs"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// print is a file's fingerprint, in the two halves that the package comment speaks of.
type print struct {
	compared uint64 // size and time of modification
	inode    uint64 // device, inode number and time of the inode's change; racy if that was too recent to tell
}

// racy is the inode half of a file that was changed so shortly before it was looked at that a further change may not have
// moved its ctime.
const racy = 0

// tick is longer than the steps in which any kernel moves the time that it stamps on files (10 ms at 100 Hz).
const tick = 20 * time.Millisecond

// mix makes one number of several (FNV-1a, by bytes).
func mix(values ...int64) uint64 {
	h := uint64(14695981039346656037)
	for _, v := range values {
		for shift := 0; shift < 64; shift += 8 {
			h = (h ^ uint64(v)>>shift&0xff) * 1099511628211
		}
	}
	return h
}

// looker takes fingerprints of files below a root. It keeps the directory of the last one open, which makes the kernel's way
// to the next one short. It is not for concurrent use.
type looker struct {
	root string
	dir  string // below root
	fd   int    // of dir; -1 if it is not open
}

func newLooker(root string) *looker { return &looker{root: root, fd: -1} }

func (l *looker) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

// look takes the fingerprint of a regular file, at a time that is not later than now; false if there is none.
func (l *looker) look(path string, now time.Time) (print, bool) {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	if l.fd < 0 || dir != l.dir {
		l.close()
		fd, err := unix.Open(l.root+"/"+dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return print{}, false
		}
		l.dir, l.fd = dir, fd
	}
	var st unix.Stat_t
	if err := unix.Fstatat(l.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return print{}, false
	}
	p := print{compared: mix(st.Size, st.Mtim.Nano()), inode: mix(int64(st.Dev), int64(st.Ino), st.Ctim.Nano())}
	if p.inode == racy {
		p.inode++
	}
	if now.UnixNano()-st.Ctim.Nano() < int64(tick) {
		p.inode = racy
	}
	return p, true
}

// recorder is a directory whose sent files are written down.
type recorder struct {
	fsutil.FS
	ledger *Ledger
	root   int
	dir    string
}

func (r *recorder) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	r.ledger.begin()
	files := newLooker(r.dir)
	defer files.close()
	return r.FS.Walk(ctx, target, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.Type().IsRegular() {
			d = &recorded{d, r, files, path}
		}
		return fn(path, d, err)
	})
}

// recorded is a file that is going to be sent, if its Info is asked for: a filter that leaves it out does not ask.
type recorded struct {
	fs.DirEntry
	recorder *recorder
	files    *looker
	path     string
}

func (d *recorded) Info() (fs.FileInfo, error) {
	// First the inode, then what BuildKit will compare, then (by BuildKit) the content: whatever happens in between shows as
	// an inode that changed.
	p, ok := d.files.look(d.path, d.recorder.ledger.now())
	fi, err := d.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	if st, is := fi.Sys().(*types.Stat); is && ok {
		p.compared = mix(st.Size, st.ModTime)
		d.recorder.ledger.add(key{d.recorder.root, d.path}, p)
	}
	return fi, nil
}

// begin says in the ledger's file that a build is sending, so that a killed one leaves no ledger that is taken for true.
func (l *Ledger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open && l.file != nil {
		l.open = true
		if err := markOpen(l.file); err != nil {
			l.open = false
			_ = l.file.Truncate(0)
		}
	}
}

func (l *Ledger) add(k key, p print) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.sent); n > 0 && l.sent[n-1].key == k { // asked for twice
		l.sent[n-1].print = p
		return
	}
	l.sent = append(l.sent, entry{k, p})
}
