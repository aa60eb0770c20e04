// Package profile is about what a program reads of its image while it starts, and in which order.
//
//	optbuild profile ──> startup: the image's program runs, its files watched ──> Profile ──┬──> a file
//	                                                                                       ├──> Store, by the image's name
//	                                                                                       └──> Attach: an artifact beside the image at its registry
//	optbuild build   <── Find, Store.Find, Decode ──> Prioritized ──> the writer of eStargz layers, which puts these files first
//
// An eStargz layer can be used before all of it is there, and what stands first in it is fetched first: an image whose layers begin with the files of its
// profile starts without waiting for more.
//
// A [Profile] says nothing that an image depends on: a profile of another version of the image puts files in a worse order, no more. So a name that is no longer there is
// ignored, and nobody needs to trust a profile. It is decoded as what comes from anybody, within bounds.
//
// The package knows nothing of how a program is watched ([Mark] and [Conditions] are what the engine's package profiler is told, [Event] what it answers), of flags, or of how a layer
// is written.
package profile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// MediaType is that of an encoded profile, and, as a type of artifacts, of the manifest that attaches it to an image.
const MediaType = "application/vnd.optbuild.profile.v1+json"

// Profile is what one start of a program touched of its image.
type Profile struct {
	// Image is the name in full of the image that was started, or that is built from the stage that was; "" if it has none.
	Image string
	// Platform is the image's, such as linux/amd64.
	Platform string
	// Until says what ended the start: "exit", "time", "port 8080", "log" or "healthy".
	Until string
	// Layers are the digests of the image's uncompressed layers, the lowest first; nil if they are not known, as those of a stage.
	Layers []digest.Digest
	// Files are in the order in which they were first touched. No path comes twice.
	Files []File
}

// File is a name in the image that the program asked for, and that was there.
type File struct {
	// Path is absolute, clean, and valid UTF-8: names that are not are left out of profiles.
	Path string
	Type Type
	// Read says that it was opened, or executed. Otherwise it was looked up only, as a directory on the way, or by stat.
	Read bool
	// Bytes is the size of a regular file, 0 for others.
	Bytes int64
	// Layer is the place of the layer that it is from, counted from the lowest, which is 0.
	Layer int
}

// Type is the kind of a file.
type Type string

// The types of files. Other stands for devices, pipes and sockets.
const (
	Regular   Type = "file"
	Directory Type = "directory"
	Symlink   Type = "symlink"
	Other     Type = "other"
)

// Bounds of what is decoded.
const (
	MaxBytes = 64 << 20 // of an encoded profile
	MaxFiles = 500_000
	maxPath  = 4096 // bytes; PATH_MAX
	maxLayer = 1000
	maxText  = 4096 // bytes of each other text
)

// Prioritized returns the regular files whose content was read, in their order, as tar archives name them: relative to the root and without a slash in front. These are what a
// writer of eStargz puts first. What was looked up only is in the table of contents, which is fetched in any case.
func (p *Profile) Prioritized() []string {
	var names []string
	for _, f := range p.Files {
		if f.Type == Regular && f.Read {
			names = append(names, strings.TrimPrefix(f.Path, "/"))
		}
	}
	return names
}

// Used returns what the program has read or looked up, but for directories: what is in those it has named itself, as far as it needed it.
func (p *Profile) Used() []string {
	var paths []string
	for _, f := range p.Files {
		if f.Type != Directory {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// Read counts the regular files whose content was read, and their bytes.
func (p *Profile) Read() (files int, bytes int64) {
	for _, f := range p.Files {
		if f.Type == Regular && f.Read {
			files++
			bytes += f.Bytes
		}
	}
	return files, bytes
}

// Merge returns what several profiles prioritize, as of the platforms of one image: in the order of the profiles, each name once.
func Merge(profiles ...*Profile) []string {
	var names []string
	met := map[string]bool{}
	for _, p := range profiles {
		for _, name := range p.Prioritized() {
			if !met[name] {
				met[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

// check returns what is wrong with a profile; nothing that Encode has written is.
func (p *Profile) check() error {
	for _, s := range []string{p.Image, p.Platform, p.Until} {
		if len(s) > maxText {
			return errors.New("a text is too long")
		}
	}
	if len(p.Layers) > maxLayer || len(p.Files) > MaxFiles {
		return fmt.Errorf("it has %d layers and %d files: too many", len(p.Layers), len(p.Files))
	}
	for _, d := range p.Layers {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("layer %q: %w", d, err)
		}
	}
	met := make(map[string]bool, len(p.Files))
	for _, f := range p.Files {
		switch {
		case !validPath(f.Path):
			return fmt.Errorf("%q is no absolute path", f.Path)
		case met[f.Path]:
			return fmt.Errorf("%s comes twice", f.Path)
		case !slices.Contains([]Type{Regular, Directory, Symlink, Other}, f.Type):
			return fmt.Errorf("%s has the unknown type %q", f.Path, f.Type)
		case f.Bytes < 0 || f.Bytes > 0 && f.Type != Regular:
			return fmt.Errorf("%s has %d bytes", f.Path, f.Bytes)
		case f.Layer < 0 || f.Layer >= maxLayer || p.Layers != nil && f.Layer >= len(p.Layers):
			return fmt.Errorf("%s is in layer %d", f.Path, f.Layer)
		}
		met[f.Path] = true
	}
	return nil
}

// validPath says whether a name can be in a profile.
func validPath(name string) bool {
	return len(name) > 1 && len(name) <= maxPath && path.IsAbs(name) && path.Clean(name) == name && utf8.ValidString(name) && !strings.ContainsRune(name, 0)
}
