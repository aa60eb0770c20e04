package replay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/atomicfile"
	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/snapshot"
)

// keeper gives the files of a COPY the times that they had when it was last made, as far as they have not changed since and look newer now.
//
// A step that is replayed wrote its files when it was run. A later step (make, python, a bundler) compares their times with those of the files that they were made
// from: had the COPY that was made again new times for what has not changed (a fresh checkout), they would look out of date. Stock BuildKit does the same in the
// large: to its cache a COPY whose files have other times only is the COPY that it has.
//
// A file that did change has its own time, whatever that is: cache mounts may hold what was made from the version before. See caches.go for more of that.
type keeper struct {
	r       *Replayer
	name    string
	vertex  string
	slot    string // name of the file that says what was made last
	context bool   // it copies from the context
	shared  string // see timesKey

	mu       sync.Mutex
	made     *snapshot.Prepared
	sessions []string
}

// keeperOf returns nil where nothing can be known of what was made last.
func (r *Replayer) keeperOf(v solver.Vertex, op *pb.FileOp, project string) *keeper {
	b, err := op.MarshalVT()
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "copy\x00%s\x00%s", project, b))
	return &keeper{r: r, name: stepName(v), vertex: v.Digest().String(), slot: hex.EncodeToString(sum[:]), context: copiesContext(v, op), shared: timesKey(v, op)}
}

// copyManager is the cache manager of one file operation.
type copyManager struct {
	cache.Manager
	keeper *keeper
}

func (m copyManager) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	if m.keeper.context { // a RUN above it will have to be watched, or not: a process has started until that is known
		m.keeper.r.startViewer()
	}
	ref, err := m.Manager.New(snapshot.WithPrepared(ctx, m.keeper.prepare), parent, g, opts...)
	if err != nil {
		return nil, err
	}
	m.keeper.mu.Lock()
	defer m.keeper.mu.Unlock()
	m.keeper.sessions = sessions(g)
	return copied{ref, m.keeper}, nil
}

// copied is what a file operation writes to.
type copied struct {
	cache.MutableRef
	keeper *keeper
}

func (c copied) Commit(ctx context.Context) (cache.ImmutableRef, error) {
	reasons, err := c.keeper.keep(ctx)
	if err != nil { // times are newer than they need be: steps run again
		logrus.WithError(err).Warnf("keep times of %s", c.keeper.name)
	}
	if c.keeper.context {
		tell(ctx, outcome.Outcome{Vertex: c.keeper.vertex, Step: c.keeper.name, Result: outcome.Executed, Reason: first(reasons), Details: reasons})
	}
	return c.MutableRef.Commit(ctx)
}

func (k *keeper) prepare(p snapshot.Prepared) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.made = &p
}

// keep sets times, and says what has changed since the COPY was made last.
func (k *keeper) keep(ctx context.Context) (reasons []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.made == nil {
		return nil, nil
	}
	if !k.context {
		// Of these, the small ones are known by their content: they must not look newer than what was made from them. The others are watched.
		if _, small, err := trace.Tree(k.made.Directory, smallLayer); err != nil || !small {
			return nil, err
		}
	}
	path := filepath.Join(k.r.times, k.slot)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all, this := filepath.Split(filepath.Dir(k.made.Directory)) // snapshots/N/fs
	was := parseLast(b)
	keeps, next, err := k.r.keepsTimes(was, this)
	if err != nil {
		return nil, err
	}
	last := filepath.Join(all, filepath.Base(was.number), "fs")
	if was.number == "" {
		reasons = []string{outcome.FirstBuild}
		if err := k.keepShared(ctx); err != nil {
			return nil, err
		}
	} else if _, err := os.Lstat(last); err == nil {
		c := copies{last: last, this: k.made.Directory, keeps: keeps}
		if err := c.compare(); err != nil && !errors.Is(err, fs.ErrNotExist) { // the last one may be on its way out
			return nil, err
		}
		if reasons = c.reasons(); len(reasons) == 0 {
			reasons = []string{"what is below it changed"}
		}
	}
	k.pass()
	return reasons, atomicfile.Write(path, []byte(next.String()), 0o600)
}

// keepShared sets the times that the files had where the COPY was made elsewhere. It is called when it was never made here: no cache mount has anything that was made from another version.
func (k *keeper) keepShared(ctx context.Context) error {
	if k.r.others == nil || !k.r.others.Asked(k.sessions) {
		return nil
	}
	if t := k.r.others.Times(ctx, k.sessions, k.shared); t != nil {
		return t.apply(k.made.Directory)
	}
	return nil
}

// pass tells others of the COPY.
func (k *keeper) pass() {
	if k.r.others == nil || !k.context || k.shared == "" || !k.r.others.Asked(k.sessions) {
		return
	}
	dir := k.made.Directory
	k.r.others.Copied(k.sessions, Copied{Name: k.name, Key: k.shared, Times: func(ctx context.Context) (*Times, error) { return tableOf(ctx, dir) }})
}

// collectOld removes the oldest files of a directory until there are no more than most.
func collectOld(dir string, most int) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= most {
		return
	}
	type file struct {
		name string
		at   time.Time
	}
	var files []file
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			files = append(files, file{e.Name(), fi.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b file) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	for _, f := range files[:max(0, len(files)-most)] {
		_ = os.Remove(filepath.Join(dir, f.name)) // only a bound
	}
}
