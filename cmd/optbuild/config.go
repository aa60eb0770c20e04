package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/urfave/cli/v2"

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
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(c)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		line, _ := unknown.Errors[0].Position()
		return &usageErr{fmt.Errorf("%s:%d: unknown key %q", path, line, strings.Join(unknown.Errors[0].Key(), "."))}
	case errors.As(err, &wrong):
		line, _ := wrong.Position()
		return &usageErr{fmt.Errorf("%s:%d: %s", path, line, strings.TrimPrefix(wrong.Error(), "toml: "))}
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
