package export

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A unit keeps residue to which a link of its own leads (keepLinked); links of other units it does not see. So units are not divided where one has a link to what another would leave out:
//
//	RUN uv tool install ruff                                        ┐ one layer: else the link would lead to nothing
//	RUN ln -s ~/.cache/uv/archive-v0/.../ruff /usr/bin/ && make     ┘

// linked tells whether a link of the upper layers leads to residue of the lower ones.
func (u *union) linked(ctx context.Context, lower, upper []directory) (bool, error) {
	if u.residue == nil {
		return false, nil
	}
	for _, d := range upper {
		err := filepath.WalkDir(d.path, func(file string, e fs.DirEntry, err error) error {
			if err != nil || e.Type()&fs.ModeSymlink == 0 {
				return errors.Join(err, context.Cause(ctx))
			}
			to, err := os.Readlink(file)
			if err != nil {
				return err
			}
			path := filepath.Join("/", file[len(d.path):])
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(path), to)
			}
			if to = filepath.Clean(to); to == "/" || !u.near(to) || u.residue(path).Rule != "" {
				return nil
			}
			return u.hasResidue(to, lower)
		})
		if errors.Is(err, errEnough) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// hasResidue returns errEnough if the path is residue in any of the layers, or something below it.
func (u *union) hasResidue(path string, layers []directory) error {
	for _, d := range layers {
		top := filepath.Join(d.path, path)
		err := filepath.WalkDir(top, func(file string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || u.residue(filepath.Join(path, file[len(top):])).Rule == "" {
				return err
			}
			return errEnough
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
	}
	return nil
}

// linkOf is where a symbolic link leads to that stands at a path.
func linkOf(file, path string) (string, error) {
	to, err := os.Readlink(file)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(path), to)
	}
	return filepath.Clean(to), nil
}
