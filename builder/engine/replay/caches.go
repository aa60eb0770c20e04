package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/sirupsen/logrus"
)

// A cache mount may hold what was made from another version of a file than the one that a COPY has, and had before: two Dockerfiles copy the same
// directory and compile in one cache mount, between them the file is edited and the edit taken back. If the COPY gave the file its old time
// again, it would look older than what was made from the edit, and that would be used. So each run of a step with cache mounts is noted, with the
// layers that it saw; a COPY whose last layer was not among them in a run since then keeps no times.
//
// The log of runs is a file of lines, of which the first is its name. When it becomes too long there is a new one, and what was known is
// forgotten: times are not kept once.

// cacheUse is one line of the log: a step with the cache mount id ran over layers with these numbers.
type cacheUse struct {
	id     string
	layers []string
}

// position is a place in the log, in the form that it is stored in.
type position struct {
	log    string // name of the log
	length int    // of what was there
}

// maxLog is how long the log may become, in bytes.
const maxLog = 100_000

// noting is an executor that notes which cache mounts a step has used.
type noting struct {
	executor.Executor
	r    *Replayer
	ids  []string
	step *step // nil if the layers are not known: nobody's are among them
}

// noting returns the executor of an exec, which is inner if the exec has no cache mounts.
func (r *Replayer) noting(inner executor.Executor, op *pb.ExecOp, st *step) executor.Executor {
	if ids := cacheMounts(op); len(ids) > 0 {
		return noting{inner, r, ids, st}
	}
	return inner
}

// cacheMounts returns the ids of an exec's cache mounts, as they are stored.
func cacheMounts(op *pb.ExecOp) (ids []string) {
	for _, m := range op.Mounts {
		if m.MountType == pb.MountType_CACHE && m.CacheOpt != nil {
			ids = append(ids, fmt.Sprintf("%x", m.CacheOpt.ID))
		}
	}
	return ids
}

func (n noting) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo,
	started chan<- struct{}) (resourcestypes.Recorder, error) {
	var layers []string
	if n.step != nil {
		n.step.mu.Lock()
		if n.step.root != nil {
			for _, d := range n.step.root.Lower {
				layers = append(layers, d.Number)
			}
		}
		n.step.mu.Unlock()
	}
	// Before and after it: a COPY may be made meanwhile.
	n.r.note(n.ids, layers)
	defer n.r.note(n.ids, layers)
	return n.Executor.Run(withFiles(ctx, n.step), id, root, mounts, process, started)
}

// Foreign notes that a cache mount, by BuildKit's id, holds what was made elsewhere, from whatever files.
func (r *Replayer) Foreign(id string) { r.note([]string{fmt.Sprintf("%x", id)}, nil) }

// note adds to the log. If that can't be done the log is given up, for then it says too little.
func (r *Replayer) note(ids, layers []string) {
	r.caches.Lock()
	defer r.caches.Unlock()
	if err := r.appendUses(ids, layers); err != nil {
		logrus.WithError(errors.Join(err, os.Remove(r.log))).Warn("note the use of cache mounts")
	}
}

func (r *Replayer) appendUses(ids, layers []string) error {
	b, err := r.readLog()
	if err != nil {
		return err
	}
	if len(b) > maxLog {
		b = newLog()
	}
	for _, id := range ids {
		b = fmt.Appendf(b, "%s %s\n", id, strings.Join(layers, ","))
	}
	return os.WriteFile(r.log, b, 0o600)
}

// readLog returns the log, a new one if there is none.
func (r *Replayer) readLog() ([]byte, error) {
	b, err := os.ReadFile(r.log)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Contains(b, []byte("\n")) {
		b = newLog()
		err = os.WriteFile(r.log, b, 0o600)
	}
	return b, err
}

func newLog() []byte { return []byte(newID() + "\n") }

// cacheUses returns the log, and its end. uses is what was added since a position; known is false if that is not known.
func (r *Replayer) cacheUses(since position) (all, uses []cacheUse, end position, known bool, err error) {
	r.caches.Lock()
	defer r.caches.Unlock()
	b, err := r.readLog()
	if err != nil {
		return nil, nil, end, false, err
	}
	name, lines, _ := bytes.Cut(b, []byte("\n"))
	end = position{log: string(name), length: len(lines)}
	if end.log == since.log && since.length <= len(lines) {
		known, uses = true, parseUses(lines[since.length:])
	}
	return parseUses(lines), uses, end, known, nil
}

func parseUses(lines []byte) (uses []cacheUse) {
	for line := range strings.Lines(string(lines)) {
		id, layers, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		uses = append(uses, cacheUse{id, strings.Split(layers, ",")})
	}
	return uses
}

// lastCopy is what is known of the layer that a COPY made last.
type lastCopy struct {
	number string   // of its snapshot
	at     position // of the log when it was made
	ids    []string // of the cache mounts of steps that ran over the layers of this COPY
}

func parseLast(b []byte) (l lastCopy) {
	fields := strings.Fields(string(b))
	if len(fields) == 0 {
		return l
	}
	l.number = fields[0]
	for _, f := range fields[1:] {
		if log, ok := strings.CutPrefix(f, "log="); ok {
			l.at.log = log
		} else if length, ok := strings.CutPrefix(f, "length="); ok {
			if _, err := fmt.Sscan(length, &l.at.length); err != nil {
				return lastCopy{}
			}
		} else {
			l.ids = append(l.ids, f)
		}
	}
	return l
}

func (l lastCopy) String() string {
	return strings.Join(append([]string{l.number, "log=" + l.at.log, fmt.Sprintf("length=%d", l.at.length)}, l.ids...), " ")
}

// keepsTimes says whether the layer of a COPY that is made again may have the times of the last one, and returns what is to be remembered of the
// new one, which has this number.
func (r *Replayer) keepsTimes(last lastCopy, number string) (bool, lastCopy, error) {
	all, since, end, known, err := r.cacheUses(last.at)
	if err != nil {
		return false, lastCopy{}, err
	}
	next := lastCopy{number: number, at: end, ids: last.ids}
	for _, u := range all {
		if slices.Contains(u.layers, last.number) && !slices.Contains(next.ids, u.id) {
			next.ids = append(next.ids, u.id)
		}
	}
	foreign := slices.ContainsFunc(since, func(u cacheUse) bool {
		return slices.Contains(next.ids, u.id) && !slices.Contains(u.layers, last.number)
	})
	return known && !foreign, next, nil
}
