package frontend

import (
	"context"
	"errors"
	"strings"

	"github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/frontend/plan"
)

// A step that a pass has written may fail where the user's line would not: its cache mount is damaged, a file that it is to mount is not in the
// base image, a copy is refused. Such a build is begun again with the user's file; what ran already is cached.
//
// A program's own failure (an exit code) is the user's, and is not tried twice: unless the step has mounts that the user did not write.

// evaluate runs what the result is made of, so that a failure is known while there is still something to do about it.
func evaluate(ctx context.Context, res *client.Result) error {
	eg, ctx := errgroup.WithContext(ctx)
	for _, ref := range append(refs(res.Refs), res.Ref) {
		if ref != nil {
			eg.Go(func() error { return ref.Evaluate(ctx) })
		}
	}
	return eg.Wait()
}

func refs(m map[string]client.Reference) (list []client.Reference) {
	for _, ref := range m {
		list = append(list, ref)
	}
	return list
}

// ours reports whether the error is of a step that a pass made, and may be the pass's fault.
func (r *rewriter) ours(err error) bool {
	var vertex *errdefs.VertexError
	if !errors.As(err, &vertex) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	mounts, made := r.file.made[r.report.Steps[vertex.Digest].Step]
	var exit *gwpb.ExitError
	return made && (mounts || !errors.As(err, &exit))
}

// made lists the steps of q that are not in p, and whether they have more mounts than those that they stand for.
func made(p, q *plan.Plan) map[int]bool {
	mounts := map[int]int{}
	each(p, func(s *plan.Step) { mounts[s.ID] = strings.Count(s.Text, "--mount=") })
	list := map[int]bool{}
	each(q, func(s *plan.Step) {
		if s.Of == nil {
			return
		}
		had := 0
		for _, id := range s.Of {
			had += mounts[id]
		}
		list[s.ID] = strings.Count(s.Text, "--mount=") > had
	})
	return list
}

func each(p *plan.Plan, f func(*plan.Step)) {
	for _, st := range p.Stages {
		f(st.From)
		for _, s := range st.Steps {
			f(s)
		}
	}
}

// say tells the user something while the build goes on.
func (r *rewriter) say(msg string) {
	msg, _, _ = strings.Cut(msg, "\n")
	_ = r.Client.Warn(context.Background(), r.vertex, msg, client.WarnOpts{Level: 1}) // only a message is lost
}
