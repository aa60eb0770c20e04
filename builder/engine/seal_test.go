package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

var fixedTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// newDatabase makes a bolt file with buckets in buckets, pages that are free, and values that take several pages.
func newDatabase(t *testing.T, path string, keys int) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, boltOptions())
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("main"))
		for i := 0; err == nil && i < keys; i++ {
			var in *bolt.Bucket
			if in, err = b.CreateBucket(fmt.Appendf(nil, "record%d", i)); err == nil {
				err = in.Put([]byte("value"), make([]byte, 50*(i%200)))
			}
		}
		return err
	})
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error { // leaves free pages
			for i := range keys * 3 / 4 {
				if err := tx.Bucket([]byte("main")).DeleteBucket(fmt.Appendf(nil, "record%d", i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestIntactDatabase(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	if d := checkDatabase(path, false, stamp{}); d != "" {
		t.Errorf("no file: %s", d)
	}
	newDatabase(t, path, 200)
	if d := checkDatabase(path, false, stamp{}); d != "" {
		t.Errorf("without a seal: %s", d)
	}
	known, err := stampOf(path, stamp{})
	if err != nil {
		t.Fatal(err)
	}
	if d := checkDatabase(path, true, known); d != "" {
		t.Errorf("sealed: %s", d)
	}
	if err := os.Chtimes(path, fixedTime, fixedTime); err != nil {
		t.Fatal(err)
	}
	if d := checkDatabase(path, true, known); d != "" {
		t.Errorf("sealed, copied elsewhere: %s", d)
	}
}

// Whatever page is overwritten: a sealed file is noticed always; without a seal nothing panics or faults, and garbage in what
// holds the file together is noticed.
func TestDamagedDatabase(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.db")
	newDatabase(t, good, 40)
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	known, err := stampOf(good, stamp{})
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	path := filepath.Join(dir, "bad.db")
	check := func(name string, bad []byte) (noticed bool) {
		t.Helper()
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, fixedTime, fixedTime); err != nil { // the clock's ticks are coarse
			t.Fatal(err)
		}
		if d := checkDatabase(path, true, known); d != "was changed by something else than optbuild" {
			t.Errorf("%s: sealed: %q", name, d)
		}
		noticed = checkDatabase(path, false, stamp{}) != ""
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return noticed
	}
	noticed := 0
	for n := 0; n < len(content)/page; n++ {
		for i, fill := range []byte{0x00, 0x5a} {
			bad := append([]byte(nil), content...)
			for j := n * page; j < (n+1)*page; j++ {
				bad[j] = fill ^ byte(i*j)
			}
			if bytes.Equal(bad, content) {
				continue
			}
			if check(fmt.Sprintf("page %d", n), bad) {
				noticed++
			}
		}
	}
	if noticed == 0 {
		t.Error("no damage was noticed without a seal")
	}
	for _, size := range []int{1, page, 3 * page, len(content) / 2} {
		if !check(fmt.Sprintf("%d bytes left", size), content[:size]) {
			t.Errorf("%d bytes left of %d: not noticed without a seal", size, len(content))
		}
	}
}

func TestCompact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	newDatabase(t, path, 200)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := compact(path, before.Size()+1); err != nil {
		t.Fatal(err)
	}
	if same, err := os.Stat(path); err != nil || same.Size() != before.Size() {
		t.Errorf("a small file was written anew")
	}
	if err := compact(path, before.Size()); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil || after.Size() > before.Size()/2 {
		t.Errorf("%d bytes of %d left", after.Size(), before.Size())
	}
	if d := checkDatabase(path, false, stamp{}); d != "" {
		t.Error(d)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		if n := tx.Bucket([]byte("main")).Inspect().Children; len(n) != 50 {
			t.Errorf("%d records, want 50", len(n))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
