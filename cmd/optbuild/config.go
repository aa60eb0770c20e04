package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/tomlfile"
	"github.com/optbuild/optbuild/cache"
)

// configFile is the user's configuration file. Flags and environment variables win over it. A key is a field here; one that
// is not is an error, because a misspelt limit is a limit that does not hold.
type configFile struct {
	// MaxCache is the most that the cache may take on disk, such as "20GB".
	MaxCache cache.Bytes `toml:"max-cache"`
}

// loadConfig reads $XDG_CONFIG_HOME/optbuild/config.toml; a file that is not there is an empty one.
func loadConfig() (c configFile, err error) {
	dir, err := os.UserConfigDir() // honours XDG_CONFIG_HOME
	if err != nil {
		return c, nil // no home directory: no file
	}
	path := filepath.Join(dir, "optbuild", "config.toml")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	return c, parseConfig(path, b, &c)
}

func parseConfig(path string, text []byte, c *configFile) error {
	line, err := tomlfile.Decode(text, c)
	switch {
	case err == nil:
		return nil
	case line > 0:
		return &usageErr{fmt.Errorf("%s:%d: %w", path, line, err)}
	}
	return &usageErr{fmt.Errorf("%s: %w", path, err)}
}

// maxCache is the limit of the cache that the user chose, 0 if none.
func maxCache(c *cli.Context, file configFile) (int64, error) {
	if s := c.String("max-cache"); s != "" {
		n, err := cache.ParseBytes(s)
		if err == nil && n == 0 {
			err = errors.New("is nothing: `optbuild prune -a` empties the cache")
		}
		if err != nil {
			return 0, usagef("--max-cache %s: %w", s, err)
		}
		return n, nil
	}
	return int64(file.MaxCache), nil
}
