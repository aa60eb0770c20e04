package engine

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/builder/export"
	"github.com/optbuild/optbuild/builder/profile"
)

// Layers are compressed while the steps after them run. What is known when:
//
//	the frontend returns    the image's configuration, and which steps its layers come from (nothing has run by then)
//	a step begins           the layers below it are finished: they are made as the export will want them, merged or not, in the background
//	they are compressed     if the image is pushed to a registry, they are sent (uploads)
//	a RUN begins on RUNs    the layer that all of them may become is rehearsed: what is compressed for that is remembered (export.Merger.Rehearse)
//	the export begins       what is finished is found, what is under way is waited for
//
// Only builds that say that an image will leave ([compress.AttrExport]) are looked at, and only the steps of its own layers. One layer is compressed at a time, on all cores but one.

// eager compresses layers in the background, and sends them. Its methods may be called concurrently.
type eager struct {
	merger  *export.Merger
	uploads *uploads
	memo    *compress.Memo
	ctx     context.Context
	cancel  context.CancelFunc
	slot    chan struct{}

	mu        sync.Mutex
	ended     bool
	work      sync.WaitGroup
	steps     map[digest.Digest]position
	images    []*unfinished      // the oldest first
	rehearsal context.CancelFunc // of the one under way; may be nil
}

// unfinished is an image that is going to be exported.
type unfinished struct {
	export.Unfinished
	steps     []layerStep // that its layers come from, the lowest first
	upload    *upload     // nil if it is not pushed
	rehearsed export.Rehearsed
}

// layerStep is a vertex whose result is a layer of an image.
type layerStep struct {
	vertex digest.Digest
	kind   stepKind
}

type stepKind int

const (
	files stepKind = iota // COPY, ADD
	run                   // RUN
	dirs                  // WORKDIR, which does not keep RUNs apart
)

// position is a step's place in an image.
type position struct {
	image *unfinished
	index int
}

// maxUnfinished is how many images are remembered. What belongs to forgotten ones is compressed by the export.
const maxUnfinished = 64

func newEager(m *export.Merger, u *uploads, memo *compress.Memo) *eager {
	e := &eager{merger: m, uploads: u, memo: memo, slot: make(chan struct{}, 1), steps: map[digest.Digest]position{}}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// Close cancels what is under way and returns when it has ended.
func (e *eager) Close() {
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	e.cancel()
	e.work.Wait()
}

// frontend returns build with a look at what it makes.
func (e *eager) frontend(build gwclient.BuildFunc) gwclient.BuildFunc {
	return func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		attrs, ok := compress.ParseExport(c.BuildOpts().Opts)
		if !ok {
			return build(ctx, c)
		}
		comp, err := compression.ParseAttributes(attrs)
		if err != nil {
			return build(ctx, c) // the exporter says so
		}
		first, err := profile.TakePrioritized(attrs)
		if err != nil {
			return build(ctx, c)
		}
		comp = ours(comp, compress.TakeChunked(attrs), first, compress.Options{Cores: max(1, runtime.GOMAXPROCS(0)-1), Memo: e.memo})
		looking := &lookingClient{Client: c, steps: map[gwclient.Reference][]layerStep{}}
		res, err := build(ctx, looking)
		if err != nil {
			return nil, err
		}
		ps, err := exptypes.ParsePlatforms(res.Metadata)
		if err != nil {
			return res, nil
		}
		upload := e.uploads.begin(ctx, c.BuildOpts().SessionID, attrs)
		for _, p := range ps.Platforms {
			ref, ok := res.FindRef(p.ID)
			if !ok {
				continue
			}
			e.expect(&unfinished{Unfinished: export.Unfinished{
				Config:     exptypes.ParseKey(res.Metadata, exptypes.ExporterImageConfigKey, &p),
				BaseConfig: exptypes.ParseKey(res.Metadata, exptypes.ExporterImageBaseConfigKey, &p),
				Off:        string(res.Metadata[export.OffKey]), Attrs: attrs, Compression: comp,
			}, steps: looking.steps[ref], upload: upload, rehearsed: export.Rehearsed{}})
		}
		return res, nil
	}
}

// lookingClient notes what a frontend has solved.
type lookingClient struct {
	gwclient.Client
	mu    sync.Mutex
	steps map[gwclient.Reference][]layerStep
}

func (c *lookingClient) Solve(ctx context.Context, req gwclient.SolveRequest) (*gwclient.Result, error) {
	res, err := c.Client.Solve(ctx, req)
	if err == nil && req.Definition != nil && res.Ref != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.steps[res.Ref] = layerSteps(req.Definition)
	}
	return res, err
}

// layerSteps follows a result down to what it began with.
func layerSteps(def *pb.Definition) (steps []layerStep) {
	ops := map[digest.Digest]*pb.Op{}
	var at digest.Digest
	for _, b := range def.Def {
		op := &pb.Op{}
		if err := op.UnmarshalVT(b); err != nil {
			return nil
		}
		at = digest.FromBytes(b)
		ops[at] = op
	}
	for input := int64(0); ; { // the last vertex has the result as its only input
		op := ops[at]
		if op == nil || input < 0 || int(input) >= len(op.Inputs) {
			break
		}
		at = digest.Digest(op.Inputs[input].Digest)
		s := layerStep{vertex: at}
		switch below := ops[at].GetOp().(type) {
		case *pb.Op_Exec:
			i := slices.IndexFunc(below.Exec.Mounts, func(m *pb.Mount) bool { return m.Dest == pb.RootMount })
			if i < 0 {
				return steps
			}
			s.kind, input = run, below.Exec.Mounts[i].Input
		case *pb.Op_File:
			if len(below.File.Actions) == 0 {
				return steps
			}
			s.kind, input = dirs, below.File.Actions[0].Input
			for _, a := range below.File.Actions {
				if a.GetMkdir() == nil {
					s.kind = files
				}
			}
		case *pb.Op_Merge:
			if len(below.Merge.Inputs) == 0 {
				return steps
			}
			input = below.Merge.Inputs[0].Input
		default:
			return steps
		}
		steps = slices.Insert(steps, 0, s)
	}
	return steps
}

func (e *eager) expect(u *unfinished) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, s := range u.steps {
		e.steps[s.vertex] = position{u, i}
	}
	if e.images = append(e.images, u); len(e.images) > maxUnfinished {
		for _, s := range e.images[0].steps {
			if e.steps[s.vertex].image == e.images[0] {
				delete(e.steps, s.vertex)
			}
		}
		e.images = e.images[1:]
	}
}

// at returns the place of a vertex in an image that is going to be exported, and what can be done with the layers below it.
func (e *eager) at(vertex digest.Digest) (position, readiness) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.steps[vertex]
	switch {
	case !ok:
		return p, nothing
	case p.complete():
		return p, complete
	case p.rehearsable():
		return p, rehearsable
	}
	return p, nothing
}

// readiness is what can be done with the layers below a step, when it begins.
type readiness int

const (
	nothing     readiness = iota
	rehearsable           // they may become one with the step's: that layer can be rehearsed
	complete              // they are what the image will have
)

// complete is true if the layer of the step may not become one with those below it. It could with the merger's options in hand; so it is for all of them that merge RUNs.
func (p position) complete() bool {
	if p.index == 0 {
		return false // nothing but the base image is below
	}
	if p.image.Attrs[export.AttrSquash] == string(export.SquashStage) {
		return false
	}
	merges := p.image.Attrs[export.AttrSquash] == string(export.SquashRuns)
	for _, s := range slices.Backward(p.image.steps[:p.index]) {
		if s.kind != dirs {
			return !merges || s.kind != run || p.image.steps[p.index].kind == files
		}
	}
	return true
}

// rehearsable is true if the step and one below it are RUNs that may become one layer, of a compression that can make use of it.
func (p position) rehearsable() bool {
	if p.image.Attrs[export.AttrSquash] != string(export.SquashRuns) || p.image.steps[p.index].kind != run || !compress.Rehearses(p.image.Compression) {
		return false
	}
	for _, s := range slices.Backward(p.image.steps[:p.index]) {
		if s.kind != dirs {
			return s.kind == run
		}
	}
	return false
}

// prepare makes the blobs of ref's layers in the background, sends them if the image is pushed, and releases it.
func (e *eager) prepare(ref cache.ImmutableRef, u *unfinished, s session.Group) {
	release := func() { releaseCompressed(ref) }
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		release()
		return
	}
	e.stop()
	e.work.Go(func() {
		defer release()
		layers, done, err := e.compress(ref, u, s)
		if err != nil {
			if e.ctx.Err() == nil {
				logrus.WithError(err).Warn("compress layers before the export")
			}
			return
		}
		defer done()
		u.upload.send(e.ctx, layers, ref)
	})
}

func releaseCompressed(ref cache.ImmutableRef) {
	if err := ref.Release(context.Background()); err != nil {
		logrus.WithError(err).Warn("release layers that were compressed")
	}
}

// rehearse compresses what ref's last layers would become, in the background, and releases ref. It gives way to all else: what it has compressed by then is of use all the same.
func (e *eager) rehearse(ref cache.ImmutableRef, u *unfinished, s session.Group) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		releaseCompressed(ref)
		return
	}
	e.stop()
	ctx, cancel := context.WithCancel(e.ctx)
	e.rehearsal = cancel
	e.work.Go(func() {
		defer releaseCompressed(ref)
		defer cancel()
		select {
		case e.slot <- struct{}{}:
			defer func() { <-e.slot }()
		case <-ctx.Done():
			return
		}
		un := u.Unfinished
		un.Compression = compress.Rehearsing(un.Compression)
		if err := e.merger.Rehearse(ctx, ref, un, s, u.rehearsed); err != nil {
			logrus.WithError(err).Debug("rehearse layers")
			return
		}
		found, missed := e.memo.Asked()
		logrus.Debugf("rehearsed so far, in bytes of files: %v; %d pieces were remembered, %d were compressed", u.rehearsed, found, missed)
	})
}

// stop ends the rehearsal that is under way. e.mu is held.
func (e *eager) stop() {
	if e.rehearsal != nil {
		e.rehearsal()
		e.rehearsal = nil
	}
}

// stopRehearsal is called when layers are about to be made.
func (e *eager) stopRehearsal() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop()
}

func (e *eager) compress(ref cache.ImmutableRef, u *unfinished, s session.Group) (layers *solver.Remote, release func(), err error) {
	select {
	case e.slot <- struct{}{}:
		defer func() { <-e.slot }()
	case <-e.ctx.Done():
		return nil, nil, context.Cause(e.ctx)
	}
	return e.merger.Prepare(e.ctx, ref, u.Unfinished, s)
}

// beginning is the cache manager of one step: where the step begins, what it begins on is finished.
type beginning struct {
	cache.Manager
	eager *eager
	image *unfinished
	below readiness
}

func (m beginning) New(ctx context.Context, parent cache.ImmutableRef, g session.Group, opts ...cache.RefOption) (cache.MutableRef, error) {
	ref, err := m.Manager.New(ctx, parent, g, opts...)
	if err == nil && parent != nil && !lazy.Aside(ctx) {
		if m.below == complete {
			m.eager.prepare(parent.Clone(), m.image, g)
		} else {
			m.eager.rehearse(parent.Clone(), m.image, g)
		}
	}
	return ref, err
}
