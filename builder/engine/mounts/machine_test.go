package mounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	ctdmount "github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/user"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// directoryStore keeps archives in a directory.
type directoryStore struct {
	content.Store
	mu    sync.Mutex
	found map[string]Archive
	sent  map[string]Archive
	adds  int
	fails error
}

func newDirectoryStore(t *testing.T) *directoryStore {
	s, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &directoryStore{Store: s, found: map[string]Archive{}, sent: map[string]Archive{}}
}

func (s *directoryStore) Find(_ context.Context, key string) (Archive, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.found[key]
	return a, ok, s.fails
}

func (s *directoryStore) Send(ctx context.Context, key string, a Archive, fresh content.Provider) error {
	for _, d := range a.Fresh {
		ra, err := fresh.ReaderAt(ctx, d)
		if err != nil {
			return err
		}
		err = content.WriteBlob(ctx, s.Store, d.Digest.String(), content.NewReader(ra), ocispecs.Descriptor{Digest: d.Digest, Size: d.Size})
		if err = errors.Join(err, ra.Close()); err != nil {
			return err
		}
	}
	for _, d := range append([]ocispecs.Descriptor{a.Manifest}, a.Holds...) {
		if _, err := s.Info(ctx, d.Digest); err != nil {
			return fmt.Errorf("an archive without its blob: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[key] = a
	s.adds++
	return nil
}

func (s *directoryStore) Commit(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.found, s.sent)
	clear(s.sent)
	return nil
}

// vertex is a step of a definition.
type vertex struct {
	op      *pb.Op
	options solver.VertexOptions
	inputs  []solver.Edge
}

func (v *vertex) Digest() digest.Digest         { return digest.FromString(v.op.String()) }
func (v *vertex) Sys() any                      { return v.op }
func (v *vertex) Options() solver.VertexOptions { return v.options }
func (v *vertex) Inputs() []solver.Edge         { return v.inputs }
func (v *vertex) Name() string                  { return "a step" }

func source(identifier string) solver.Edge {
	return solver.Edge{Vertex: &vertex{op: &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: identifier}}}}}
}

// made is what BuildKit makes a mount with an owner of its own start from.
func made(owner string) solver.Edge {
	mkdir := &pb.FileActionMkDir{Path: "/cache", Mode: 0o755, Owner: &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: owner}}}}}
	return solver.Edge{Vertex: &vertex{op: &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{{Action: &pb.FileAction_Mkdir{Mkdir: mkdir}}}}}}}}
}

// run is a RUN with one cache mount, on an image, beside a context if it copies.
func run(id, target string, copies bool) *vertex {
	op := &pb.ExecOp{Mounts: []*pb.Mount{
		{Dest: "/", Input: 0, Output: 0},
		{Dest: target, Input: -1, Output: -1, MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "/" + id}},
	}}
	v := &vertex{op: &pb.Op{Op: &pb.Op_Exec{Exec: op}, Platform: &pb.Platform{OS: "linux", Architecture: "amd64"}}, inputs: []solver.Edge{source("docker-image://base")}}
	if copies {
		v.inputs = append(v.inputs, source("local://context"))
	}
	return v
}

// folder is a mount of a directory.
type folder string

func (f folder) Mount(context.Context, bool) (executor.MountableRef, error) { return folderRef(f), nil }

type folderRef string

func (f folderRef) Mount() ([]ctdmount.Mount, func() error, error) {
	return []ctdmount.Mount{{Type: "bind", Source: string(f), Options: []string{"rbind"}}}, nil, nil
}

func (f folderRef) IdentityMapping() *user.IdentityMapping { return nil }

// machine has mounts of its own.
type machine struct {
	t      *testing.T
	k      *Keeper
	dir    string // of the mounts
	build  *Build
	said   []string
	copied []string
}

func newMachine(t *testing.T, s Source) *machine {
	m := &machine{t: t, dir: filepath.Join(t.TempDir(), "snapshots")}
	m.build = m.newBuild(s)
	var err error
	m.k, err = New(Options{
		Dir:    t.TempDir(),
		Builds: func(session.Group) []*Build { return []*Build{m.build} },
		Copied: func(context.Context) ([]string, bool) { return m.copied, m.copied != nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) newBuild(s Source) *Build {
	return &Build{Source: s, Warn: func(s string) { m.said = append(m.said, s) }}
}

// mount is the directory of a mount.
func (m *machine) mount(number string) string {
	dir := filepath.Join(m.dir, number, "fs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	return dir
}

type runFunc func() error

func (f runFunc) Run(context.Context, string, executor.Mount, []executor.Mount, executor.ProcessInfo, chan<- struct{}) (resourcestypes.Recorder, error) {
	return nil, f()
}
func (runFunc) Exec(context.Context, string, executor.ProcessInfo) error { return nil }

// step runs a step whose mount is in a directory.
func (m *machine) step(v *vertex, dir string, f func() error) error {
	exec := v.op.GetExec()
	st := &step{k: m.k, mounts: cacheMounts(v, exec, v.op.Platform), noCache: v.options.IgnoreCache, context: seesContext(v), session: session.NewGroup("s")}
	var list []executor.Mount
	for _, x := range st.mounts {
		list = append(list, executor.Mount{Src: folder(dir), Dest: x.Dest, Selector: x.Selector, Readonly: x.Readonly})
	}
	if f == nil {
		f = func() error { return nil }
	}
	_, err := (&stepExecutor{runFunc(f), st}).Run(m.t.Context(), "", executor.Mount{}, list, executor.ProcessInfo{}, nil)
	return err
}

func (m *machine) save(s Store) {
	m.t.Helper()
	if err := m.k.Save(m.t.Context(), m.build, s); err != nil {
		m.t.Fatal(err)
	}
}

// writes returns a step that writes a file.
func writes(path, text string) func() error {
	return func() error { return os.WriteFile(path, []byte(text), 0o644) }
}

// has lists a directory.
func (m *machine) has(dir string) string {
	m.t.Helper()
	files := map[string]string{}
	list, err := os.ReadDir(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			m.t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	var s []string
	for _, n := range slices.Sorted(maps.Keys(files)) {
		s = append(s, n+"="+files[n])
	}
	return strings.Join(s, " ")
}

// seen is what a step sees in its mount.
func (m *machine) seen(v *vertex, dir string) string {
	m.t.Helper()
	var got string
	if err := m.step(v, dir, func() error { got = m.has(dir); return nil }); err != nil {
		m.t.Fatal(err)
	}
	return got
}
