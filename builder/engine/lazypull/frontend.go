package lazypull

import (
	"context"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
)

// attrWhole is a frontend's attribute: the build wants layers whole (package request has its name, too).
const attrWhole = "optbuild-fetch-whole"

// maxWhole is how many such builds are remembered.
const maxWhole = 64

// Frontend notes which builds want layers whole. A build that comes while another one has the same layer mounted gets it as it is.
func (p *Puller) Frontend(build gwclient.BuildFunc) gwclient.BuildFunc {
	return func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		if o := c.BuildOpts(); o.Opts[attrWhole] != "" {
			p.mu.Lock()
			p.whole = append(p.whole, o.SessionID) // steps run when the frontend has returned, too
			p.whole = p.whole[max(0, len(p.whole)-maxWhole):]
			p.mu.Unlock()
		}
		return build(ctx, c)
	}
}
