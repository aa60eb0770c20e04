package profile

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/distribution/reference"

	"github.com/optbuild/optbuild/builder/atomicfile"
)

// Store keeps profiles in a directory, by the name of their image with and without its tag: a build of another tag of the same repository finds the newest profile of any. Commands may use it
// at the same time.
type Store struct {
	dir string
}

// NewStore returns the store in a directory, which is made when something is put there.
func NewStore(dir string) Store { return Store{dir} }

// ErrNone says that there is no profile.
var ErrNone = errors.New("there is no profile")

// maxStored bounds the number of files; the oldest go.
const maxStored = 1000

// Put keeps p for its image, in place of what there was.
func (s Store) Put(p *Profile) error {
	named, err := reference.ParseNormalizedNamed(p.Image)
	if err != nil {
		return fmt.Errorf("keep profile of %q: %w", p.Image, err)
	}
	b, err := Encode(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("keep profile: %w", err)
	}
	for _, key := range keys(named) {
		if err := atomicfile.Write(s.path(key, p.Platform), b, 0o600); err != nil {
			return fmt.Errorf("keep profile of %s: %w", p.Image, err)
		}
	}
	return s.collect()
}

// Find returns the profile that was kept last for a name, or else for its repository. ErrNone says that there is none.
func (s Store) Find(named reference.Named, platform string) (*Profile, error) {
	for _, key := range keys(named) {
		f, err := os.Open(s.path(key, platform))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read profile of %s: %w", key, err)
		}
		p, err := ReadFrom(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("profile of %s: %w", key, err)
		}
		return p, nil
	}
	return nil, ErrNone
}

// keys are what a profile is kept under, the most precise first.
func keys(named reference.Named) []string {
	return slices.Compact([]string{reference.TagNameOnly(named).String(), named.Name()})
}

func (s Store) path(key, platform string) string {
	sum := sha256.Sum256([]byte(key + "\x00" + platform))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:])+".json")
}

// collect removes the oldest files that are too many, and so, in time, what killed commands left.
func (s Store) collect() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) <= maxStored {
		return err
	}
	var infos []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, info := range infos[min(maxStored, len(infos)):] {
		if err := os.Remove(filepath.Join(s.dir, info.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
