package replay

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/user"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/record"
	"github.com/optbuild/optbuild/builder/trace"
)

// deferred is what a step writes to, before the layers below have been fetched. To mount it fetches them.
type deferred struct {
	cache.MutableRef // nil until it is made
	make             func(context.Context) (cache.MutableRef, error)
	mu               sync.Mutex
}

func (d *deferred) made(ctx context.Context) (cache.MutableRef, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.MutableRef == nil {
		r, err := d.make(ctx)
		if err != nil {
			return nil, err
		}
		d.MutableRef = r
	}
	return d.MutableRef, nil
}

func (d *deferred) Mount(ctx context.Context, readonly bool, g session.Group) (snapshot.Mountable, error) {
	r, err := d.made(ctx)
	if err != nil {
		return nil, err
	}
	return r.Mount(ctx, readonly, g)
}

func (d *deferred) Commit(ctx context.Context) (cache.ImmutableRef, error) {
	r, err := d.made(ctx)
	if err != nil {
		return nil, err
	}
	return r.Commit(ctx)
}

func (d *deferred) Release(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.MutableRef == nil {
		return nil
	}
	return d.MutableRef.Release(ctx)
}

func (d *deferred) ID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.MutableRef == nil {
		return "nothing yet"
	}
	return d.MutableRef.ID()
}

func (d *deferred) IdentityMapping() *user.IdentityMapping {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.MutableRef == nil {
		return nil
	}
	return d.MutableRef.IdentityMapping()
}

// late replays a step from elsewhere although the layers below it have not been fetched. If that can't be done they are: false.
func (st *step) late(ctx context.Context) bool {
	e := st.r.others
	st.mu.Lock()
	parent, cm, g, root := st.parent, st.cm, st.session, st.root
	st.mu.Unlock()
	if e == nil || root != nil || parent == nil || st.refuses != nil || slices.Contains(narrow, st.architecture) || st.op.Security == pb.SecurityMode_INSECURE {
		return false
	}
	in, err := st.examineLate(ctx, parent, cm, g)
	if err != nil {
		logrus.WithError(err).Debugf("layers are fetched for %s", st.name)
	}
	if err != nil || in == nil {
		return false
	}
	return st.elsewhere(ctx, in)
}

// examineLate is examine for layers that are known by their records alone. It returns nil where files would have to be looked at that are not here.
func (st *step) examineLate(ctx context.Context, parent cache.ImmutableRef, cm cache.Manager, g session.Group) (*inputs, error) {
	for _, m := range st.op.Mounts {
		if m.Dest != pb.RootMount && (m.MountType == pb.MountType_CACHE && !st.travels || m.MountType == pb.MountType_BIND && m.Input >= 0) {
			return nil, nil
		}
	}
	list := parent.LayerChain()
	defer list.Release(context.WithoutCancel(ctx))
	if len(st.chain) == 0 || len(list) < len(st.chain) {
		return nil, nil
	}
	dgst, err := st.digest(ctx)
	if err != nil {
		return nil, err
	}
	k := newKey(st)
	k.carry("platform", st.platform)
	k.carry("exec", dgst)
	st.describe(k)
	in := &inputs{}
	records := st.records(len(list))
	defer records.release(ctx)
	for i, l := range st.chain {
		ref := list[len(list)-1-i]
		label := "the result of " + shortened(l.name)
		if l.copies {
			dir, err := st.r.files.Alone(ctx, cm, ref, g)
			if err != nil {
				return nil, err
			}
			k.carry(label, "watched")
			in.watched = append(in.watched, watched{dir: dir, name: l.name})
			continue
		}
		if !l.shares {
			w, sum, err := st.lateContent(ctx, i, ref, g, in, records)
			if err != nil {
				return nil, err
			}
			if sum == resultSum {
				in.watched = append(in.watched, w)
			}
			if sum != "" {
				k.carrySum(label, sum, i)
				continue
			}
		}
		if id := ref.GetString(record.Stored); id != "" {
			k.carry(label, "stored "+id)
			continue
		}
		k.carryLayer(label, i)
	}
	k.carryLayer(baseField, len(st.chain))
	for _, m := range st.op.Mounts {
		if m.Dest != pb.RootMount {
			k.carryMount(m)
		}
	}
	if len(in.watched) == 0 {
		return nil, nil
	}
	in.record, in.portable = k.record(), k.carried
	return in, nil
}

// sumOf is what a small layer is known by; "" if it is not known, or not small.
func (st *step) sumOf(ref cache.ImmutableRef, ids []string) string {
	if dir := st.r.files.Dir(ref.ID()); dir != "" {
		sum, small, err := trace.Tree(dir, smallLayer)
		if err == nil && small {
			return fmt.Sprintf("files %x", sum)
		}
		return ""
	}
	return st.r.others.Sum(ids, ref.GetString(record.DiffID))
}
