package process

import (
	"runtime/debug"
	"time"
)

const (
	// startPhase is longer than a build takes in which everything is cached.
	startPhase = 500 * time.Millisecond
	// startMemory is how many bytes may be allocated in the start phase before garbage is collected all the same.
	startMemory = 48 << 20
)

// StartWithoutGC keeps the garbage collector out of a process's start: most commands, and an engine whose build finds all
// in its cache, end before they have allocated what collecting would be worth for. Later the collector works as usual.
func StartWithoutGC() {
	limit := debug.SetMemoryLimit(startMemory) // GOMEMLIMIT, if that is set
	debug.SetGCPercent(-1)
	time.AfterFunc(startPhase, func() {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(limit)
	})
}
