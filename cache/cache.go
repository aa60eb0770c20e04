// Package cache says what a build cache may take of a disk, what it takes, and what has to go when that is too much.
//
// What comes in is a listing of records (a [Record] is one result that a build could use again) and what the cache really
// takes on disk; what goes out is the moment before which everything that was used last has to go ([Cutoff]). The package
// knows nothing of BuildKit: package builder lists, removes and measures. Policy is arithmetic on values, so that it can be
// tested without a cache.
//
// Why not BuildKit's own policy: it bounds the sum of its records' sizes. That sum counts a blob or a snapshot once for each
// record that shares it, and does not count what has no record or counts as shared: blobs of images, manifests, databases
// (which do not shrink), directories of removed snapshots that are still there. The limit here is for what `du` shows.
package cache

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Record is one result that a build could use again.
type Record struct {
	ID string `json:"id"`
	// Type is BuildKit's: regular, source.local, source.git.checkout, exec.cachemount, frontend, internal.
	Type string `json:"type"`
	// Bytes is what the record's own snapshot and blobs take; some may be shared with other records or images.
	Bytes int64 `json:"bytes"`
	// HeldBytes of them would stay if the record went, because an image of the local store refers to its blob.
	HeldBytes   int64     `json:"heldBytes,omitempty"`
	Created     time.Time `json:"created"`
	LastUsed    time.Time `json:"lastUsed"` // zero: never since it was made
	Uses        int       `json:"uses"`
	Description string    `json:"description"`
	Parents     []string  `json:"parents,omitempty"`
	// InUse is true while a build holds the record, or another record builds on it.
	InUse   bool `json:"inUse"`
	Mutable bool `json:"mutable"`
	// Shared is true when an image of the local store has the same layers.
	Shared bool `json:"shared"`
}

// Usage is what the state directory takes on disk, in bytes of allocated blocks. The parts add up to Total.
type Usage struct {
	Images      int64 `json:"images"`      // blobs that images of the local store refer to
	Snapshots   int64 `json:"snapshots"`   // file systems of steps and sources
	CacheMounts int64 `json:"cacheMounts"` // RUN --mount=type=cache
	Blobs       int64 `json:"blobs"`       // blobs of no image
	Databases   int64 `json:"databases"`
	Other       int64 `json:"other"` // runtime, logs, temporary files, directories
	Total       int64 `json:"total"`
	// Reclaimable is how much of Total `optbuild prune -a` could free now.
	Reclaimable int64 `json:"reclaimable"`

	ImageCount int      `json:"imageCount"`
	Records    []Record `json:"records,omitempty"`
}

// Sum returns u with Total set to the sum of the parts.
func (u Usage) Sum() Usage {
	u.Total = u.Images + u.Snapshots + u.CacheMounts + u.Blobs + u.Databases + u.Other
	return u
}

// Bytes is a number of bytes that reads from text such as "20GB" (decimal) or "20GiB" (binary).
type Bytes int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := ParseBytes(string(text))
	*b = Bytes(n)
	return err
}

// ParseBytes reads a size: a number with an optional unit, B, kB, MB, GB, TB (decimal) or KiB, MiB, GiB, TiB (binary).
func ParseBytes(s string) (int64, error) {
	parse := units.FromHumanSize
	if strings.ContainsAny(s, "iI") {
		parse = units.RAMInBytes
	}
	n, err := parse(strings.TrimSpace(s))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a size (like 20GB or 500MiB)", s)
	}
	return n, nil
}

// FormatBytes writes a size for people.
func FormatBytes(n int64) string {
	if n < 0 {
		return "-" + FormatBytes(-n)
	}
	return units.HumanSizeWithPrecision(float64(n), 3)
}
