package manifests

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/session"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/engine/chains"
)

// sessionWait is how long a client may take to appear whose directory is to be read: BuildKit's time.
const sessionWait = 5 * time.Second

// Local returns what makes importers of type local, with BuildKit's attributes: src, a directory that the client's session has, and digest, that of the manifest there. A cache that check
// refuses is not used.
func Local(sessions *session.Manager, check chains.Check) remotecache.ResolveCacheImporterFunc {
	return func(ctx context.Context, g session.Group, attrs map[string]string) (remotecache.Importer, ocispecs.Descriptor, error) {
		d, src := digest.Digest(attrs["digest"]), attrs["src"]
		desc := ocispecs.Descriptor{Digest: d}
		switch {
		case d == "":
			return nil, desc, errors.New("local cache importer requires explicit digest")
		case src == "":
			return nil, desc, errors.New("local cache importer requires src")
		}
		id := g.SessionIterator().NextSession()
		if id == "" {
			return nil, desc, errors.New("local cache importer requires session")
		}
		waiting, cancel := context.WithTimeout(ctx, sessionWait)
		defer cancel()
		caller, err := sessions.Get(waiting, id, false)
		if err != nil {
			return nil, desc, err
		}
		store := sessioncontent.NewCallerStore(caller, "local:"+src) // what clients of BuildKit call it
		info, err := store.Info(ctx, d)
		if err != nil {
			return nil, desc, err
		}
		desc.Size = info.Size
		return importer{check, func(r *reading) content.Provider { return localProvider{store, g, r} }}, desc, nil
	}
}

// localProvider reads a directory.
type localProvider struct {
	store   content.Provider
	session session.Group
	reading *reading
}

func (p localProvider) ReaderAt(ctx context.Context, d ocispecs.Descriptor) (content.ReaderAt, error) {
	return p.reading.open(ctx, d, p.store.ReaderAt)
}

// UnlazySession says that layers are to be read at once, while the session is there.
func (p localProvider) UnlazySession(ocispecs.Descriptor) session.Group { return p.session }
