package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/atomicfile"
)

// marker records the last use of the state directory. Databases and snapshots are written without fsync: after a crash of
// the machine only what the kernel had written back by then can be trusted.
type marker struct {
	Boot string `json:"boot"` // the kernel's boot id
	// Used is when the engine was last known to write.
	Used time.Time `json:"used"`
	// Running is true from start to end.
	Running bool `json:"running"`
	// Synced is true when everything was written to disk at the end.
	Synced bool `json:"synced,omitempty"`
}

// clock is what deciding about the marker needs to know of the machine.
type clock struct {
	boot      string        // this boot's id, "" if unknown
	now       time.Time     // the current time
	booted    time.Time     // when the machine was booted
	writeBack time.Duration // the age at which the kernel has written everything to disk
}

func machineClock() clock {
	c := clock{now: time.Now(), writeBack: writeBackTime()}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		c.boot = strings.TrimSpace(string(b))
	}
	c.booted = c.now
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err == nil {
		c.booted = c.now.Add(-time.Duration(ts.Nano()))
	}
	return c
}

// trusts reports whether what the marker's engine wrote can be relied on.
func (c clock) trusts(m marker) bool {
	switch {
	case m.Boot == c.boot && c.boot != "":
		return true // the page cache outlives processes, however they end
	case m.Running:
		return false
	case m.Synced:
		return true
	}
	return c.booted.Sub(m.Used) > c.writeBack
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
	return atomicfile.Write(d.file(markerName), append(b, '\n'), 0o600)
}

// syncDelay spares the shortest builds, which write next to nothing, a write to disk that their end would have to wait for.
const syncDelay = time.Second

// syncMarker puts the marker on disk: else a crash soon after a start could leave the marker of the engine before, and with
// it trust in what we have overwritten since. It takes as long as the disk does, so it runs beside the work; before it is
// through, writes of the cache reach the disk first only when the kernel runs out of memory just then.
func (d Dir) syncMarker() {
	for _, path := range []string{d.file(markerName), d.path} {
		if f, err := os.Open(path); err == nil {
			_ = f.Sync()
			f.Close()
		}
	}
}

// checkMarker throws the cache away when the machine went down while, or so shortly after, an engine wrote that the writes
// may not have reached the disk. It leaves a marker of our own.
func (d Dir) checkMarker(c clock) (notices []string, err error) {
	old, err := d.readMarker()
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err == nil && c.trusts(old):
	default:
		if err := d.Reset(); err != nil {
			return nil, err
		}
		notices = append(notices, "the machine went down before the cache of the last build was known to be on disk: starting with an empty cache (a state directory that moves between machines needs --sync, or OPTBUILD_SYNC=1)")
	}
	return notices, d.writeMarker(marker{Boot: c.boot, Used: c.now, Running: true})
}

// markEnd records that the engine ended in order. With sync everything is written to disk first, so that the cache is good
// on any machine that the directory may be attached to next.
func (d Dir) markEnd(sync bool) {
	m, err := d.readMarker()
	if err != nil {
		return
	}
	m.Running, m.Used = false, time.Now()
	if sync {
		if f, err := os.Open(d.path); err == nil {
			m.Synced = unix.Syncfs(int(f.Fd())) == nil
			f.Close()
		}
	}
	_ = d.writeMarker(m)
}

// Reset throws the cache and the local images away. The caller holds the lock.
func (d Dir) Reset() error {
	for _, name := range []string{cacheName, singleName} {
		if err := d.discard(name); err != nil {
			return fmt.Errorf("reset the cache: %w", err)
		}
	}
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
