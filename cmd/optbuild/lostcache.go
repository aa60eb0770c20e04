package main

import (
	"strings"

	"github.com/optbuild/optbuild/cache/remote"
)

// lostCacheError is the error of a build that needed what a cache had promised and can't be read there.
type lostCacheError struct {
	error
	layer string // what can't be read, and why
}

func (e *lostCacheError) Unwrap() error { return e.error }

// lostCache is err as a lostCacheError, if a step's error or err itself says so. The build may have ended with an error of another step, which was canceled for that.
func lostCache(err error, rec *recorder) error {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	switch {
	case rec.unread != "":
		return &lostCacheError{err, rec.unread}
	case strings.Contains(err.Error(), remote.CantRead):
		return &lostCacheError{err, err.Error()}
	}
	return err
}
