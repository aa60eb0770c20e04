package view

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOverlay compares what an overlay shows with and without views.
func TestOverlay(t *testing.T) {
	needMounts(t)
	top, middle, base := oddLayers(t)
	plain := overlay(t, []layer{{Dir: top}, {Dir: middle}, {Dir: base}}, "xino=on")
	viewed := overlay(t, []layer{{Dir: top, Watched: true}, {Dir: middle}, {Dir: base, Watched: true}}, "xino=on")
	compareTrees(t, picture(t, plain.Merged), picture(t, viewed.Merged))
	for _, v := range viewed.Views {
		record(t, v)
	}
}

// TestOverlayOlderKernel does so without the system calls for extended attributes that came with Linux 6.13.
func TestOverlayOlderKernel(t *testing.T) {
	needMounts(t)
	before := noXattrAt.Swap(true)
	defer noXattrAt.Store(before)
	top, middle, base := oddLayers(t)
	plain := overlay(t, []layer{{Dir: top}, {Dir: middle}, {Dir: base}})
	viewed := overlay(t, []layer{{Dir: top, Watched: true}, {Dir: middle}, {Dir: base, Watched: true}})
	compareTrees(t, picture(t, plain.Merged), picture(t, viewed.Merged))
}

// TestOverlayChanges makes the same changes in an overlay with and in one without views, and compares the upper directories.
func TestOverlayChanges(t *testing.T) {
	needMounts(t)
	top, middle, base := oddLayers(t)
	plain := overlay(t, []layer{{Dir: top}, {Dir: middle}, {Dir: base}}, "xino=on")
	viewed := overlay(t, []layer{{Dir: top, Watched: true}, {Dir: middle}, {Dir: base, Watched: true}}, "xino=on")
	// Not with these directories as the shell's working directory from the start: see Mount.
	const script = `set -e; cd "$1"
		chmod 600 plain; chown 7:7 owned; : > emptied; echo more >> appended; rm -r deep; rm gone; mkdir gone; touch -d @1000000000 gone
		mv renamed renamed2; ln linked linked3; cp -a sub sub2; rm -r sub; mkdir sub; touch -d @1000000000 sub
		setfattr -n user.new -v 1 attributes 2>/dev/null || true
		cp --sparse=always sparse sparse2; touch -d @1000000001 sparse2; rm -r opaque; ln -sfn plain link; mv odd odd2 2>/dev/null || true
		touch -h -d @1000000002 ./* .`
	for _, g := range []*ground{plain, viewed} {
		run(t, "sh", "-c", script, "sh", g.Merged)
	}
	compareTrees(t, picture(t, plain.Merged), picture(t, viewed.Merged))
	compareTrees(t, picture(t, plain.Upper), picture(t, viewed.Upper))
	for _, v := range viewed.Views {
		record(t, v)
	}
}

// TestOverlayExec runs programs that get rights from their files.
func TestOverlayExec(t *testing.T) {
	needMounts(t)
	for _, tool := range []string{"setpriv", "id", "grep"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	dir := scratch(t)
	layerDir := filepath.Join(dir, "layer")
	mkdir(t, layerDir, 0o755)
	for tool, mode := range map[string]string{"id": "4755", "grep": "0755"} {
		p, _ := exec.LookPath(tool)
		run(t, "cp", "-L", p, filepath.Join(layerDir, tool))
		run(t, "chmod", mode, filepath.Join(layerDir, tool))
	}
	// struct vfs_cap_data, revision 2, effective: CAP_NET_RAW permitted.
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(filepath.Join(layerDir, "grep"), "security.capability", capability, 0); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, watched := range []bool{false, true} {
		g := overlay(t, []layer{{Dir: layerDir, Watched: watched}})
		id := run(t, "setpriv", "--reuid=1000", "--clear-groups", filepath.Join(g.Merged, "id"), "-u")
		caps := run(t, "setpriv", "--reuid=1000", "--clear-groups", filepath.Join(g.Merged, "grep"), "CapEff", "/proc/self/status")
		got = append(got, id+caps)
	}
	if want := "0\nCapEff:\t0000000000002000\n"; got[0] != want || got[1] != want {
		t.Errorf("got %q, and in the view %q, want %q", got[0], got[1], want)
	}
}

// oddLayers makes layers with everything that a file system can hold. The top one has whiteouts and an opaque directory.
func oddLayers(t *testing.T) (top, middle, base string) {
	t.Helper()
	dir := scratch(t)
	top, middle, base = filepath.Join(dir, "top"), filepath.Join(dir, "middle"), filepath.Join(dir, "base")
	opaque := "trusted.overlay.opaque"
	if inUserNamespace() {
		opaque = "user.overlay.opaque"
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []string{top, middle, base} {
		in := func(name string) string { return filepath.Join(l, name) }
		name := filepath.Base(l)
		write(t, in("plain"), name, 0o644)
		write(t, in("merged/"+name), name, 0o644)
		write(t, in("opaque/"+name), name, 0o644)
		write(t, in("only-"+name+"/f"), name, 0o644)
	}
	must(unix.Setxattr(filepath.Join(top, "opaque"), opaque, []byte("y"), 0))
	must(unix.Setxattr(filepath.Join(base, "only-base"), opaque, []byte("y"), 0))
	write(t, filepath.Join(base, "hidden"), "x", 0o644)
	write(t, filepath.Join(base, "merged/hidden"), "x", 0o644)
	for _, name := range []string{"hidden", "merged/hidden", "nothing-below"} {
		if err := unix.Mknod(filepath.Join(top, name), unix.S_IFCHR, 0); err != nil {
			t.Fatal(err) // user namespaces may make whiteouts (0/0), and no other devices
		}
	}
	for _, l := range []string{top, base} {
		in := func(name string) string { return filepath.Join(l, filepath.Base(l)[:1]+"-layer", name) }
		if l == base {
			in = func(name string) string { return filepath.Join(l, name) } // those that are changed
		}
		write(t, in("owned"), "x", 0o4711)
		must(os.Chown(in("owned"), 1234, 4321))
		must(os.Chmod(in("owned"), 0o4711|os.ModeSetuid))
		write(t, in("nothing"), "secret", 0)
		write(t, in("emptied"), "x", 0o644)
		write(t, in("appended"), "x", 0o644)
		write(t, in("gone"), "x", 0o644)
		write(t, in("renamed"), "x", 0o644)
		write(t, in("linked"), "x", 0o644)
		must(os.Link(in("linked"), in("linked2")))
		write(t, in("sub/sub/f"), "x", 0o600)
		mkdir(t, in("sub/empty"), 0o1777)
		write(t, in("attributes"), "x", 0o644)
		must(unix.Setxattr(in("attributes"), "user.color", []byte("red\x00\xff"), 0))
		must(unix.Setxattr(in("attributes"), "user.long", []byte(strings.Repeat("long", 500)), 0))
		acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x01\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff" +
			"\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff" // user::rw-, user:1:r--, group::r--, mask::r--, other::---
		must(unix.Setxattr(in("attributes"), "system.posix_acl_access", []byte(acl), 0))
		mkdir(t, in("inheriting"), 0o755)
		must(unix.Setxattr(in("inheriting"), "system.posix_acl_default", []byte(acl), 0))
		must(os.Symlink("plain", in("link")))
		must(os.Symlink("/nowhere/"+strings.Repeat("x/", 2000), in("long-link")))
		must(unix.Mknod(in("fifo"), unix.S_IFIFO|0o600, 0))
		must(unix.Mknod(in("socket"), unix.S_IFSOCK|0o600, 0))
		if !inUserNamespace() {
			must(unix.Mknod(in("device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
			must(unix.Mknod(in("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70000))))
			must(unix.Setxattr(in("attributes"), "trusted.hidden", []byte("x"), 0))
		}
		must(unix.UtimesNanoAt(unix.AT_FDCWD, in("link"), []unix.Timespec{{Sec: 6}, {Sec: 5}}, unix.AT_SYMLINK_NOFOLLOW))
		must(os.Chtimes(in("attributes"), time.Unix(-86400, 7), time.Unix(-86400, 999_999_999)))
		sparse, err := os.Create(in("sparse"))
		must(err)
		_, err = sparse.WriteAt([]byte("middle"), 4<<20)
		must(err)
		must(sparse.Truncate(16<<20 + 1))
		must(sparse.Close())
		big := make([]byte, 3<<20+17)
		for i := range big {
			big[i] = byte(i * i >> 7)
		}
		write(t, in("big"), string(big), 0o644)
		for i, odd := range []string{"new\nline", "\xff\xfe not UTF-8 \x80", strings.Repeat("n", 255), "-dash", " ", "*", `back\slash`, ".", "…"} {
			if odd == "." {
				odd = ".hidden"
			}
			write(t, in("odd/"+odd), fmt.Sprint(i), 0o644)
		}
		deepen(t, in("deep"), 60, strings.Repeat("d", 100))
	}
	return top, middle, base
}

// deepen makes directories in one another, with a file in the innermost: the path may be longer than a path can be.
func deepen(t *testing.T, dir string, levels int, name string) {
	t.Helper()
	mkdir(t, dir, 0o755)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	for range levels {
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, e := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		fd, err = next, e
	}
	defer unix.Close(fd)
	f, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(f)
}

// picture describes everything below a directory by its path: a line for each name.
func picture(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	describe(t, out, fd, ".", ".")
	return out
}

func describe(t *testing.T, out map[string]string, dir int, name, path string) {
	t.Helper()
	fail := func(op string, err error) { t.Helper(); t.Fatalf("%s %q: %v", op, path, err) }
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		fail("stat", err)
	}
	line := fmt.Sprintf("mode %o owner %d:%d device %d", st.Mode, st.Uid, st.Gid, st.Rdev)
	if whiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0; !whiteout {
		line += fmt.Sprintf(" modified %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	self := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(self, list)
	if err != nil {
		fail("list attributes of", err)
	}
	attributes := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(attributes)
	for _, a := range attributes {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(self, a, value)
		if err != nil {
			fail("read attribute of", err)
		}
		if strings.HasSuffix(a, ".overlay.origin") || strings.HasSuffix(a, ".overlay.uuid") {
			continue // of the file that was copied up, and of the mount
		}
		line += fmt.Sprintf(" %s=%q", a, value[:n])
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			fail("open", err)
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		line += fmt.Sprintf(" size %d blocks %d holes", st.Size, st.Blocks)
		for at := int64(0); at < st.Size; {
			hole, err := unix.Seek(fd, at, unix.SEEK_HOLE)
			if err != nil {
				fail("seek hole in", err)
			}
			data, err := unix.Seek(fd, hole, unix.SEEK_DATA)
			if err != nil {
				data = st.Size
			}
			line += fmt.Sprintf(" %d-%d", hole, data)
			at = data
		}
		h := sha256.New()
		buf := make([]byte, 1<<20)
		for at := int64(0); ; {
			n, err := unix.Pread(fd, buf, at)
			if err != nil {
				fail("read", err)
			}
			if n == 0 {
				break
			}
			h.Write(buf[:n])
			at += int64(n)
		}
		line += fmt.Sprintf(" content %x", h.Sum(nil))
	case unix.S_IFLNK:
		target := make([]byte, 8192)
		n, err := unix.Readlinkat(dir, name, target)
		if err != nil {
			fail("read link", err)
		}
		line += fmt.Sprintf(" size %d to %q", st.Size, target[:n])
	case unix.S_IFDIR:
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			fail("open", err)
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		entries, err := f.ReadDir(-1)
		if err != nil {
			fail("list", err)
		}
		for _, e := range entries {
			describe(t, out, fd, e.Name(), path+"/"+e.Name())
			line += fmt.Sprintf(" %q(%v)", e.Name(), e.Type())
		}
		// Compared as a set: the order is not part of it.
		words := strings.Fields(line)
		slices.Sort(words)
		line = strings.Join(words, " ")
	}
	out[path] = line
}

func compareTrees(t *testing.T, want, got map[string]string) {
	t.Helper()
	if len(want) < 5 {
		t.Fatalf("only %d names", len(want))
	}
	paths := maps.Clone(want)
	maps.Copy(paths, got)
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if want[p] != got[p] {
			w, g := strings.Fields(want[p]), strings.Fields(got[p])
			missing := slices.DeleteFunc(slices.Clone(w), func(s string) bool { return slices.Contains(g, s) })
			extra := slices.DeleteFunc(slices.Clone(g), func(s string) bool { return slices.Contains(w, s) })
			t.Errorf("%.200q: only without views: %q; only with views: %q", p, missing, extra)
		}
	}
}
