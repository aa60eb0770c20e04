package lazypull

import (
	"context"
	"encoding/json"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// start is what earlier engines have left. BuildKit reads all records when it starts (cache/manager.go, init; solver/cachemanager.go, ReleaseUnreferenced), and drops those whose layers were not fetched, with all that was
// made on them, since nobody can say at that time where to get them. So for as long as it does that, remote layers look like others: their snapshots have no label, their blobs seem to be there. No blob is read meanwhile.
type start struct {
	over    atomic.Bool
	noted   map[digest.Digest]bool
	dropped error // why layers of which there are notes can't be mounted on this machine any more
}

// readNotes finds the layers of earlier engines.
func (p *Puller) readNotes() error {
	p.start.noted = map[digest.Digest]bool{}
	return p.o.Layers.RemoteNotes(func(note []byte) {
		var l layer
		if err := p.supported(); err != nil { // BuildKit drops the records, and what is made on them
			p.start.dropped = err
		} else if json.Unmarshal(note, &l) == nil {
			p.start.noted[l.recorded()] = true
		}
	})
}

// Dropped says why BuildKit has dropped records at its start, if their layers can't be mounted any more: their snapshots have to be collected before they are taken for whole.
func (p *Puller) Dropped() error { return p.start.dropped }

// Started is to be called when BuildKit has read its records.
func (p *Puller) Started() { p.start.over.Store(true) }

// Contents is the store with which BuildKit reads its records.
func (p *Puller) Contents(s content.Store) content.Store { return contents{s, &p.start} }

type contents struct {
	content.Store
	start *start
}

func (c contents) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	info, err := c.Store.Info(ctx, dgst)
	if errdefs.IsNotFound(err) && !c.start.over.Load() && c.start.noted[dgst] {
		return content.Info{Digest: dgst}, nil
	}
	return info, err
}

func (s *snapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	info, err := s.Snapshotter.Stat(ctx, key)
	if err == nil && !s.p.start.over.Load() {
		delete(info.Labels, remoteLabel)
	}
	return info, err
}
