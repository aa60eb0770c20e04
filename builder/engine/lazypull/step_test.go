package lazypull

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/sys/user"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/snapshot"
)

// puller returns one with a snapshotter that has, for each name, a committed snapshot with that remote layer, and the layers.
func puller(t *testing.T, names ...string) (*Puller, map[string]layer) {
	t.Helper()
	root := t.TempDir()
	choice, err := snapshot.Choose(root, "overlayfs")
	if err != nil {
		t.Fatal(err)
	}
	sn, err := choice.New(filepath.Join(root, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sn.Close() })
	layers := sn.(*snapshot.Layers)
	p := &Puller{o: Options{Layers: layers}, sources: map[string]*source{}}
	layers.SetRemote(func(id string, _ []byte) error { return os.MkdirAll(layers.RemotePath(id), 0o755) })
	all := map[string]layer{}
	for _, name := range names {
		l := layer{Ref: "registry/" + name, Digest: digest.FromString(name), TOC: digest.FromString(name + "'s table")}
		all[name] = l
		p.sources[l.id()] = &source{layer: l, p: p}
		if _, err := layers.Prepare(t.Context(), name+"-active", ""); err != nil {
			t.Fatal(err)
		}
		if err := layers.Defer(t.Context(), name+"-active", l.id(), nil); err != nil {
			t.Fatal(err)
		}
		if err := layers.Commit(t.Context(), name, name+"-active"); err != nil {
			t.Fatal(err)
		}
	}
	return p, all
}

// mounts is a Mountable that asks the snapshotter with the step's context, as BuildKit does for the first mount of a snapshot.
type mounts struct {
	layers *snapshot.Layers
	key    string
	given  []mount.Mount // in place of the snapshotter's
}

func (m mounts) Mount(ctx context.Context, _ bool) (executor.MountableRef, error) {
	if m.key == "" {
		return mountedRef{m.given}, nil
	}
	list, err := m.layers.Mounts(ctx, m.key)
	if m.given != nil {
		list = m.given
	}
	return mountedRef{list}, err
}

type mountedRef struct{ list []mount.Mount }

func (r mountedRef) Mount() ([]mount.Mount, func() error, error) {
	return r.list, func() error { return nil }, nil
}
func (mountedRef) IdentityMapping() *user.IdentityMapping { return nil }

// mounting is an executor that mounts all, as the real one does, and is then a step.
type mounting struct {
	executor.Executor
	run func(context.Context) error
}

func (m mounting) Run(ctx context.Context, _ string, root executor.Mount, list []executor.Mount, _ executor.ProcessInfo, _ chan<- struct{}) (resourcestypes.Recorder, error) {
	for _, e := range append([]executor.Mount{root}, list...) {
		if e.Src == nil {
			continue
		}
		ref, err := e.Src.Mount(ctx, e.Readonly)
		if err != nil {
			return nil, err
		}
		if _, _, err := ref.Mount(); err != nil {
			return nil, err
		}
	}
	return nil, m.run(ctx)
}

// prepared returns a root on the remote layer.
func (p *Puller) prepared(t *testing.T, on string) mounts {
	t.Helper()
	key := "step-" + on
	if _, err := p.o.Layers.Prepare(t.Context(), key, on); err != nil {
		t.Fatal(err)
	}
	return mounts{layers: p.o.Layers, key: key}
}

// TestStep: a layer that can't be read fails the steps that have it, in their root or in any mount and however that came about, and no others.
func TestStep(t *testing.T) {
	p, all := puller(t, "own", "other")
	view, err := p.o.Layers.View(t.Context(), "view", "own")
	if err != nil {
		t.Fatal(err)
	}
	scratch, err := p.o.Layers.Prepare(t.Context(), "scratch", "")
	if err != nil {
		t.Fatal(err)
	}
	base := p.prepared(t, "own")
	shown := base
	shown.given = []mount.Mount{{Type: "overlay", Options: []string{"lowerdir=/view"}}} // what was asked for was replaced
	pool := base
	pool.given = []mount.Mount{{Type: "bind", Source: t.TempDir()}} // an overlay that is mounted there
	pooled := mounts{given: []mount.Mount{{Type: "bind", Source: t.TempDir()}}}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	local := executor.Mount{Src: mounts{given: scratch}}
	for _, tc := range []struct {
		name  string
		root  executor.Mount
		mount executor.Mount
		fails []string // for layers
	}{
		{"root", executor.Mount{Src: base}, executor.Mount{}, []string{"own"}},
		{"root with a view", executor.Mount{Src: shown}, executor.Mount{}, []string{"own"}},
		{"root in the mount pool", executor.Mount{Src: pool}, executor.Mount{}, []string{"own"}},
		{"mounted before", local, executor.Mount{Src: mounts{given: view}}, []string{"own"}},
		{"mounted before in the mount pool", local, executor.Mount{Src: pooled}, []string{"own", "other"}},
		{"none", local, executor.Mount{Src: mounts{given: []mount.Mount{{Type: "bind", Source: secret}, {Type: "tmpfs", Source: "tmpfs"}}}}, nil},
	} {
		for name, l := range all {
			t.Run(tc.name+"/"+name, func(t *testing.T) {
				e := p.Executor(mounting{run: func(context.Context) error {
					p.Failed(l.id(), "gone")
					return nil // it hides the error
				}})
				_, err := e.Run(t.Context(), "", tc.root, []executor.Mount{tc.mount}, executor.ProcessInfo{}, nil)
				want := false
				for _, f := range tc.fails {
					want = want || f == name
				}
				if (err != nil) != want || want && !strings.Contains(err.Error(), "registry/"+name) {
					t.Errorf("failed: %v, want %v", err, want)
				}
			})
		}
	}
}

// TestStepEnds: a step ends when its layer can't be read, not when another one can't, and says why and not how it ended.
func TestStepEnds(t *testing.T) {
	p, all := puller(t, "own", "other")
	ended := errors.New("exit code 137")
	e := p.Executor(mounting{run: func(ctx context.Context) error {
		for range 3 { // each wakes up what waits
			p.Failed(all["other"].id(), "gone")
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.Failed(all["own"].id(), "gone")
		<-ctx.Done()
		return ended
	}})
	_, err := e.Run(t.Context(), "", executor.Mount{Src: p.prepared(t, "own")}, nil, executor.ProcessInfo{}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "a layer of registry/own can't be read any more") || errors.Is(err, ended) || !strings.Contains(err.Error(), ended.Error()) {
		t.Errorf("got %v", err)
	}
	// What was before it is not its business.
	e = p.Executor(mounting{run: func(ctx context.Context) error { return ctx.Err() }})
	if _, err := e.Run(t.Context(), "", executor.Mount{Src: mounts{layers: p.o.Layers, key: "step-own"}}, nil, executor.ProcessInfo{}, nil); err != nil {
		t.Errorf("the next step: %v", err)
	}
}

// TestServerEnded: when the process that shows layers ends, all steps with such layers fail, and no others.
func TestServerEnded(t *testing.T) {
	p, _ := puller(t, "own")
	for name, root := range map[string]mounts{"own": p.prepared(t, "own"), "none": {given: []mount.Mount{{Type: "tmpfs"}}}} {
		e := p.Executor(mounting{run: func(context.Context) error {
			p.serverEnded(errors.New("killed"))
			return nil
		}})
		_, err := e.Run(t.Context(), "", executor.Mount{Src: root}, nil, executor.ProcessInfo{}, nil)
		if (err != nil) != (name == "own") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestCacheFails: what can't be read of a shared cache is said in its words, by which the build is made again without it.
func TestCacheFails(t *testing.T) {
	p, all := puller(t, "own")
	l := all["own"]
	l.Cache = true
	p.fail(l, "gone")
	err := p.failures.since(0, func(string) bool { return true })
	if err == nil || !strings.Contains(err.Error(), l.Digest.String()) || strings.Contains(err.Error(), "a layer of") {
		t.Errorf("got %v", err)
	}
}

// TestFailures: the earliest after so many, of the layers asked for only, and waking at each.
func TestFailures(t *testing.T) {
	var f failures
	one, two, three := errors.New("1"), errors.New("2"), errors.New("3")
	any := func(string) bool { return true }
	n, next := f.coming()
	if n != 0 || f.since(n, any) != nil {
		t.Fatal("there are some")
	}
	f.add("a", one)
	f.add("b", two)
	select {
	case <-next:
	default:
		t.Error("nobody was told")
	}
	if n, next = f.coming(); n != 2 {
		t.Errorf("%d of 2", n)
	}
	select {
	case <-next:
		t.Error("told without need")
	default:
	}
	only := func(id string) func(string) bool { return func(other string) bool { return id == other } }
	for _, tc := range []struct {
		after int
		asked func(string) bool
		want  error
	}{{0, any, one}, {1, any, two}, {2, any, nil}, {0, only("b"), two}, {2, only("b"), nil}, {0, only("c"), nil}} {
		if got := f.since(tc.after, tc.asked); !errors.Is(got, tc.want) {
			t.Errorf("after %d: %v, want %v", tc.after, got, tc.want)
		}
	}
	f.add("a", three)
	if got := f.since(2, any); !errors.Is(got, three) {
		t.Errorf("the second time: %v", got)
	}
}
