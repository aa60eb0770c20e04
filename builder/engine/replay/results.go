package replay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"

	"github.com/optbuild/optbuild/builder/record"
	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/snapshot"
)

// What a RUN left that had looked at the context is another layer after each edit, and the RUNs above it often need nothing of it: the packages of a monorepo that are built one after the
// other. So it is watched like what a COPY left, as long as it is not much: each first look through a view costs some 0.1 ms, and nobody gains by views of node_modules. What a RUN left that
// did not look at the context stays what it is, and is known by its name.

// fewFiles is how large a result may be to be watched.
var fewFiles = trace.Limits{Entries: 512, Bytes: 16 << 20}

// maxViews bounds the views of a step's root file system as far as results are concerned: their names are long, and all that is below a step has to go into the options of one mount.
const maxViews = 40

// resultSum is what a result that is watched is known by.
const resultSum = "watched"

// content is what the layer of a RUN or of a file operation, none that copies, is known by if it is little; "" if it is not. read says that it is known of elsewhere that the RUN has looked at the context.
func (st *step) content(l link, dir string, read bool, in *inputs) (string, error) {
	limits := smallLayer
	var err error
	if l.exec {
		if limits, err = emptyLayer(dir); err != nil {
			return "", err
		}
	}
	sum, small, err := trace.Tree(dir, limits)
	if err != nil {
		return "", err
	}
	if small {
		return fmt.Sprintf("files %x", sum), nil
	}
	if !l.exec || st.most(in) == 0 {
		return "", nil
	}
	if watch, err := worthWatching(dir, read); err != nil || !watch {
		return "", err
	}
	return resultSum, nil
}

// lateContent is content for a layer that may not be here. What a RUN left that is not here is told from others by its id.
func (st *step) lateContent(ctx context.Context, i int, ref cache.ImmutableRef, g session.Group, in *inputs, records *records) (w watched, sum string, err error) {
	l := st.chain[i]
	w = watched{name: l.name, result: true, stored: records.stored(i)}
	sum = st.sumOf(ref, sessions(g))
	switch {
	case !l.exec:
		if sum == resultSum { // of another layer that has the same in it
			sum = ""
		}
		return w, sum, nil
	case sum == resultSum && st.most(in) == 0:
		return w, "", nil
	case sum != "":
		return w, sum, nil
	}
	dir, err := st.r.files.Here(ctx, ref, g)
	if err != nil || dir == "" {
		return w, "", err
	}
	w.dir = snapshot.Files(dir)
	sum, err = st.content(l, w.dir, records.read(i), in)
	return w, sum, err
}

// most is how many more results may be watched.
func (st *step) most(in *inputs) int {
	n := maxViews
	for _, l := range st.chain {
		if l.copies {
			n--
		}
	}
	for _, w := range in.watched {
		if w.result {
			n--
		}
	}
	return max(n, 0)
}

// worthWatching is true of a layer of a RUN that has looked at the context and left few files, none of them with two names: a view shows no hard links; nor what git left, which notes the numbers of inodes
// in its index. That the RUN has looked is known of elsewhere, or noted beside the layer.
func worthWatching(dir string, read bool) (bool, error) {
	if !read {
		if noted, err := snapshot.ContextRead(dir); err != nil || !noted {
			return false, err
		}
	}
	unfit := errors.New("it can't be watched")
	left := fewFiles
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		left.Entries--
		if d.Name() == ".git" {
			return unfit
		}
		if d.Type().IsRegular() {
			fi, err := d.Info()
			if err != nil {
				return err
			}
			left.Bytes -= fi.Size()
			if hasLinks(fi) {
				return unfit
			}
		}
		if left.Entries < 0 || left.Bytes < 0 {
			return unfit
		}
		return nil
	})
	if err == unfit {
		return false, nil
	}
	return err == nil, err
}

// linked is true of a layer with a file of two names. Each layer is looked through once.
func (r *Replayer) linked(dir string) (found bool, err error) {
	if known, ok := r.links.Load(dir); ok {
		return known.(bool), nil
	}
	defer func() {
		if err == nil {
			r.links.Store(dir, found)
		}
	}()
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err == nil && hasLinks(fi) {
			found = true
			return fs.SkipAll
		}
		return err
	})
	return found, err
}

func hasLinks(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1
}

// records are BuildKit's, of the layers below a step, with what other machines say of them.
type records struct {
	list     cache.RefList
	others   Elsewhere // nil: nobody is asked
	sessions []string
	chains   []string // see chainIDs; nil until they are needed
}

// records are those of the layers below the step, as far as there is one for each of so many.
func (st *step) records(layers int) *records {
	st.mu.Lock()
	parent, g := st.parent, st.session
	st.mu.Unlock()
	if parent == nil {
		return &records{}
	}
	r := &records{list: parent.LayerChain()}
	if len(r.list) != layers {
		r.release(context.Background())
		return &records{}
	}
	if ids := sessions(g); st.r.others != nil && st.r.others.Asked(ids) {
		r.others, r.sessions = st.r.others, ids
	}
	return r
}

func (r *records) release(ctx context.Context) { _ = r.list.Release(context.WithoutCancel(ctx)) }

// get is a field of the record of a layer, the topmost being 0.
func (r *records) get(i int, field string) string {
	if i >= len(r.list) {
		return ""
	}
	return r.list[len(r.list)-1-i].GetString(field)
}

// read is true if the step that made a layer elsewhere has looked at the context.
func (r *records) read(i int) bool {
	if r.get(i, record.ContextRead) != "" {
		return true
	}
	diffID := r.get(i, record.DiffID)
	return r.others != nil && diffID != "" && r.others.Sum(r.sessions, diffID) == resultSum
}

// stored is the id of the stored layer that a layer from elsewhere is; "" if that is not known.
func (r *records) stored(i int) string {
	if id := r.get(i, record.Stored); id != "" || r.others == nil || i >= len(r.list) {
		return id
	}
	if r.chains == nil {
		r.chains = chainNames(r.list, func(chain string) string { return r.others.Chain(r.sessions, chain) })
	}
	if chain := r.chains[i]; chain != "" {
		return r.others.LayerID(r.sessions, chain)
	}
	return ""
}

// resultsNote is the note of a trace on its way to other machines with the ids of the results that were watched, topmost first. Of one that is the same there nothing has to be compared, so that it
// need not be fetched.
const resultsNote = "results"

// withResults is a trace with that note, of a step that ran on the results that were seen, or was replayed on them: the files of these may be older than those of the run.
func withResults(t *trace.Trace, seen []watched) (*trace.Trace, error) {
	if len(t.Layers) != len(seen) {
		return nil, fmt.Errorf("the trace of %s has %d layers, and %d were watched", t.Layer, len(t.Layers), len(seen))
	}
	var ids []string
	noted := *t
	noted.Layers = slices.Clone(t.Layers)
	for i, w := range seen {
		if !w.result {
			continue
		}
		ids = append(ids, w.stored)
		var err error
		if noted.Layers[i], err = noted.Layers[i].Dated(w.dir); err != nil {
			return nil, err
		}
	}
	if len(ids) == 0 {
		return t, nil
	}
	noted.Notes = maps.Clone(t.Notes)
	if noted.Notes == nil {
		noted.Notes = map[string]string{}
	}
	noted.Notes[resultsNote] = strings.Join(ids, ",")
	return &noted, nil
}

// countTimes has the times count that say when a RUN was.
func (in *inputs) countTimes(layers []trace.Layer) error {
	roots, results := make([]string, len(layers)), map[int]bool{}
	for i, w := range in.watched {
		roots[i], results[i] = w.dir, w.result
	}
	return trace.CountTimes(layers, roots, results)
}

var errNotHere = errors.New("what a step below it left is another layer, and is not here")

// same are the indices of those results that are the very ones of a trace.
func (in *inputs) same(t *trace.Trace) (map[int]bool, error) {
	ids := strings.Split(t.Notes[resultsNote], ",")
	same, n := map[int]bool{}, 0
	for i, w := range in.watched {
		if !w.result {
			continue
		}
		if n < len(ids) && ids[n] != "" && ids[n] == w.stored {
			same[i] = true
		} else if w.dir == "" {
			return nil, errNotHere
		}
		n++
	}
	return same, nil
}
