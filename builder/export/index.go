package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/atomicfile"
)

// outcome is what became of a unit.
type outcome struct {
	// Desc is the layer; nil if none was made, because the unit is one layer that stays as it is.
	Desc     *ocispecs.Descriptor `json:",omitempty"`
	Stripped []Stripped           `json:",omitempty"`
	// Units is another matter, kept in the same way: how many layers each part has into which a run of RUNs was divided, the lowest first.
	Units []int `json:",omitempty"`
}

// index remembers outcomes in files of a directory, each named by the digest of a key. It holds no blob: one that is gone makes the outcome worth nothing. A file begins
// with the digest of the rest: what is damaged is not there.
type index string

const (
	indexVersion = "optbuild layers 4"
	maxOutcomes  = 5000 // some hundred bytes each
)

func (x index) get(k *key) (o outcome, ok bool) {
	b, err := os.ReadFile(x.file(k))
	if err != nil {
		return o, false
	}
	sum, text, found := bytes.Cut(b, []byte("\n"))
	if !found || string(sum) != digestOf(text) || json.Unmarshal(text, &o) != nil {
		return outcome{}, false
	}
	now := time.Now() // what is used stays
	_ = os.Chtimes(x.file(k), now, now)
	return o, true
}

func (x index) put(k *key, o outcome) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(x), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(x.file(k), append([]byte(digestOf(text)+"\n"), text...), 0o600)
}

func (x index) drop(k *key) { _ = os.Remove(x.file(k)) }

func (x index) file(k *key) string { return filepath.Join(string(x), k.sum()) }

// collect removes the outcomes that were not used for longest, above a number, and what killed processes left.
func (x index) collect(keep int) error {
	entries, err := os.ReadDir(string(x))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	var infos []fs.FileInfo
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			if strings.Contains(fi.Name(), ".") {
				_ = os.Remove(filepath.Join(string(x), fi.Name()))
				continue
			}
			infos = append(infos, fi)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, fi := range infos[min(len(infos), keep):] {
		_ = os.Remove(filepath.Join(string(x), fi.Name()))
	}
	return nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// key collects labelled lines, each of which an outcome depends on.
type key struct{ text string }

func newKey() *key {
	k := &key{}
	k.add("version", indexVersion)
	return k
}

func (k *key) add(label string, values ...string) {
	for _, v := range values {
		k.text += fmt.Sprintf("%s %q\n", label, v)
	}
}

func (k *key) sum() string { return digestOf([]byte(k.text)) }
