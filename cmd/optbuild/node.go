package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/emulation"
	"github.com/optbuild/optbuild/builder/nodes"
	"github.com/optbuild/optbuild/builder/scope"
	"github.com/optbuild/optbuild/builder/store"
	"github.com/optbuild/optbuild/frontend"
)

// This file is for builds of which some platforms are solved by BuildKit daemons elsewhere (package nodes).

// nodeEnv is the environment variable that names nodes, separated by white space.
const nodeEnv = "OPTBUILD_NODE"

// nodesOf reads --node, or else the environment.
func nodesOf(c *cli.Context) (list []nodes.Node, err error) {
	from, texts := "--node", c.StringSlice("node")
	if len(texts) == 0 {
		from, texts = nodeEnv, strings.Fields(os.Getenv(nodeEnv))
	}
	for _, text := range texts {
		n, err := nodes.Parse(text)
		if err != nil {
			return nil, usagef("%s %s: %w", from, text, err)
		}
		list = append(list, n)
	}
	return list, nil
}

// fleet is what the nodes of a build are needed for.
type fleet struct {
	*nodes.Fleet
	platforms []string // of the build
	index     bool     // also of one platform
	cached    bool     // a shared cache is used for what is built here
}

// notes are lines about where platforms were built.
func (f *fleet) notes() []string {
	if f == nil {
		return nil
	}
	list := f.Fleet.Notes()
	if f.cached {
		list = append(list, "cache: it is read and written for what is built here, not by nodes")
	}
	return list
}

// useNodes decides whether the build needs nodes, and refuses what can't be done with them. It is called when the request is known.
func (b *build) useNodes(c *cli.Context) error {
	list, err := nodesOf(c)
	if err != nil || len(list) == 0 || b.solve.Call != nil {
		return err
	}
	attrs := b.solve.FrontendAttrs
	f := &fleet{Fleet: nodes.New(list), platforms: []string{platforms.FormatAll(platforms.Normalize(platforms.DefaultSpec()))}, index: attrs["multi-platform"] == "true"}
	if p := attrs["platform"]; p != "" {
		f.platforms = strings.Split(p, ",")
	}
	if !slices.ContainsFunc(f.platforms, f.Has) {
		if c.IsSet("node") {
			warn(fmt.Sprintf("warning: --node has no effect: no node is for %s, which is what is built", strings.Join(f.platforms, ", ")))
		}
		return nil
	}
	if strings.HasPrefix(attrs["context"], "http://buildkit-session/") {
		return usagef("--node: an archive on standard input can be read once, and each platform reads it; unpack it, and build the directory")
	}
	for _, n := range list {
		if n.Open() {
			warn(fmt.Sprintf("warning: --node %s: without TLS, everybody on the network can read the context, secrets and credentials (cacert=, cert=, key=)", n.Address))
		}
	}
	b.fleet = f
	return nil
}

// solveWithNodes solves the build, the platforms that have nodes on these.
func (b *build) solveWithNodes(ctx context.Context, conn *builder.Conn, show *display) (resp *client.SolveResponse, err error) {
	s, end, err := conn.Store(store.Options{}).Hold(ctx)
	if err != nil {
		close(show.in)
		return nil, err
	}
	defer end(&err)
	b.fleet.cached = slices.ContainsFunc(b.solve.CacheImports, func(e client.CacheOptionsEntry) bool { return e.Type == scope.Type })
	work := nodes.Build{
		Platforms: b.fleet.platforms, Index: b.fleet.index, Options: b.solve.SolveOpt, Layers: layersForNodes(b.solve.Exports),
		Frontend: frontend.Build, Store: s, Status: func(s *client.SolveStatus) { show.in <- s },
		ReportKey: frontend.ReportKey, Merge: mergeReports,
	}
	if b.solve.FrontendAttrs["attest:provenance"] != "" {
		work.Word = rand.Text()
	}
	solve, failed := b.fleet.Build(work)
	resp, err = conn.Client.Build(ctx, work.Own(), "optbuild", solve, show.statuses())
	if ferr := failed(); err != nil && ferr != nil && ctx.Err() == nil {
		err = ferr
	}
	return resp, err
}

// layersForNodes are the attributes of outputs about compression that every BuildKit knows. What comes in that form is left as it is by the engine.
func layersForNodes(exports []client.ExportEntry) map[string]string {
	attrs := map[string]string{}
	for _, e := range exports {
		switch e.Type {
		case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
			for _, key := range []string{"compression", "compression-level"} {
				if v := e.Attrs[key]; v != "" && (key != "compression" || slices.Contains([]string{"gzip", "zstd", "uncompressed"}, v)) {
					attrs[key] = v
				}
			}
		}
	}
	if attrs["compression"] == "" {
		delete(attrs, "compression-level")
	}
	return attrs
}

// mergeReports makes one report of those of several solves, of which the first one's account counts. Of steps on nodes only the lines are taken: the others' plans may have other steps.
func mergeReports(reports [][]byte, addresses []string) []byte {
	var all *frontend.Report
	for i, text := range reports {
		var r frontend.Report
		if json.Unmarshal(text, &r) != nil {
			continue
		}
		if address := addresses[i]; address != "" {
			steps := map[string]frontend.Vertex{}
			for d, v := range r.Steps {
				if all != nil {
					v.Step = 0
				}
				steps[nodes.Salt(address, d).String()] = v
			}
			r.Steps = steps
		}
		if all == nil {
			all = &r
			continue
		}
		if all.Steps == nil {
			all.Steps = map[string]frontend.Vertex{}
		}
		maps.Copy(all.Steps, r.Steps)
	}
	if all == nil {
		return nil
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(fmt.Sprintf("write the compiler's report: %v", err)) // it was read from such a text
	}
	return text
}

// nodeError adds the remedy to an error about nodes.
func nodeError(err error) error {
	var gone *nodes.UnavailableError
	if !errors.As(err, &gone) {
		return err
	}
	hint := "`buildctl --addr ADDRESS debug workers` shows whether a daemon answers"
	if strings.HasPrefix(gone.Platform, "linux/") {
		hint += "; with an emulator (as root: " + emulation.Install + ") this machine can build it"
	}
	return withHint(fmt.Errorf("--node: %w", gone), "%s", hint)
}
