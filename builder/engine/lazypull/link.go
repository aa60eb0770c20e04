package lazypull

import (
	"os"
	"sync"
	"time"
)

// link is what is known of the way to registries.
type link struct {
	mu   sync.Mutex
	rate float64 // bytes in a second, of the fastest request
}

const (
	// measured are requests of this size or more: smaller ones tell of latency only.
	measured = 256 << 10
	// fast is from which rate on, in bytes a second, layers are fetched as a whole: unpacking takes longer than that then, and reading through FUSE is no faster.
	fast = 300e6 / 8
)

func (l *link) note(bytes int64, took time.Duration) {
	if bytes < measured {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = max(l.rate, float64(bytes)/max(took, time.Microsecond).Seconds())
}

func (l *link) isFast() bool {
	if os.Getenv(variable) == always {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate >= fast
}

// variable is of the environment, for tests and for measuring: "always" mounts layers over fast links, too, "off" none.
const (
	variable = "OPTBUILD_LAZY_PULL"
	always   = "always"
	never    = "off"
)
