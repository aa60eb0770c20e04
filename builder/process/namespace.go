package process

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var errMaskedProc = errors.New("a fresh /proc can't be mounted")

// enterNamespaces prepares the mount namespace that we were cloned into: nothing that we mount is seen outside, /proc shows
// our own pid namespace, and runc's state directory is ours alone.
func (d Dir) enterNamespaces(s Shape) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if !s.NoPIDNamespace {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			if errors.Is(err, unix.EPERM) {
				return errMaskedProc
			}
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	if !s.Rootless() {
		// As the host's root runc can't be told where to keep its state: BuildKit's executor has no option for it.
		const runcRoot = "/run/runc"
		if err := os.MkdirAll(runcRoot, 0o700); err != nil {
			return fmt.Errorf("make %s: %w", runcRoot, err)
		}
		if err := os.MkdirAll(d.runcState(), 0o700); err != nil {
			return err
		}
		if err := unix.Mount(d.runcState(), runcRoot, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", runcRoot, err)
		}
	}
	if s.Kind == SingleID {
		if err := ignoreOwnership(); err != nil {
			return fmt.Errorf("install the filter for single-id mode: %w", err)
		}
	}
	return nil
}

func (d Dir) runcState() string { return filepath.Join(d.file(runName), "runc") }

// CgroupParent is the cgroup below which the steps of this state directory's engine run, so that what a killed engine left
// can be told from everybody else's.
func (d Dir) CgroupParent() string {
	sum := sha256.Sum256([]byte(d.path))
	return "optbuild-" + hex.EncodeToString(sum[:6])
}

// sweep removes what a killed engine left: temporary files, runc's state, bundles, empty cgroups. Its processes and mounts
// went with its namespaces. We hold the lock. Errors do not matter: what could not be removed is tried again next time.
func (d Dir) sweep(s Shape) {
	removeChildren(d.file(tmpName))
	removeChildren(d.runcState())
	bundles, _ := filepath.Glob(filepath.Join(d.Cache(), "runc-*", "executor", "*", "config.json"))
	for _, b := range bundles {
		_ = os.RemoveAll(filepath.Dir(b))
	}
	if s.Rootless() {
		return
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		parents, _ := filepath.Glob(pattern + d.CgroupParent())
		for _, p := range parents {
			removeCgroups(p)
		}
	}
}

func removeChildren(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		_ = os.RemoveAll(filepath.Join(dir, e.Name()))
	}
}

// removeCgroups removes the cgroups below and at dir that have no processes: rmdir refuses the others.
func removeCgroups(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeCgroups(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

// marker records which engine uses, or used last, the state directory. Databases and snapshots are written without fsync:
// after a crash of the machine only what the kernel had written back by then can be trusted.
type marker struct {
	PID  int    `json:"pid"`
	Boot string `json:"boot"` // the kernel's boot id
	// Used is when the engine was last known to write.
	Used time.Time `json:"used"`
	// Running is true from start to end.
	Running bool `json:"running"`
}

func (d Dir) readMarker() (m marker, err error) {
	b, err := os.ReadFile(d.file(markerName))
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(b, &m)
}

func (d Dir) writeMarker(m marker) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return WriteFile(d.file(markerName), append(b, '\n'), 0o600)
}

// checkMarker throws the cache away when the machine went down while, or so shortly after, an engine wrote that the writes
// may not have reached the disk. It leaves a marker of our own.
func (d Dir) checkMarker(pid int) (fresh bool, notices []string, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = []byte("unknown")
	}
	now := marker{PID: pid, Boot: strings.TrimSpace(string(boot)), Used: time.Now(), Running: true}
	old, err := d.readMarker()
	switch {
	case errors.Is(err, os.ErrNotExist):
		fresh = true
	case err == nil && old.Boot == now.Boot:
	case err == nil && !old.Running && bootTime().Sub(old.Used) > writeBackTime():
	default:
		if err := d.Reset(); err != nil {
			return false, nil, err
		}
		fresh = true
		notices = append(notices, "the machine went down before the cache of the last build was on disk: starting with an empty cache")
	}
	return fresh, notices, d.writeMarker(now)
}

func (d Dir) markEnd() {
	if m, err := d.readMarker(); err == nil {
		m.Running, m.Used = false, time.Now()
		_ = d.writeMarker(m)
	}
}

// Reset throws the cache and the local images away. The caller holds the lock.
func (d Dir) Reset() error {
	old := d.file(fmt.Sprintf("%s/%s-%d", tmpName, cacheName, time.Now().UnixNano()))
	if err := os.Rename(d.Cache(), old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reset the cache: %w", err)
	}
	_ = os.RemoveAll(old) // what is left goes with the next sweep
	return os.MkdirAll(d.Cache(), 0o700)
}

// writeBackTime is the age at which dirty pages are on disk: what the kernel waits before it writes a page back, the period
// at which it looks, and a margin (documented in the kernel's Documentation/admin-guide/sysctl/vm.rst).
func writeBackTime() time.Duration {
	expire, period := readInt("/proc/sys/vm/dirty_expire_centisecs"), readInt("/proc/sys/vm/dirty_writeback_centisecs")
	if expire <= 0 {
		expire = 3000
	}
	if period <= 0 {
		period = 500
	}
	return time.Duration(expire+2*period)*10*time.Millisecond + 30*time.Second
}

func bootTime() time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}
