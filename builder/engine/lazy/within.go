package lazy

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// within is an error if a layer has anything that is not at one of the places, or on the way there: a link has led elsewhere, of which the skeleton knows nothing. It is one, too, if the layer
// has a file that was taken from the skeleton.
func within(dir string, places []string) error {
	return filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		at := "/" + filepath.ToSlash(rel)
		if !slices.ContainsFunc(places, func(p string) bool {
			return at == p || p == "/" || strings.HasPrefix(at, p+"/") || strings.HasPrefix(p, at+"/")
		}) {
			return fmt.Errorf("a link at %s led to %s", strings.Join(places, ", "), at)
		}
		if e.Type().IsRegular() {
			if taken, err := isPlaceholder(file, e); err != nil || taken {
				return errors.Join(err, fmt.Errorf("the content of %s is needed", at))
			}
		}
		return nil
	})
}
