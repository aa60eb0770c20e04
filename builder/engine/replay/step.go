package replay

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/engine/lazypull"
	"github.com/optbuild/optbuild/builder/engine/mounts"
	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/builder/trace/store"
	"github.com/optbuild/optbuild/snapshot"
)

// step is one RUN on its way through the solver.
type step struct {
	r        *Replayer
	name     string // as users know it
	vertex   string
	op       *pb.ExecOp
	platform string
	// architecture is empty for the machine's own.
	architecture string
	project      string
	args         []string // names of the build arguments that it is given
	noCache      bool
	chain        []link   // of the root file system, see chainOf
	files        []int    // see fileLayers
	shared       []string // places of mounts that are made by steps with which this one shares a cache mount
	built        []string // places of mounts that steps made, and not a context
	digest       func(context.Context) (string, error)

	refuses error // why it can't be watched, as far as its mounts tell

	// mounts are the keys of the archives of its cache mounts. Where they travel, a step that needs what this one leaves there finds it also on a machine where this one was replayed.
	mounts  []mounts.Key
	travels bool

	mu   sync.Mutex
	root *snapshot.Prepared // the snapshot that the step writes to; nil until it is made
	// What root was made with.
	cm      cache.Manager
	session session.Group
	parent  cache.ImmutableRef // released when the step has ended
	// deferred is what root will be made of, where the layers below have not been fetched; nil where they have.
	deferred *deferred
	stored   string             // the stored layer that root is an alias of
	layer    string             // the stored layer that the step made now, or that it is an alias of
	instead  cache.ImmutableRef // what another machine made, in place of root

	// What it depended on when it ran, or was replayed.
	portable []carried // see elsewhere.go; nil: it means nothing elsewhere
	watched  []watched
}

func newStep(r *Replayer, v solver.Vertex, op *pb.ExecOp, platform *pb.Platform, project string) *step {
	st := &step{
		r: r, name: stepName(v), vertex: v.Digest().String(), op: op, project: project,
		args:    strings.Split(v.Options().Description[ArgsKey], ","),
		noCache: v.Options().IgnoreCache,
	}
	if platform != nil {
		st.architecture = platform.Architecture
		st.platform = platforms.FormatAll(ocispecs.Platform{
			OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant, OSVersion: platform.OSVersion, OSFeatures: platform.OSFeatures,
		})
	}
	for _, m := range op.Mounts {
		if m.Dest == pb.RootMount {
			st.chain = chainOf(v, m.Input)
			st.files = fileLayers(v, m.Input)
		} else if in, ok := inputOf(v, m.Input); ok && !onlyContext(in.Vertex, 0) {
			st.built = append(st.built, m.Dest)
			if sharesBelow(in.Vertex, cacheMounts(op)) {
				st.shared = append(st.shared, m.Dest)
			}
		}
	}
	st.refuses = st.checkMounts()
	st.mounts, st.travels = mounts.Keys(v, op, platform)
	return st
}

func (st *step) prepare(p snapshot.Prepared) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.root = &p
}

// slot identifies the step from build to build, whatever it depends on: where what is known of its last run is kept. The command has no
// values of variables in it, as the name may have.
func (st *step) slot() [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "step\x00%s\x00%s\x00%q", st.project, st.platform, st.op.Meta.Args))
}

// watched is a directory of which the step sees a view instead.
type watched struct {
	dir  string
	name string // of the step that made it, for people
	dest string // of the bind mount that it is for; "" if it is a layer of the root file system
	// result is true of what a RUN left, stored is the id of the stored layer that it is, "" if it is none. One from another machine may have no directory here.
	result bool
	stored string
}

// inputs are all that a step depends on.
type inputs struct {
	weak    [32]byte  // the key of what is not watched
	watched []watched // layers of the root file system, topmost first, then bind mounts
	record  store.StepRecord

	portable []carried // nil if the step depends on what only this machine has
}

// unwatchable is a fact for which a step is not watched.
type unwatchable string

func (u unwatchable) Error() string { return string(u) }

// nothingCopied is the fact for which nobody needs to be told that a step was not watched: BuildKit's own key is precise enough.
const nothingCopied = unwatchable("nothing of the context is below it")

// examine finds out what the step depends on. An unwatchable error says why it can't be watched.
func (st *step) examine(ctx context.Context, mounts []executor.Mount) (*inputs, error) {
	st.mu.Lock()
	root := st.root
	st.mu.Unlock()
	switch {
	case len(st.chain) == 0 && !slices.ContainsFunc(st.op.Mounts, func(m *pb.Mount) bool {
		return m.Dest != pb.RootMount && m.MountType == pb.MountType_BIND && m.Input >= 0
	}):
		return nil, nothingCopied
	case slices.Contains(narrow, st.architecture):
		return nil, unwatchable("it is of a 32-bit architecture")
	case st.op.Security == pb.SecurityMode_INSECURE:
		return nil, unwatchable("it has the security of the host")
	case st.refuses != nil:
		return nil, st.refuses
	case root == nil:
		return nil, unwatchable("its root file system is not one of layers")
	case len(root.Lower) < len(st.chain):
		return nil, unwatchable("its layers are not those of its steps")
	}
	dgst, err := st.digest(ctx)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", st.name, err)
	}
	k := newKey(st)
	k.add("exec", dgst)
	k.carry("platform", st.platform)
	k.carry("exec", dgst)
	st.describe(k)
	in := &inputs{}
	records := st.records(len(root.Lower))
	defer records.release(ctx)
	for i, l := range st.chain {
		dir := root.Lower[i]
		label := "the result of " + shortened(l.name)
		if !l.copies && !l.shares {
			sum, err := st.content(l, dir.Path, records.read(i), in)
			if err != nil {
				return nil, fmt.Errorf("read layer of %s: %w", l.name, err)
			}
			if sum == resultSum {
				in.watched = append(in.watched, watched{dir: dir.Path, name: l.name, result: true, stored: cmp.Or(dir.Shared, records.stored(i))})
			}
			if sum != "" {
				k.add(label, sum)
				k.carrySum(label, sum, i)
				continue
			}
		}
		byName := l.exec || l.shares
		if !byName && !l.copies {
			if byName, err = st.r.linked(dir.Path); err != nil {
				return nil, fmt.Errorf("read layer of %s: %w", l.name, err)
			}
		}
		switch {
		case dir.Shared != "":
			k.add(label, "stored "+dir.Shared)
			k.carry(label, "stored "+dir.Shared)
		case byName:
			k.add(label, "snapshot "+dir.Number)
			k.carryLayer(label, i)
		default:
			k.add(label, "watched")
			k.carry(label, "watched")
			in.watched = append(in.watched, watched{dir: dir.Path, name: l.name})
		}
	}
	k.add("base", identity(root.Lower[len(st.chain):]))
	k.carryLayer(baseField, len(st.chain))
	if err := st.examineMounts(ctx, mounts, in, k); err != nil {
		return nil, err
	}
	if len(in.watched) == 0 {
		return nil, nothingCopied
	}
	in.weak = k.sum()
	in.record = k.record()
	if !k.local {
		in.portable = k.carried
	}
	return in, nil
}

// shortened is the name of a step for labels and messages.
func shortened(name string) string {
	const most = 60 // characters
	name = strings.Join(strings.Fields(name), " ")
	if r := []rune(name); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return name
}

// identity names directories that lie on each other. A snapshot never changes its parents, so its number stands for all that is below it. A stored layer's id
// does not: images that were built here may have it on different COPYs.
func identity(lower []snapshot.Directory) string {
	var names []string
	for _, d := range lower {
		if d.Shared == "" {
			return strings.Join(append(names, "snapshot "+d.Number), " on ")
		}
		names = append(names, "stored "+d.Shared)
	}
	return strings.Join(append(names, "nothing"), " on ")
}

// narrow are architectures whose older programs can't be told the inode numbers that files have in an overlay of views: they have 64 bits.
var narrow = []string{"386", "arm", "mips", "mipsle", "ppc"}

// smallLayer is how large a layer of a file operation may be to be known by its content: those of WORKDIR have a directory or two.
var smallLayer = trace.Limits{Entries: 64, Bytes: 1 << 20}

// emptyLayer is what a RUN leaves that only looks: tests, a linter. It is known by its content, so that what comes after such a step does not run again because the
// step did. A layer with files is not: they have new times, and what was made from them would look older. Nor is that of a step with cache mounts, which may have
// left there what the next one takes.
//
// Where the base has no /etc/hosts, they are mounted on files that BuildKit makes and removes: what is left is the directory, as it was below, with its times.
func emptyLayer(dir string) (trace.Limits, error) {
	const mountPoints = "etc"
	inside, err := os.ReadDir(filepath.Join(dir, mountPoints))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return trace.Limits{}, nil
		}
		return trace.Limits{}, err
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) > 1 || len(inside) > 0 {
		return trace.Limits{}, err
	}
	return trace.Limits{Entries: 1}, nil
}

// checkMounts refuses mounts that could carry something from the step into another one, or that are made for it alone.
func (st *step) checkMounts() error {
	outputs := 0
	places := map[string]bool{}
	for _, m := range st.op.Mounts {
		if places[path.Clean(m.Dest)] {
			return unwatchable("two of its mounts have the same place, " + m.Dest)
		}
		places[path.Clean(m.Dest)] = true
		if m.Output != int64(pb.SkipOutput) && m.MountType != pb.MountType_SECRET && m.MountType != pb.MountType_SSH { // which have one without meaning it
			outputs++
			if m.Dest != pb.RootMount || m.Readonly {
				return unwatchable("it has other results than its root file system")
			}
		}
		switch m.MountType {
		case pb.MountType_BIND:
			if m.Dest != pb.RootMount && !m.Readonly {
				return unwatchable("its bind mount " + m.Dest + " is writable")
			}
		case pb.MountType_CACHE:
			if m.Input >= 0 {
				return unwatchable("its cache mount " + m.Dest + " starts from files")
			}
		case pb.MountType_SECRET, pb.MountType_SSH, pb.MountType_TMPFS:
		default:
			return unwatchable("it has a mount of a kind that is not known: " + m.MountType.String())
		}
	}
	if outputs != 1 {
		return unwatchable("it has no result of its own")
	}
	return nil
}

// examineMounts adds what is mounted besides the root file system: files of the context are watched, those of stages known by their layers.
func (st *step) examineMounts(ctx context.Context, mounts []executor.Mount, in *inputs, k *key) error {
	for _, m := range st.op.Mounts {
		if m.Dest == pb.RootMount {
			continue
		}
		label := "mount " + m.Dest
		k.add(label, fmt.Sprintf("%s selector %q", m.MountType, m.Selector))
		k.carryMount(m)
		if m.CacheOpt != nil {
			k.add(label, fmt.Sprintf("cache %q %s", m.CacheOpt.ID, m.CacheOpt.Sharing))
		}
		if m.MountType != pb.MountType_CACHE && (m.MountType != pb.MountType_BIND || m.Input < 0) {
			continue
		}
		i := slices.IndexFunc(mounts, func(e executor.Mount) bool { return e.Dest == m.Dest && e.Selector == m.Selector })
		if i < 0 {
			return unwatchable("its mount " + m.Dest + " is not where it was asked for")
		}
		dir, layers, err := st.bindDirectories(ctx, mounts[i])
		if err != nil {
			return err
		}
		if m.MountType == pb.MountType_CACHE {
			// What the step left there a later one may need: if the mount was pruned, the step runs, as it would if it had not been replayed.
			k.add(label, "directory "+dir+layers)
			k.local = k.local || !st.travels
			continue
		}
		byName := slices.Contains(st.shared, m.Dest)
		if dir != "" && !byName && slices.Contains(st.built, m.Dest) {
			if byName, err = st.r.linked(dir); err != nil {
				return fmt.Errorf("read mount %s: %w", m.Dest, err)
			}
		}
		if byName && dir != "" {
			dir, layers = "", dir
		}
		if dir != "" {
			k.add(label, "watched")
			k.carry(label, "watched")
			in.watched = append(in.watched, watched{dir: dir, name: label, dest: m.Dest})
		} else {
			k.add(label, layers)
			k.local = true
		}
	}
	return nil
}

// bindDirectories says what a bind mount consists of: one directory, which is watched, or several layers, which are known by their names.
func (st *step) bindDirectories(ctx context.Context, m executor.Mount) (dir, layers string, err error) {
	src, err := m.Src.Mount(lazypull.ForStep(ctx, m.Selector), true)
	if err != nil {
		return "", "", err
	}
	list, release, err := src.Mount()
	if err != nil {
		return "", "", err
	}
	if release != nil {
		defer release()
	}
	if len(list) != 1 {
		return "", "", unwatchable("its mount " + m.Dest + " is made of several")
	}
	if list[0].Type == "bind" {
		return snapshot.Files(list[0].Source), "", nil
	}
	for _, o := range list[0].Options {
		if lower, ok := strings.CutPrefix(o, "lowerdir="); ok {
			dirs := strings.Split(lower, ":")
			for i, dir := range dirs {
				dirs[i] = snapshot.Files(dir)
			}
			return "", strings.Join(dirs, ":"), nil // directories of layers are never used for others
		}
	}
	return "", "", unwatchable("its mount " + m.Dest + " is not one of layers")
}
