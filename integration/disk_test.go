package integration

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/cache"
	"github.com/optbuild/optbuild/integration/tree"
)

// du is what the directory takes on disk.
func du(ts *testscript.TestScript, dir string) (sum int64) {
	ts.Check(cache.Du(dir, nil, func(_ string, n int64) { sum += n }))
	return sum
}

// du-agrees PERCENT: what `optbuild df` says that the state directory takes is what it takes, give or take so much.
func duAgrees(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "du-agrees PERCENT")
	percent, err := strconv.ParseFloat(args[0], 64)
	ts.Check(err)
	ts.Check(ts.Exec("optbuild", "df", "--json"))
	var u cache.Usage
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &u))
	parts := u.Images + u.Snapshots + u.CacheMounts + u.Blobs + u.Databases + u.Other
	is := du(ts, worldOf(ts).state)
	if u.Total != parts || float64(max(is-u.Total, u.Total-is)) > float64(is)*percent/100 {
		ts.Fatalf("df says %d bytes, its parts add up to %d, du says %d", u.Total, parts, is)
	}
}

// du-below SIZE: the cache in the state directory takes at most so much.
func duBelow(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "du-below SIZE")
	most, err := cache.ParseBytes(args[0])
	ts.Check(err)
	if is := du(ts, filepath.Join(worldOf(ts).state, "cache")); is > most {
		ts.Fatalf("the cache takes %s, more than %s", cache.FormatBytes(is), args[0])
	}
}

// damage HOW PATTERN: does to all files in the state directory that match what a failing disk would: truncate, empty, zero
// (in the middle), garbage (in the middle) or remove.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "damage HOW PATTERN")
	files, err := filepath.Glob(filepath.Join(worldOf(ts).state, args[1]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("nothing matches %s", args[1])
	}
	for _, path := range files {
		ts.Check(damageFile(path, args[0]))
	}
}

func damageFile(path, how string) error {
	if how == "remove" {
		return tree.Remove(path)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil { // blobs are read-only
		return err
	}
	size := fi.Size()
	page := int64(os.Getpagesize())
	from := min(2*page, size/2) // bolt's first two pages say where the others are
	junk := make([]byte, size-from)
	switch how {
	case "truncate":
		return os.Truncate(path, size/2)
	case "empty":
		return os.Truncate(path, 0)
	case "garbage":
		r := rand.New(rand.NewPCG(1, 2))
		for i := range junk {
			junk[i] = byte(r.Uint32())
		}
	case "zero":
	default:
		return errors.New("damage: " + how + "?")
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(junk, from)
	return errors.Join(err, f.Close())
}

// small-disk DIR OPTIONS: mounts a tmpfs with the options (such as size=60m) until the script ends.
func smallDisk(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "small-disk DIR OPTIONS")
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, args[1]))
	ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill-disk DIR: writes until nothing is free.
func fillDisk(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "fill-disk DIR")
	f, err := os.Create(filepath.Join(ts.MkAbs(args[0]), "filler"))
	ts.Check(err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	var pe *fs.PathError
	if !errors.As(err, &pe) || !strings.Contains(pe.Error(), unix.ENOSPC.Error()) {
		ts.Fatalf("%v", err)
	}
}
