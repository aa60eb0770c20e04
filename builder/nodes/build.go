package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/outcome"
)

// Build is what is to be built.
type Build struct {
	// Platforms are those of the image, in the order of its index. Of several, or with Index, an index is made.
	Platforms []string
	Index     bool
	// Options are what the engine's client would be given: the frontend's name and attributes, local directories, session. What is no business of nodes (outputs, caches to
	// write) is not given to them.
	Options client.SolveOpt
	// Layers are attributes for the exporter of nodes, about how layers are compressed.
	Layers map[string]string
	// Frontend is what Options.Frontend names, to be run here for nodes.
	Frontend gwclient.BuildFunc
	// Store receives the blobs of images from nodes.
	Store content.Store
	// Status receives the progress of nodes. It may be called concurrently, and must not be after the function that Build returns has ended.
	Status func(*client.SolveStatus)
	// Merge makes one of what the frontend left in the metadata of several results under ReportKey. The first one is this machine's, if there is one; the addresses of the others'
	// nodes are beside them, "" for this machine.
	ReportKey string
	Merge     func(reports [][]byte, addresses []string) []byte
	// Word tells the engine's exporters which provenance is from nodes (outcome.AttrRecorded). Nobody else should know it. Without one, nodes are asked for none.
	Word string
}

// storeID is the name of Build.Store in the session with the engine.
const storeID = "optbuild-nodes"

// Build returns the function that solves a build for a client of this machine's engine. What it returned as an error is not worth more than what failed says when the solve has
// ended: errors lose their types on the way through the engine.
func (f *Fleet) Build(b Build) (solve gwclient.BuildFunc, failed func() error) {
	var mu sync.Mutex
	var first error
	fail := func(err error) error {
		mu.Lock()
		defer mu.Unlock()
		if err != nil && first == nil && !errors.Is(err, context.Canceled) {
			first = err
		}
		return err
	}
	failed = func() error {
		mu.Lock()
		defer mu.Unlock()
		return first
	}
	return func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		eg, ctx := errgroup.WithContext(ctx)
		results := make([]*gwclient.Result, len(b.Platforms)) // of the platforms that have nodes
		addresses := make([]string, len(b.Platforms))
		var own []string
		for i, p := range b.Platforms {
			if !f.Has(p) {
				own = append(own, p)
				continue
			}
			eg.Go(func() error {
				part, lost, err := f.part(ctx, p, b)
				if err != nil {
					return fail(err)
				}
				if part != nil {
					results[i], err = part.result(ctx, c, p, b)
					addresses[i] = part.address
					return fail(err)
				}
				if why := able(c, p); why != nil {
					return fail(&UnavailableError{p, lost, why})
				}
				line := p + ": built here, since no node is left for it"
				if b.alone() && len(foreign(b.Options.CacheExports)) > 0 {
					line += "; what --cache-to names is not written"
				}
				f.note("%s", line)
				res, err := b.here(ctx, c, []string{p})
				if err == nil {
					results[i], err = single(res, p)
				}
				return fail(err)
			})
		}
		var ours *gwclient.Result
		if len(own) > 0 {
			eg.Go(func() (err error) {
				ours, err = b.here(ctx, c, own)
				return fail(err)
			})
		}
		if err := eg.Wait(); err != nil {
			return nil, err
		}
		return b.assemble(ours, results, addresses)
	}, failed
}

// here solves platforms with this machine's engine, to the end: it is at work while nodes are.
func (b *Build) here(ctx context.Context, c gwclient.Client, list []string) (*gwclient.Result, error) {
	attrs := maps.Clone(c.BuildOpts().Opts) // with what the client has added for caches
	attrs["platform"], attrs["multi-platform"] = strings.Join(list, ","), "true"
	return c.Solve(ctx, gwclient.SolveRequest{Frontend: b.Options.Frontend, FrontendOpt: attrs, Evaluate: true})
}

// Own are the options for the client of this machine's engine.
func (b *Build) Own() client.SolveOpt {
	o := b.Options
	o.Frontend = ""
	o.FrontendAttrs = maps.Clone(o.FrontendAttrs) // the client adds to them
	if b.alone() {
		o.CacheExports = slices.DeleteFunc(slices.Clone(o.CacheExports), func(e client.CacheOptionsEntry) bool { return foreignCaches[e.Type] })
	}
	if b.Word != "" {
		o.Exports = slices.Clone(o.Exports)
		for i, e := range o.Exports {
			o.Exports[i].Attrs = maps.Clone(e.Attrs)
			if e.Attrs == nil {
				o.Exports[i].Attrs = map[string]string{}
			}
			o.Exports[i].Attrs[outcome.AttrRecorded] = b.Word
		}
	}
	o.OCIStores = maps.Clone(o.OCIStores)
	if o.OCIStores == nil {
		o.OCIStores = map[string]content.Store{}
	}
	o.OCIStores[storeID] = b.Store
	return o
}

// able says why this machine can't build a platform; nil if it can.
func able(c gwclient.Client, platform string) error {
	want, err := platforms.Parse(platform)
	if err != nil {
		return err
	}
	for _, w := range c.BuildOpts().Workers {
		if canBuild(w.Platforms, want) {
			return nil
		}
	}
	if want.OS != "linux" {
		return fmt.Errorf("it runs linux, not %s", want.OS)
	}
	_, err = emulation.Find(want.Architecture, exec.LookPath)
	return err
}

// result makes the image a result of the engine, which has its blobs.
func (p *part) result(ctx context.Context, c gwclient.Client, platform string, b Build) (*gwclient.Result, error) {
	spec, err := platforms.Parse(platform)
	if err != nil {
		return nil, err
	}
	res, err := take(ctx, c, p.target, spec, "["+platform+"] image from "+p.address)
	if err == nil && len(p.attestations) > 0 {
		err = p.attest(ctx, c, res, platform, spec, b)
	}
	if err != nil {
		return nil, fmt.Errorf("take over the image of %s: %w", p.address, err)
	}
	res.Metadata = p.metadata
	return res, nil
}

// take makes an image of Build.Store a result of the engine.
func take(ctx context.Context, c gwclient.Client, image ocispecs.Descriptor, platform ocispecs.Platform, name string) (*gwclient.Result, error) {
	st := llb.OCILayout("optbuild.local/node@"+image.Digest.String(), llb.OCIStore(c.BuildOpts().SessionID, storeID), llb.Platform(platform), llb.WithCustomName(name))
	def, err := st.Marshal(ctx, llb.Platform(platform))
	if err != nil {
		return nil, err
	}
	return c.Solve(ctx, gwclient.SolveRequest{Definition: def.ToPB()})
}

// assemble makes one result of all platforms'.
func (b *Build) assemble(ours *gwclient.Result, results []*gwclient.Result, addresses []string) (*gwclient.Result, error) {
	res := gwclient.NewResult()
	index := b.Index || len(b.Platforms) > 1
	var all exptypes.Platforms
	var reports [][]byte
	var from []string
	add := func(r *gwclient.Result, address string) {
		for key, value := range r.Metadata {
			if _, given := res.Metadata[key]; !given && !isImageKey(key) && key != exptypes.ExporterPlatformsKey {
				res.AddMeta(key, value)
			}
		}
		if report := r.Metadata[b.ReportKey]; report != nil {
			reports, from = append(reports, report), append(from, address)
		}
	}
	if ours != nil {
		add(ours, "")
	}
	for i, p := range b.Platforms {
		spec, err := platforms.Parse(p)
		if err != nil {
			return nil, err
		}
		entry := exptypes.Platform{ID: p, Platform: platforms.Normalize(spec)}
		r := results[i]
		if r == nil { // solved here
			if r, err = pick(ours, p); err != nil {
				return nil, err
			}
		} else {
			add(r, addresses[i])
		}
		all.Platforms = append(all.Platforms, entry)
		for _, a := range r.Attestations[p] {
			res.AddAttestation(p, a)
		}
		suffix := ""
		if index {
			suffix = "/" + p
			res.AddRef(p, r.Ref)
		} else {
			res.SetRef(r.Ref)
		}
		for _, key := range imageKeys {
			if value := r.Metadata[key]; value != nil {
				res.AddMeta(key+suffix, value)
			}
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	res.AddMeta(exptypes.ExporterPlatformsKey, text)
	if len(reports) > 0 && b.Merge != nil {
		res.AddMeta(b.ReportKey, b.Merge(reports, from))
	}
	return res, nil
}

func isImageKey(key string) bool {
	return slices.ContainsFunc(imageKeys, func(k string) bool { return key == k || strings.HasPrefix(key, k+"/") })
}

// pick takes one platform's out of a result of several.
func pick(res *gwclient.Result, platform string) (*gwclient.Result, error) {
	ref, ok := res.Refs[platform]
	if !ok {
		return nil, fmt.Errorf("the frontend gave no result for %s", platform)
	}
	one := gwclient.NewResult()
	one.SetRef(ref)
	for _, a := range res.Attestations[platform] {
		one.AddAttestation(platform, a)
	}
	for _, key := range imageKeys {
		if value := res.Metadata[key+"/"+platform]; value != nil {
			one.AddMeta(key, value)
		}
	}
	return one, nil
}
