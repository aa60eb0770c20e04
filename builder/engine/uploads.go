package engine

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/util/push"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/util/resolver/limited"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// Layers are sent while the steps after them run, as soon as they are compressed. A registry keeps a blob that no manifest names until it collects garbage, and shows it to nobody: of a
// build that fails nothing else is left. What goes wrong here is not told: the push, which asks for each blob whether it is there, sends what is missing, and says what it meets.

// uploads sends layers of unfinished images. Its methods may be called concurrently.
type uploads struct {
	sessions *session.Manager
	hosts    docker.RegistryHosts
	content  content.Store
	slots    chan struct{} // of all builds together; pulls from the same registry have connections of their own left

	mu     sync.Mutex
	builds map[string]*upload // by session
}

// maxUploads is how many layers are sent at a time: half of what BuildKit allows itself.
const maxUploads = 2

func newUploads(sessions *session.Manager, hosts docker.RegistryHosts, blobs content.Store) *uploads {
	return &uploads{sessions: sessions, hosts: hosts, content: blobs, slots: make(chan struct{}, maxUploads), builds: map[string]*upload{}}
}

// upload is what is sent for one build.
type upload struct {
	*uploads
	session string
	refs    []string // one for each repository that the image is pushed to
	started sync.WaitGroup
	ctx     context.Context // ends with the session, or when nobody waits for it any more
	cancel  context.CancelFunc

	mu    sync.Mutex
	tried map[digest.Digest]bool
	under int  // how many are under way
	ended bool // no more is sent: the push has begun, or something went wrong
}

// begin returns what sends the layers of a session's image, for the attributes of its exporter; nil if it is not pushed, or in a way that needs more than a registry's name. It ends with the session.
func (u *uploads) begin(ctx context.Context, sessionID string, attrs map[string]string) *upload {
	refs := pushedRefs(attrs)
	if len(refs) == 0 || sessionID == "" {
		return nil
	}
	caller, err := u.sessions.Get(ctx, sessionID, true)
	if err != nil || caller == nil { // it has ended
		return nil
	}
	up := &upload{uploads: u, session: sessionID, refs: refs, tried: map[digest.Digest]bool{}}
	up.ctx, up.cancel = context.WithCancel(caller.Context(context.Background()))
	u.mu.Lock()
	defer u.mu.Unlock()
	if old := u.builds[sessionID]; old != nil {
		old.cancel()
	}
	u.builds[sessionID] = up
	context.AfterFunc(up.ctx, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.builds[sessionID] == up {
			delete(u.builds, sessionID)
		}
	})
	return up
}

// pushedRefs are the references by which an exporter's image is pushed, one for each repository; none if it is not, or in a way that needs more than a registry's name.
func pushedRefs(attrs map[string]string) (refs []string) {
	if on, err := strconv.ParseBool(attrs["push"]); err != nil || !on || attrs["registry.insecure"] != "" {
		return nil
	}
	repositories := map[string]bool{}
	for name := range strings.SplitSeq(attrs["name"], ",") {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil // the exporter says so
		}
		if !repositories[named.Name()] {
			repositories[named.Name()] = true
			refs = append(refs, reference.TagNameOnly(named).String())
		}
	}
	return refs
}

// settle ends the sending of a session's layers, and returns when what was under way is there.
func (u *uploads) settle(ctx context.Context, sessionID string) {
	u.mu.Lock()
	up := u.builds[sessionID]
	delete(u.builds, sessionID)
	u.mu.Unlock()
	if up == nil {
		return
	}
	defer up.cancel()
	up.mu.Lock()
	up.ended = true
	under := up.under
	up.mu.Unlock()
	if under == 0 {
		return
	}
	done := progress.OneOff(ctx, "pushing layers that were begun")
	defer context.AfterFunc(ctx, up.cancel)()
	up.started.Wait()
	_ = done(context.Cause(ctx))
}

// send sends what is here of the layers, the lowest first. They must be held meanwhile. It returns when all that it began with has been sent.
func (up *upload) send(ctx context.Context, layers *solver.Remote, ref layered) {
	if up == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(up.ctx, cancel)()
	var work sync.WaitGroup
	defer work.Wait()
	for _, d := range withSources(ref, layers.Descriptors) {
		info, err := up.content.Info(ctx, d.Digest)
		if err != nil || images.IsNonDistributable(d.MediaType) {
			continue // it is at a registry only; most often it can stay there, which the push finds out
		}
		select {
		case up.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if !up.start(ctx, d.Digest) {
			<-up.slots
			continue
		}
		work.Go(func() {
			defer func() { <-up.slots }()
			err := up.one(ctx, withLabels(d, info.Labels), layers.Provider)
			up.finish(err)
			if err != nil && ctx.Err() == nil {
				logrus.WithError(err).Debugf("send %s before its image", d.Digest)
			}
		})
	}
}

// start is true if a layer is to be sent.
func (up *upload) start(ctx context.Context, layer digest.Digest) bool {
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.ended || up.tried[layer] || ctx.Err() != nil {
		return false
	}
	up.tried[layer] = true
	up.under++
	up.started.Add(1)
	return true
}

func (up *upload) finish(err error) {
	up.mu.Lock()
	defer up.mu.Unlock()
	up.under--
	up.ended = up.ended || err != nil
	up.started.Done()
}

// one sends a layer to all repositories.
func (up *upload) one(ctx context.Context, d ocispecs.Descriptor, from content.Provider) error {
	for _, ref := range up.refs {
		r := resolver.DefaultPool.GetResolver(up.hosts, ref, resolver.ScopeType{Push: true}, up.sessions, session.NewGroup(up.session))
		pusher, err := push.Pusher(ctx, r, ref)
		if err != nil {
			return err
		}
		if _, err := limited.PushHandler(pusher, from, ref)(ctx, d); err != nil {
			return err
		}
		note, err := docker.AppendDistributionSourceLabel(up.content, ref)
		if err != nil {
			return err
		}
		if _, err := note(ctx, d); err != nil {
			return err
		}
		// The next repository can take it from this one.
		info, err := up.content.Info(ctx, d.Digest)
		if err != nil {
			return err
		}
		d = withLabels(d, info.Labels)
	}
	return nil
}

// withLabels returns a descriptor with the labels of a blob that say in which repositories it is.
func withLabels(d ocispecs.Descriptor, of map[string]string) ocispecs.Descriptor {
	for k, v := range of {
		if strings.HasPrefix(k, labels.LabelDistributionSource+".") {
			d = annotated(d, k, v)
		}
	}
	return d
}
