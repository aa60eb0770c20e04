package tocfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
)

// tableEntry is what can make the library run away: it follows links without counting, and does not look how much a table decompresses to. It reads the table only after this.
type tableEntry struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	LinkName string `json:"linkName"`
}

const (
	typeDirectory = "dir"
	typeHardLink  = "hardlink"
	typeChunk     = "chunk"
	maxName       = 4096 // bytes; PATH_MAX
)

// decompressor is that of a format.
type decompressor interface {
	DecompressTOC(io.Reader) (io.ReadCloser, error)
}

// checkTable reads a compressed table of contents, and says why it can't be used.
func checkTable(r io.Reader, d decompressor) error {
	list, err := d.DecompressTOC(r)
	if err != nil {
		return err
	}
	defer list.Close()
	bounded := &io.LimitedReader{R: list, N: maxTableBytes}
	var toc struct {
		Entries []tableEntry `json:"entries"`
	}
	err = json.NewDecoder(bounded).Decode(&toc)
	if err == nil {
		_, err = io.Copy(io.Discard, bounded)
	}
	if bounded.N == 0 {
		return fmt.Errorf("it has more than %d bytes", maxTableBytes)
	}
	if err != nil {
		return fmt.Errorf("read the table of contents: %w", err)
	}
	return checkLinks(toc.Entries)
}

// checkLinks wants every hard link to end at a file that is in the table.
func checkLinks(entries []tableEntry) error {
	named := make(map[string]tableEntry, len(entries))
	directories := map[string]bool{"": true}
	for _, e := range entries {
		if len(e.Name) > maxName || len(e.LinkName) > maxName {
			return errors.New("a name is too long")
		}
		name := cleanName(e.Name)
		if e.Type == typeChunk {
			continue
		}
		named[name] = e
		if e.Type == typeDirectory {
			directories[name] = true
		}
		for dir := path.Dir(name); dir != "." && !directories[dir]; dir = path.Dir(dir) {
			directories[dir] = true
		}
	}
	for _, e := range entries {
		to := e
		for steps := 0; to.Type == typeHardLink; steps++ {
			name := cleanName(to.LinkName)
			next, ok := named[name]
			switch {
			case directories[name]:
				return fmt.Errorf("the hard link %q leads to a directory", e.Name)
			case !ok:
				return fmt.Errorf("the hard link %q leads to nothing", e.Name)
			case steps > 64:
				return fmt.Errorf("the hard link %q leads to too many others", e.Name)
			}
			to = next
		}
	}
	return nil
}

// cleanName is the library's form of a name.
func cleanName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

var _ decompressor = (*estargz.GzipDecompressor)(nil)
