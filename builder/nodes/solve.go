package nodes

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commonexptypes "github.com/moby/buildkit/exporter/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/optbuild/optbuild/builder/outcome"
)

// part is the image that a node has made of a platform. Its blobs are in Build.Store.
type part struct {
	address string
	target  ocispecs.Descriptor // of the manifest
	// metadata is the frontend's, with keys that are about an image as they are without a platform. The image's configuration is that of the image, as the node made it.
	metadata     map[string][]byte
	attestations []predicate // what the node says of the image, where it was asked to
	// unwatched says that a RUN ran, and was not watched: most BuildKits do not know how.
	unwatched bool
}

// solve has a node solve a platform. The error is a *LostError if it is the node's fault.
func (f *Fleet) solve(ctx context.Context, n *node, c *client.Client, platform string, b Build) (*part, error) {
	parent := ctx
	ctx, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watch(ctx, c, n.Timeout, lose)
	}()
	r := newRelay(b.Status, platform, n.Address)
	p := &part{address: n.Address}
	resp, err := c.Build(ctx, b.options(platform), "optbuild", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		res, err := b.Frontend(ctx, c)
		if err != nil {
			return nil, err
		}
		if res, err = single(res, platform); err == nil {
			p.metadata = res.Metadata
		}
		return res, err
	}, r.in)
	if err != nil && parent.Err() == nil {
		err = n.blame(ctx, c, err)
	}
	lose(nil)
	<-watched
	r.end(err)
	if err != nil {
		return nil, r.salted(err)
	}
	p.unwatched = r.ran && !r.watched
	return p, p.read(parent, b.Store, resp.ExporterResponse)
}

// watch asks the node again and again whether it is there, and gives it up when it keeps silent. A node that is gone for good is not waited for: the connections that are open to
// it are closed, of which some would wait.
func watch(ctx context.Context, c *client.Client, timeout time.Duration, lose func(error)) {
	tick := time.NewTicker(timeout / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout) // another deadline is not the node's
		stop := context.AfterFunc(ctx, cancel)
		_, err := c.Info(ask)
		silent := err != nil && expired(ask, err) && ctx.Err() == nil
		stop()
		cancel()
		if silent {
			lose(errSilent)
			c.Close()
			return
		}
	}
}

// blame says whether an error of a solve is the node's.
func (n *Node) blame(ctx context.Context, c *client.Client, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return &LostError{n.Address, cause}
	}
	switch grpcerrors.Code(err) {
	case codes.Unavailable, codes.Canceled: // nobody here has canceled it
		return &LostError{n.Address, plain(err)}
	}
	var v *errdefs.VertexError
	if errors.As(err, &v) { // it has come to a step
		return err
	}
	ask, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	if _, ierr := c.Info(ask); ierr != nil && grpcerrors.Code(ierr) != codes.Unimplemented {
		return &LostError{n.Address, plain(ierr)}
	}
	return err
}

// single makes the result for one platform one without a platform, of which the exporter makes a plain manifest.
func single(res *gwclient.Result, platform string) (*gwclient.Result, error) {
	if res.Ref != nil {
		return res, nil
	}
	ref, ok := res.Refs[platform]
	if !ok || len(res.Refs) != 1 {
		return nil, fmt.Errorf("the frontend gave %d results, none of them for %s", len(res.Refs), platform)
	}
	one := gwclient.NewResult()
	one.SetRef(ref)
	for _, a := range res.Attestations[platform] {
		one.AddAttestation(platform, a)
	}
	for key, value := range res.Metadata {
		one.AddMeta(strings.TrimSuffix(key, "/"+platform), value)
	}
	return one, nil
}

// read finds the image in the store that it was sent to.
func (p *part) read(ctx context.Context, store content.Store, resp map[string]string) error {
	text, err := base64.StdEncoding.DecodeString(resp[exptypes.ExporterImageDescriptorKey])
	if err == nil {
		err = json.Unmarshal(text, &p.target)
	}
	if err != nil {
		return fmt.Errorf("read what %s answered: %w", p.address, err)
	}
	if images.IsIndexType(p.target.MediaType) {
		if err := p.attested(ctx, store); err != nil {
			return fmt.Errorf("read what %s has recorded: %w", p.address, err)
		}
	}
	if !images.IsManifestType(p.target.MediaType) {
		return fmt.Errorf("%s has made a %s, not an image", p.address, p.target.MediaType)
	}
	text, err = content.ReadBlob(ctx, store, p.target)
	var m ocispecs.Manifest
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err == nil {
		text, err = content.ReadBlob(ctx, store, m.Config)
	}
	if err != nil {
		return fmt.Errorf("read the image that %s has made: %w", p.address, err)
	}
	p.metadata = maps.Clone(p.metadata)
	p.metadata[exptypes.ExporterImageConfigKey] = text
	return nil
}

// options are the solve's for a node.
func (b *Build) options(platform string) client.SolveOpt {
	o := b.Options
	o.Frontend = ""
	o.FrontendAttrs = maps.Clone(o.FrontendAttrs)
	o.FrontendAttrs["platform"] = platform
	o.FrontendAttrs["multi-platform"] = "true" // names of steps have the platform then
	if b.Word == "" {
		delete(o.FrontendAttrs, "attest:provenance")
	}
	delete(o.FrontendAttrs, outcome.AttrSharedChecked) // a node's image comes here without what would have to be known for it
	if o.FrontendAttrs["image-resolve-mode"] == pb.AttrImageResolveModePreferLocal {
		delete(o.FrontendAttrs, "image-resolve-mode") // what a node once kept under a name is not what the user means
	}
	o.CacheImports = foreign(o.CacheImports)
	o.CacheExports = nil
	if b.alone() {
		o.CacheExports = foreign(b.Options.CacheExports)
	}
	attrs := map[string]string{"tar": "false"}
	maps.Copy(attrs, b.Layers)
	o.Exports = []client.ExportEntry{{Type: client.ExporterOCI, Attrs: attrs, OutputStore: inbox{b.Store}}}
	return o
}

// alone reports whether the build has one platform only, so that its node may write to a cache: the last of several that write to one would be what is left.
func (b *Build) alone() bool { return len(b.Platforms) == 1 }

func foreign(list []client.CacheOptionsEntry) []client.CacheOptionsEntry {
	return slices.DeleteFunc(slices.Clone(list), func(e client.CacheOptionsEntry) bool { return !foreignCaches[e.Type] })
}

// foreignCaches are types of caches that every BuildKit reads and writes.
var foreignCaches = map[string]bool{"registry": true, "local": true, "gha": true, "s3": true, "azblob": true}

// imageKeys are keys of a result's metadata that are about one image.
var imageKeys = []string{exptypes.ExporterImageConfigKey, exptypes.ExporterImageBaseConfigKey, commonexptypes.ExporterEpochKey}

// Salt makes a digest of a vertex on a node one of its own: the same vertex may be at work here, or on another node.
func Salt(address, vertex string) digest.Digest { return digest.FromString(address + " " + vertex) }
