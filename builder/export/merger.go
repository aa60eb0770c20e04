package export

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/flightcontrol"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/overlay"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/export/strip"
	"github.com/optbuild/optbuild/snapshot"
)

// Merger makes layers of units. Its methods may be called concurrently.
type Merger struct {
	Manager cache.Manager
	Content content.Store
	Leases  leases.Manager
	// Dir is where outcomes are remembered. They are about snapshots, and worth nothing without them.
	Dir string
	// Compressor names the version of what compresses: other versions may give other bytes.
	Compressor string
	// Elsewhere is nil where nothing is shared.
	Elsewhere Elsewhere
	// Begin is called when the layers of an image are about to be made; may be nil.
	Begin func()

	flights flightcontrol.Group[outcome]
}

// Collect forgets what was not used for long. It is called when the engine has nothing else to do.
func (m *Merger) Collect() {
	if err := index(m.Dir).collect(maxOutcomes); err != nil {
		logrus.WithError(err).Warn("collect what is known of merged layers")
	}
}

// job is the work on one image.
type job struct {
	*Merger
	chain    []cache.ImmutableRef // the image's layers
	base     int                  // how many of them are the base image's
	kinds    []kind               // of the others
	strip    *strip.Stripper
	comp     compression.Config
	session  session.Group
	computed int // units for which no outcome was known
}

// outcome finds or makes the layer of a unit. Without wanted, a unit that stays as it is needs no layer.
func (j *job) outcome(ctx context.Context, u unit, wanted bool) (outcome, error) {
	exact := j.exactKey(u)
	if o, ok := j.known(ctx, exact, wanted); ok {
		return o, nil
	}
	return j.flights.Do(ctx, fmt.Sprint(exact.sum(), wanted), func(ctx context.Context) (outcome, error) {
		un, like, release, err := j.union(ctx, u)
		if err != nil {
			return outcome{}, err
		}
		defer release()
		similar, err := j.similarKey(u, un)
		if err != nil {
			return outcome{}, err
		}
		o, ok := j.known(ctx, similar, wanted)
		if !ok {
			if o, err = j.make(ctx, u, un, like, similar.sum(), wanted); err != nil {
				return outcome{}, err
			}
			j.computed++
			if err := index(j.Dir).put(similar, o); err != nil {
				return outcome{}, fmt.Errorf("remember a layer: %w", err)
			}
		}
		if err := index(j.Dir).put(exact, o); err != nil {
			return outcome{}, fmt.Errorf("remember a layer: %w", err)
		}
		return o, nil
	})
}

// known looks an outcome up. One whose blob is gone is not known any more.
func (j *job) known(ctx context.Context, k *key, wanted bool) (outcome, bool) {
	o, ok := index(j.Dir).get(k)
	if !ok || wanted && o.Desc == nil {
		return outcome{}, false
	}
	if o.Desc != nil {
		if _, err := j.Content.Info(ctx, o.Desc.Digest); err != nil {
			index(j.Dir).drop(k)
			return outcome{}, false
		}
	}
	return o, true
}

// record is the cache's record of a layer: it holds the blob, is counted by df, and goes when it was not used for long.
// A blob that another machine made is fetched by a handler, if anything needs it.
func (j *job) record(ctx context.Context, u unit, o outcome, handler fetches) (cache.ImmutableRef, error) {
	what := "layer of " + shortened(u.steps[len(u.steps)-1].text)
	if n := len(u.steps); n > 1 {
		what = fmt.Sprintf("layer of %d steps, the last %s", n, shortened(u.steps[n-1].text))
	}
	opts := []cache.RefOption{cache.WithDescription(what)}
	if handler != nil {
		h := handler(*o.Desc)
		opts = append(opts, cache.DescHandlers{o.Desc.Digest: h})
		if h.Ref != "" {
			opts = append(opts, cache.WithImageRef(h.Ref))
		}
	}
	return j.Manager.GetByBlob(ctx, *o.Desc, nil, opts...)
}

// common begins a key with what all keys of a unit depend on.
func (j *job) common(u unit) *key {
	k := newKey()
	k.add("compression", j.comp.Type.String(), j.Compressor)
	if j.comp.Level != nil {
		k.add("level", fmt.Sprint(*j.comp.Level))
	}
	for _, s := range u.steps {
		k.add("step", fmt.Sprint(s.kind == run))
	}
	if u.runs() > 0 {
		k.add("rules", j.strip.Key())
	}
	return k
}

// exactKey is a key of the very records that a unit and all that it lies on consist of. To know it, nothing is mounted.
func (j *job) exactKey(u unit) *key {
	k := j.common(u)
	for i, ref := range j.chain[:u.last+1] {
		k.add("record", ref.ID())
		if i >= j.base {
			k.add("kind", fmt.Sprint(j.kinds[i-j.base] == run))
		}
	}
	return k
}

// similarKey is a key of the directories of the members and of what of the lower ones counts for them.
func (j *job) similarKey(u unit, un *union) (*key, error) {
	if un.trees != nil {
		return j.exactKey(u), nil
	}
	k := j.common(u)
	for _, d := range un.members {
		k.add("member", directoryID(d.path))
	}
	for _, d := range un.lower {
		switch {
		case d.projected:
			sum, err := un.project(d)
			if err != nil {
				return nil, err
			}
			k.add("files", sum)
		case d.made:
			k.add("run", directoryID(d.path))
		default:
			k.add("base", directoryID(d.path))
		}
	}
	return k, nil
}

// directoryID tells a snapshot's directory from any other that ever was. Names of snapshots are numbers, which come again when the database of snapshots is an older one (after a
// crash of the machine); the same number at the same time of birth does not.
func directoryID(dir string) string {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		// A file system that does not say when a directory was made: nothing is known again after this process.
		return dir + " of " + started
	}
	return fmt.Sprintf("%s %d %d.%09d", dir, st.Ino, st.Btime.Sec, st.Btime.Nsec)
}

// started is a text that no other process has.
var started = identity.NewID()

// union finds the directories of a unit's layers. They are there until release is called.
func (j *job) union(ctx context.Context, u unit) (un *union, like mount.Mount, release func(), err error) {
	var releases []func() error
	releaseAll := func() {
		for _, f := range slices.Backward(releases) {
			if err := f(); err != nil {
				logrus.WithError(err).Warn("release the mount of a layer")
			}
		}
	}
	defer func() {
		if err != nil {
			releaseAll()
		}
	}()
	var dirs []string
	for i := u.last; i >= u.first; i-- {
		m, rel, err := j.mount(ctx, j.chain[i])
		if err != nil {
			return nil, like, nil, err
		}
		releases = append(releases, rel)
		if withoutLayers(m, depthOf(j.chain[i])) {
			releaseAll()
			releases = nil
			un, release, err = j.trees(ctx, u)
			return un, m, release, err
		}
		list, err := layersOf(m)
		if err != nil {
			return nil, like, nil, err
		}
		if i == u.last {
			dirs, like = list, m
		} else if depth := u.last - i; len(dirs) <= depth || !slices.Equal(list, dirs[depth:]) {
			return nil, like, nil, fmt.Errorf("%w: they do not lie on each other", errUnsupported)
		}
	}
	un = &union{}
	members := u.last - u.first + 1
	oneEach := len(dirs) == u.last+1 // else some layers of those below are in one directory, or in none
	for i, d := range dirs {
		layer := u.last - i
		made := layer >= j.base && (i < members || oneEach) && j.kinds[layer-j.base] == run
		if i < members {
			read, err := contextRead(j.chain[layer], d)
			if err != nil {
				return nil, like, nil, err
			}
			un.members = append(un.members, directory{path: d, made: made, read: read})
		} else {
			un.lower = append(un.lower, directory{path: d, made: made, projected: oneEach && layer >= j.base && !made})
		}
	}
	if !j.strip.Empty() && u.runs() > 0 {
		look := un.looker()
		un.residue = func(path string) strip.Residue { return j.strip.Find(path, look) }
		un.near = j.strip.Near
	}
	return un, like, releaseAll, nil
}

func (j *job) mount(ctx context.Context, ref cache.ImmutableRef) (mount.Mount, func() error, error) {
	if err := ref.Finalize(ctx); err != nil {
		return mount.Mount{}, nil, err
	}
	mountable, err := ref.Mount(ctx, true, j.session)
	if err != nil {
		return mount.Mount{}, nil, err
	}
	mounts, release, err := mountable.Mount()
	if err != nil {
		return mount.Mount{}, nil, err
	}
	if release == nil {
		release = func() error { return nil }
	}
	if len(mounts) != 1 {
		return mount.Mount{}, nil, errors.Join(fmt.Errorf("%w: a layer has several mounts", errUnsupported), release())
	}
	return mounts[0], release, nil
}

// layersOf are the directories of a mount, the topmost first. A shared layer has one name, in whatever snapshot it is.
func layersOf(m mount.Mount) ([]string, error) {
	switch {
	case m.Type == "bind":
		return []string{snapshot.Files(m.Source)}, nil
	case m.Type == "overlay":
		layers, err := overlay.GetOverlayLayers(m)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnsupported, err)
		}
		slices.Reverse(layers)
		for i, dir := range layers {
			layers[i] = snapshot.Files(dir)
		}
		return layers, nil
	}
	return nil, fmt.Errorf("%w: the snapshotter has no overlayfs (%s)", errUnsupported, m.Type)
}

// make makes the layer of a unit.
func (j *job) make(ctx context.Context, u unit, un *union, like mount.Mount, name string, wanted bool) (o outcome, err error) {
	list, err := un.changes(ctx)
	if err != nil {
		return o, err
	}
	o.Stripped = sumUp(list)
	if !wanted && u.first == u.last && len(o.Stripped) == 0 {
		return o, nil
	}
	ctx, done, err := leaseutil.WithLease(ctx, j.Leases, leaseutil.MakeTemporary)
	if err != nil {
		return o, fmt.Errorf("hold a layer: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	desc, err := writeBlob(ctx, j.Content, j.comp, "optbuild-layer-"+name, writeTo(ctx, un, list, like))
	if err != nil {
		return o, err
	}
	o.Desc = &desc
	ref, err := j.record(ctx, u, o, nil) // from now on that holds it
	if err != nil {
		return o, fmt.Errorf("record a layer: %w", err)
	}
	return o, ref.Release(context.WithoutCancel(ctx))
}

// sumUp counts what rules left out, in the order of their names. A file of several names counts once, and not if one of them stays.
func sumUp(list []change) (stripped []Stripped) {
	stays, counted := map[uint64]bool{}, map[uint64]bool{}
	for _, c := range list {
		if n := c.inode(); n != 0 && c.rule == "" {
			stays[n] = true
		}
	}
	sums := map[string]Stripped{}
	for _, c := range list {
		if c.rule == "" || c.dir {
			continue
		}
		s := sums[c.rule]
		s.Rule = c.rule
		s.Files++
		if n := c.inode(); c.info.Mode().IsRegular() && (n == 0 || !stays[n] && !counted[n]) {
			s.Bytes += c.info.Size()
			counted[n] = n != 0
		}
		sums[c.rule] = s
	}
	for _, s := range sums {
		stripped = append(stripped, s)
	}
	slices.SortFunc(stripped, func(a, b Stripped) int { return strings.Compare(a.Rule, b.Rule) })
	return stripped
}
