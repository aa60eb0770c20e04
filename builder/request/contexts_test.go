package request

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLayoutErrors: an image layout that can't be read is told apart from one that does not have the image.
func TestLayoutErrors(t *testing.T) {
	for name, c := range map[string]struct {
		index string
		mode  os.FileMode // of the directory
		want  string
		user  bool // root reads everything
	}{
		"another image":    {`{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"1"}},{}]}`, 0o755, `no image "latest" in the index of DIR`, false},
		"no index":         {"", 0o755, "DIR is not an image layout: it has no index.json", false},
		"damaged":          {"{", 0o755, "read image layout DIR: could not unmarshal DIR/index.json", false},
		"can't be entered": {"{}", 0o600, "read image layout: open DIR/index.json: permission denied", true},
		"can't be written": {"{}", 0o500, "read image layout DIR: could not lock DIR/index.json.lock: open DIR/index.json.lock: permission denied", true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.user && os.Geteuid() == 0 {
				t.Skip("root may read everything")
			}
			dir := t.TempDir()
			if c.index != "" {
				if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(c.index), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(dir, c.mode); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(dir, 0o755)
			_, err := (&Solve{}).ociLayout(dir)
			if err == nil || !strings.HasPrefix(err.Error(), strings.ReplaceAll(c.want, "DIR", dir)) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}
