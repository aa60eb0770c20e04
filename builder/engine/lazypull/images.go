package lazypull

import (
	"context"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	bksource "github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/containerimage"
)

// Source notes which images are at registries: BuildKit's labels look the same for those of a local directory.
func (p *Puller) Source(s bksource.Source) bksource.Source { return imageSource{s, p} }

type imageSource struct {
	bksource.Source
	p *Puller
}

func (s imageSource) Resolve(ctx context.Context, id bksource.Identifier, sm *session.Manager, v solver.Vertex) (bksource.SourceInstance, error) {
	if i, ok := id.(*containerimage.ImageIdentifier); ok {
		s.p.mu.Lock()
		s.p.known[i.Reference.Locator] = true
		s.p.mu.Unlock()
	}
	return s.Source.Resolve(ctx, id, sm, v)
}
