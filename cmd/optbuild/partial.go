package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/index"
	"github.com/optbuild/optbuild/builder/registry"
)

// joined is what --metadata-file says of the index, as optbuild.index.
type joined struct {
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"`
	Platforms []string      `json:"platforms"`
}

// join adds what a build with --partial has pushed to the index.
func (b *build) join(c *cli.Context, resp *client.SolveResponse) error {
	named := b.solve.Partial
	if named == nil || b.solve.Call != nil {
		return nil
	}
	part, err := digest.Parse(resp.ExporterResponse[exptypes.ExporterImageDigestKey])
	if err != nil {
		return fmt.Errorf("find what was pushed: %w", err)
	}
	registries, err := registryConfig(c)
	if err != nil {
		return err
	}
	x, err := index.New(registry.ClientHosts(registries)).Join(c.Context, named, part)
	if err != nil {
		return withHint(err, "what was built is at the registry as %s@%s: `optbuild index create --append -t %s %[1]s@%[2]s` adds it", reference.FamiliarName(named), part, reference.FamiliarString(named))
	}
	said, err := json.Marshal(joined{x.Name, x.Digest, x.Platforms()})
	if err != nil {
		return err
	}
	resp.ExporterResponse["optbuild.index"] = base64.StdEncoding.EncodeToString(said)
	if !b.told.quiet {
		warn(fmt.Sprintf("index: %s has %s (%s)", reference.FamiliarString(named), visible(strings.Join(x.Platforms(), ", ")), x.Digest))
	}
	return nil
}
