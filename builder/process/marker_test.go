package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testDir(t *testing.T) Dir {
	d, err := OpenDir(filepath.Join(t.TempDir(), "state [*]")) // a name, not a pattern
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTrusts(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	booted := now.Add(-time.Hour)
	before := func(d time.Duration) time.Time { return booted.Add(-d) }
	tests := []struct {
		name string
		boot string
		m    marker
		want bool
	}{
		{"ended in this boot", "a", marker{Boot: "a", Used: now}, true},
		{"killed in this boot", "a", marker{Boot: "a", Used: now, Running: true}, true},
		{"ended long before the reboot", "b", marker{Boot: "a", Used: before(time.Hour)}, true},
		{"ended just before the reboot", "b", marker{Boot: "a", Used: before(10 * time.Second)}, false},
		{"ended just before, but synced", "b", marker{Boot: "a", Used: before(10 * time.Second), Synced: true}, true},
		{"was running when the machine went down", "b", marker{Boot: "a", Used: before(time.Hour), Running: true}, false},
		{"was running, after an end with sync", "b", marker{Boot: "a", Used: before(time.Hour), Running: true, Synced: true}, false},
		{"comes from another machine", "b", marker{Boot: "a", Used: now.Add(-time.Minute)}, false},
		{"comes from another machine, synced", "b", marker{Boot: "a", Used: now.Add(-time.Minute), Synced: true}, true},
		{"the kernel has no boot id", "", marker{Boot: "", Used: now}, false},
		{"the kernel has no boot id, long ago", "", marker{Boot: "", Used: before(time.Hour)}, true},
	}
	for _, tt := range tests {
		c := clock{boot: tt.boot, now: now, booted: booted, writeBack: time.Minute}
		if got := c.trusts(tt.m); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCheckMarker(t *testing.T) {
	boot := func(id string) clock {
		return clock{boot: id, now: time.Now(), booted: time.Now().Add(-time.Hour), writeBack: time.Minute}
	}
	d := testDir(t)
	blob := filepath.Join(d.Cache(), "blob")
	single := filepath.Join(d.file(singleName), "blob")
	write := func() {
		for _, path := range []string{blob, single} {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	steps := []struct {
		name string
		do   func()
		boot string
		kept bool
	}{
		{"first", func() {}, "a", true},
		{"after a kill", func() {}, "a", true},
		{"after a kill and a crash of the machine", func() {}, "b", false},
		{"after an end", func() { d.markEnd(false) }, "b", true},
		{"after an end and a sudden reboot", func() { d.markEnd(false) }, "c", false},
		{"after a synced end, elsewhere", func() { d.markEnd(true) }, "d", true},
		{"after a crash that left the marker empty", func() {
			if err := os.WriteFile(d.file(markerName), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "d", false},
	}
	for _, s := range steps {
		write()
		s.do()
		notices, err := d.checkMarker(boot(s.boot))
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		_, errBlob := os.Stat(blob)
		_, errSingle := os.Stat(single)
		if (errBlob == nil) != s.kept || (errSingle == nil) != s.kept || (len(notices) == 0) != s.kept {
			t.Errorf("%s: blobs %v %v, notices %q", s.name, errBlob, errSingle, notices)
		}
		if m, err := d.readMarker(); err != nil || !m.Running || m.Synced || m.Boot != s.boot {
			t.Errorf("%s: marker %+v %v", s.name, m, err)
		}
		if _, err := os.Stat(d.Cache()); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	if entries, _ := os.ReadDir(d.file(trashName)); len(entries) != 6 {
		t.Errorf("%d things in the trash, want 6", len(entries))
	}
	d.emptyTrash()
	if entries, _ := os.ReadDir(d.file(trashName)); len(entries) != 0 {
		t.Errorf("the trash still holds %v", entries)
	}
}

func TestSweep(t *testing.T) {
	d := testDir(t)
	bundle := filepath.Join(d.Cache(), "runc-overlayfs", "executor", "abc")
	for _, f := range []string{
		d.file(tmpName) + "/left", d.runcState() + "/abc/state.json", bundle + "/config.json",
		filepath.Dir(bundle) + "/hosts", d.Cache() + "/runc-overlayfs/content/blob",
	} {
		if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"containerd-mount1", "containerd-mount2/layer", "other"} {
		if err := os.MkdirAll(filepath.Join(d.file(runName), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.sweep(Shape{Kind: SubIDs}, false)
	d.emptyTrash()
	if entries, _ := os.ReadDir(d.file(runName)); fmt.Sprint(entries) != "[d containerd-mount2/ d other/ d runc/]" {
		t.Errorf("left %v", entries)
	}
	var left []string
	err := filepath.WalkDir(d.Path(), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			left = append(left, strings.TrimPrefix(path, d.Path()))
		}
		return err
	})
	want := "/cache/runc-overlayfs/content/blob /cache/runc-overlayfs/executor/hosts /version.json"
	if got := strings.Join(left, " "); err != nil || got != want {
		t.Errorf("left %s %v, want %s", got, err, want)
	}
}
