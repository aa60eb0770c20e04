// Package housekeeping holds an engine's cache to its limit, and answers `optbuild df` and `optbuild prune`.
//
// What comes in is an engine and a [cache.Limit]; what goes out is a [Keeper]: it collects before a build when the disk is
// nearly full, after builds of an engine that goes on living, and when the engine ends, in bounded time. How much the cache
// takes is measured on the disk; what goes first is package cache's policy.
//
//	before a build ── disk nearly full? ─┐
//	some time after a build ─────────────┼─> measure > limit? ─> garbage ─> unused longest ─> measure ...
//	the last command has left ───────────┘
package housekeeping

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"github.com/optbuild/optbuild/builder/engine"
	"github.com/optbuild/optbuild/cache"
)

const (
	// budget is how long the end of a command may be held up by a collection; farBudget when the cache is far above its
	// limit, so that builds in a row can't outgrow it.
	budget    = 2 * time.Second
	farBudget = 20 * time.Second
	// perPass is how many records go between two measurements.
	perPass = 200
	// settle is how long after a solve an engine that goes on living looks at its cache: most commands are gone by then,
	// and the end of the engine collects.
	settle = 3 * time.Second

	notesName = "usage.json" // in the state directory: the last measurement
)

// Keeper keeps one engine's cache. Its methods may be called concurrently.
type Keeper struct {
	engine *engine.Engine
	dir    string // the engine's directory
	state  string // the directory that it is in, with what else belongs to it
	limit  cache.Limit

	mu   sync.Mutex // held while something is removed
	idle bool       // guarded by mu: the engine ends, nothing is removed any more

	timer sync.Mutex // guards after
	after *time.Timer
}

// New returns a keeper for the engine in dir, which is in the state directory. A limit without bytes means the default for
// the disk.
func New(e *engine.Engine, state, dir string, limit cache.Limit) (*Keeper, error) {
	d, err := cache.DiskOf(dir)
	if err != nil {
		return nil, err
	}
	if limit.Bytes == 0 {
		limit.Bytes = cache.DefaultLimit(d).Bytes
	}
	if limit.Records == 0 {
		limit.Records = cache.MaxRecords
	}
	return &Keeper{engine: e, state: state, dir: dir, limit: limit}, nil
}

// Solving is a gRPC interceptor that makes room before a solve when the disk is nearly full, and collects some time after it.
func (k *Keeper) Solving(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if info.FullMethod != "/moby.buildkit.v1.Control/Solve" {
		return next(ctx, req)
	}
	if d, err := cache.DiskOf(k.dir); err == nil && cache.Short(d) {
		k.mu.Lock()
		k.collect(ctx)
		k.mu.Unlock()
	}
	defer func() {
		k.timer.Lock()
		defer k.timer.Unlock()
		if k.after != nil {
			k.after.Stop()
		}
		k.after = time.AfterFunc(settle, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if !k.idle {
				k.collect(context.Background())
			}
		})
	}()
	return next(ctx, req)
}

// Idle collects when no command uses the engine any more. When it returns, nothing that was under way goes on.
func (k *Keeper) Idle(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.idle = true
	n := k.readNotes()
	d, err := cache.DiskOf(k.dir)
	if err != nil {
		return
	}
	if n.recent(time.Now(), d) {
		var grown engine.Growth
		if n.Listing != k.engine.Listing() {
			if grown, err = k.engine.Growth(ctx, n.At); err != nil {
				logrus.WithError(err).Warn("measure what was added to the cache")
			}
		}
		if err == nil && n.below(d, k.limit, grown) {
			return
		}
	}
	k.collect(ctx)
}

// collect brings the cache below its limit, as far as that goes in the time that it has. k.mu is held.
func (k *Keeper) collect(ctx context.Context) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, farBudget)
	defer cancel()
	_, err := k.shrink(ctx, k.limit, func(far bool) bool {
		took := time.Since(begin)
		return took < budget || far && took < farBudget
	}, func(cache.Record) {})
	if err != nil && ctx.Err() == nil {
		logrus.WithError(err).Warn("collect cache")
	}
}

// shrink removes what was unused longest until the cache is below the limit, nothing more can go, or goOn says no; it is
// told whether the cache is far above the limit. It returns the last measurement. k.mu is held.
func (k *Keeper) shrink(ctx context.Context, limit cache.Limit, goOn func(far bool) bool, removed func(cache.Record)) (cache.Usage, error) {
	for pass := 0; ; pass++ {
		at := time.Now()
		u, err := k.engine.DiskUsage(ctx)
		if err != nil {
			return u, err
		}
		d, err := cache.DiskOf(k.dir)
		if err != nil {
			return u, err
		}
		records, err := k.engine.Records(ctx)
		if err != nil {
			return u, err
		}
		k.writeNotes(notes{At: at, Bytes: u.Total, Records: len(records), Free: d.Free, Listing: k.engine.Listing()})
		here := limit.On(d, u.Total)
		logrus.Debugf("cache takes %s in %d records, allowed are %s", cache.FormatBytes(u.Total), len(records), cache.FormatBytes(here.Bytes))
		if !here.Exceeded(u.Total, len(records)) && !(pass == 0 && cache.Short(d)) {
			return u, nil
		}
		if pass > 0 && !goOn(here.FarExceeded(u.Total, len(records))) {
			return u, nil
		}
		if pass == 0 { // what nothing refers to costs nobody anything
			if err := k.engine.CollectGarbage(ctx); err != nil {
				return u, err
			}
			continue
		}
		cutoff, n := cache.Cutoff(here, u.Total, records, perPass)
		if n == 0 {
			return u, nil
		}
		gone := 0
		count := func(r cache.Record) { gone++; removed(r) }
		if err := k.engine.Prune(ctx, count, engine.Unused(cutoff)); err != nil {
			return u, err
		}
		if gone == 0 { // a build took them meanwhile
			return u, nil
		}
	}
}

// usage measures everything in the state directory by looking at every file.
func (k *Keeper) usage(ctx context.Context) (cache.Usage, error) {
	u, err := k.engine.ExactDiskUsage(ctx)
	if err != nil {
		return u, err
	}
	inCache := func(path string) bool { return path == k.dir }
	err = cache.Du(k.state, inCache, func(path string, n int64) {
		if path != k.dir {
			u.Other += n
		}
	})
	return u.Sum(), err
}

// notes are what the last measurement found.
type notes struct {
	At      time.Time `json:"at"` // that it began
	Bytes   int64     `json:"bytes"`
	Records int       `json:"records"`
	Free    int64     `json:"free"` // of the disk
	// Listing digests the names of the snapshots and blobs that there were.
	Listing uint64 `json:"listing"`
}

// recent reports whether the notes say anything about today.
func (n notes) recent(now time.Time, d cache.Disk) bool {
	return !cache.Short(d) && n.At.Before(now) && now.Sub(n.At) < time.Hour
}

// below reports whether measuring again can wait, because the cache can't have come near its limit since. What was added is known, but for what contexts, cache mounts and other
// snapshots that can still change have grown by: that is taken from what the disk lost beyond it. (That others freed as much can hide that, for an hour at most.) What was removed
// is not taken off. So the end of a build costs a few directory listings, and not a look at each file that can change.
func (n notes) below(d cache.Disk, l cache.Limit, g engine.Growth) bool {
	slack, lost := l.Bytes/16, n.Free-d.Free
	return n.Bytes+max(g.Bytes, lost) < l.Bytes-slack && lost-g.Bytes < slack && n.Records+g.Things <= l.Records
}

func (k *Keeper) readNotes() (n notes) {
	b, err := os.ReadFile(filepath.Join(k.state, notesName))
	if err != nil || json.Unmarshal(b, &n) != nil {
		return notes{}
	}
	return n
}

func (k *Keeper) writeNotes(n notes) {
	if b, err := json.Marshal(n); err == nil {
		_ = os.WriteFile(filepath.Join(k.state, notesName), append(b, '\n'), 0o600) // half a file reads as none
	}
}
