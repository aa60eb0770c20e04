package lazypull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/identity"
	bksnapshot "github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/progress"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/snapshot"
)

// The labels with which BuildKit tells a snapshotter of this kind about a layer (its util/estargz and cache/refs.go). CacheLabel is ours: the reference is that of a shared cache.
const (
	targetLabel  = "containerd.io/snapshot.ref"
	remoteLabel  = "containerd.io/snapshot/remote"
	labelPrefix  = "containerd.io/snapshot/remote/stargz."
	refLabel     = labelPrefix + "reference"
	digestLabel  = labelPrefix + "digest"
	sessionLabel = labelPrefix + "session."
	CacheLabel   = "containerd.io/snapshot/remote/optbuild.cache"
)

// name is that of snapshotters for which BuildKit asks before it fetches layers.
const name = "stargz"

// snapshotter is BuildKit's, of which layers may be remote ones.
type snapshotter struct {
	bksnapshot.Snapshotter
	p      *Puller
	leases leases.Manager
}

// Snapshotter adds remote layers to a snapshotter, whose snapshots are those of Options.Layers. The leases are the ones of its metadata.
func (p *Puller) Snapshotter(s bksnapshot.Snapshotter, lm leases.Manager) bksnapshot.Snapshotter {
	return &snapshotter{s, p, lm}
}

func (s *snapshotter) Name() string { return name }

// Prepare makes a snapshot for writing. When BuildKit asks whether a layer can be had without fetching it, ErrAlreadyExists means that its committed snapshot is there now; any other error that
// it, and those above it, have to be fetched.
func (s *snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) error {
	var info snapshots.Info
	for _, o := range opts {
		if err := o(&info); err != nil {
			return err
		}
	}
	target := info.Labels[targetLabel]
	if target == "" {
		return s.Snapshotter.Prepare(ctx, key, parent, opts...)
	}
	err := s.p.offered(info.Labels, func(l layer) error { return s.commit(ctx, target, parent, l) })
	if err != nil && !errdefs.IsAlreadyExists(err) {
		logrus.WithError(err).Debugf("layer %s is fetched", info.Labels[digestLabel])
		if l, _, ok := fromLabels(info.Labels); ok && l.Of != "" && errors.Is(err, errUnfit) && s.p.tells(l) {
			message := fmt.Sprintf("shared cache: a layer of the base image, %s, is fetched whole: %v", l.Of, err)
			logrus.Warn(message)
			_ = progress.OneOff(ctx, message)(nil)
		}
	}
	return err
}

// Update takes note of the sessions that BuildKit writes into labels for the time of a call, and writes nothing.
func (s *snapshotter) Update(ctx context.Context, info snapshots.Info, fields ...string) (snapshots.Info, error) {
	for _, f := range fields {
		if strings.HasPrefix(f, "labels."+labelPrefix) {
			l, sessions, _ := fromLabels(info.Labels)
			s.p.seen(sessions, l.Digest)
			return info, nil
		}
	}
	return s.Snapshotter.Update(ctx, info, fields...)
}

// commit makes the committed snapshot of a layer.
func (s *snapshotter) commit(ctx context.Context, target, parent string, l layer) error {
	ctx, done, err := leaseutil.WithLease(ctx, s.leases, leaseutil.MakeTemporary)
	if err != nil {
		return err
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }()
	note, err := json.Marshal(l)
	if err != nil {
		return err
	}
	key, inner := "remote-"+identity.NewID(), ""
	if err := s.Snapshotter.Prepare(snapshot.WithPrepared(ctx, func(p snapshot.Prepared) { inner = p.Key }), key, parent); err != nil {
		return fmt.Errorf("make the snapshot of a layer: %w", err)
	}
	if err := s.p.o.Layers.Defer(ctx, inner, l.id(), note); err != nil {
		return err
	}
	err = s.Snapshotter.Commit(ctx, target, key, snapshots.WithLabels(map[string]string{remoteLabel: l.Digest.String()}))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return errdefs.ErrAlreadyExists
}

var (
	errWhole = errors.New("it is no layer that can be read in parts")
	errFast  = errors.New("the link is fast")
	errUnfit = errors.New("it can't be mounted")
)

// tells is true once for each layer.
func (p *Puller) tells(l layer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unfit[l.id()] {
		return false
	}
	if p.unfit == nil {
		p.unfit = map[string]bool{}
	}
	p.unfit[l.id()] = true
	return true
}

// offered mounts a layer if that is possible and of use, and calls made then.
func (p *Puller) offered(labels map[string]string, made func(layer) error) error {
	l, sessions, ok := fromLabels(labels)
	if !ok || os.Getenv(variable) == never {
		return errWhole
	}
	l = p.believed(l)
	p.seen(sessions, "")
	if why := p.unwanted(l, sessions); why != nil {
		return why
	}
	if err := p.supported(); err != nil {
		p.told.Do(func() { logrus.Warnf("layers are fetched as a whole: %v", err) })
		return err
	}
	if p.link.isFast() {
		return errFast
	}
	if err := p.mount(l, sessions); err != nil {
		return fmt.Errorf("%w: %w", errUnfit, err)
	}
	if p.link.isFast() { // as the reading of the table has shown
		return errFast
	}
	return made(l)
}

// fromLabels reads BuildKit's labels, which have a suffix of their own for each call beside those that have none.
func fromLabels(labels map[string]string) (l layer, sessions []string, ok bool) {
	for k, v := range labels {
		switch {
		case strings.HasPrefix(k, sessionLabel):
			sessions = append(sessions, v)
		case k == refLabel:
			l.Ref = v
		case k == digestLabel || strings.HasPrefix(k, digestLabel+"."):
			l.Digest = digest.Digest(v)
		case k == estargz.TOCJSONDigestAnnotation:
			l.TOC = digest.Digest(v)
		case k == CacheLabel:
			l.Cache = true
		case k == twinLabel:
			l.Of = digest.Digest(v)
		case k == twinBytesLabel:
			l.Bytes, _ = strconv.ParseInt(v, 10, 64) // 0: it is not known
		}
	}
	return l, sessions, l.Ref != "" && l.Digest.Validate() == nil && l.TOC.Validate() == nil
}

// maxSessions is how many are remembered.
const maxSessions = 16

// seen remembers sessions with credentials, in particular for a layer.
func (p *Puller) seen(sessions []string, of digest.Digest) {
	if len(sessions) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = append(sessions, p.sessions...)
	p.sessions = p.sessions[:min(len(p.sessions), maxSessions)]
	for _, s := range p.sources {
		if s.Digest == of || s.Of != "" && s.Of == of {
			s.use(sessions)
		}
	}
}

// unwanted says why a layer is not to be mounted: it is of no image of a registry, or a build does not want it.
func (p *Puller) unwanted(l layer, sessions []string) error {
	if p.wantsWhole(sessions) {
		return errors.New("the build wants layers whole")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.Cache || p.known[locator(l.Ref)] {
		return nil
	}
	return errors.New("it is not at a registry")
}

func locator(ref string) string {
	spec, err := reference.Parse(ref)
	if err != nil {
		return ref
	}
	return spec.Locator
}

// Leases translates the type of snapshots, which BuildKit makes of the snapshotter's name.
func Leases(lm leases.Manager, snapshotter string) leases.Manager {
	return typedLeases{lm, "snapshots/" + snapshotter}
}

type typedLeases struct {
	leases.Manager
	snapshots string
}

func (t typedLeases) translated(r leases.Resource) leases.Resource {
	if r.Type == "snapshots/"+name {
		r.Type = t.snapshots
	}
	return r
}

func (t typedLeases) AddResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	return t.Manager.AddResource(ctx, l, t.translated(r))
}

func (t typedLeases) DeleteResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	return t.Manager.DeleteResource(ctx, l, t.translated(r))
}
