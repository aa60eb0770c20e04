package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/profile"
	"github.com/optbuild/optbuild/builder/profile/startup"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/builder/store"
)

// madeProfile is a profile with what is to be known to keep it.
type madeProfile struct {
	*profile.Profile
	names   []string      // in full, that it is kept for
	program string        // that was started, in short
	config  digest.Digest // of the image's configuration
	local   bool          // the image is in the local store
}

// run builds what is to be started, if it is a stage, and starts it.
func (p *profiling) run(c *cli.Context, conn *builder.Conn) (*madeProfile, error) {
	ctx, cancel := conn.Watch(c.Context)
	defer cancel()
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	made := &madeProfile{}
	if p.stage == nil {
		name, local, err := nameOf(ctx, conn, p.image, p.platform)
		if err != nil {
			return nil, conn.Explain(err)
		}
		p.image, made.local, made.names = name, local, []string{name}
	} else {
		for _, t := range c.StringSlice("tag") {
			named, err := store.ParseName(t)
			if err != nil {
				return nil, &usageErr{err}
			}
			made.names = append(made.names, named.String())
		}
		ended := refuseUnreadable(p.stage.solve, refuse)
		defer ended()
		if err := p.stage.solve.Examine(ctx); err != nil {
			return nil, buildInputError(err)
		}
	}
	opt, err := p.solveOpt()
	if err != nil {
		return nil, err
	}
	mode, err := displayMode(c)
	if err != nil {
		return nil, err
	}
	rec := newRecorder(filepath.Join(conn.Dir.Path(), "logs"))
	defer rec.close()
	show, err := newDisplay(mode, rec)
	if err != nil {
		return nil, err
	}
	log := newProgramLog(show.statuses())
	var failed error // by the program, and not by a build
	_, err = conn.Client.Build(ctx, opt, "optbuild", func(ctx context.Context, g gwclient.Client) (*gwclient.Result, error) {
		ref, config, err := p.files(ctx, g)
		if err != nil {
			return nil, err
		}
		failed = p.start(ctx, g, ref, config, log, made)
		return gwclient.NewResult(), nil
	}, log.statuses)
	log.wait()
	show.wait()
	if p.stage != nil && err == nil {
		if err := p.stage.solve.Sent(); err != nil {
			warn(err.Error())
		}
	}
	err = conn.Explain(err)
	var unreadable *request.InputError
	switch {
	case errors.As(context.Cause(ctx), &unreadable):
		return nil, buildInputError(unreadable)
	case err == nil:
		return made, programFailure(failed, show.readable())
	case ctx.Err() != nil || p.stage == nil:
		return nil, err
	default:
		return nil, p.stage.explain(err, rec, show)
	}
}

// solveOpt is what the engine is asked for: a session, without any output.
func (p *profiling) solveOpt() (opt client.SolveOpt, err error) {
	if p.stage == nil {
		docker, err := p.registries.LoadDocker()
		if err != nil {
			return opt, err
		}
		auth, err := registry.Auth(p.registries, docker)
		if err != nil {
			return opt, err
		}
		opt.Session = []session.Attachable{auth}
	} else {
		opt = p.stage.solve.SolveOpt
		opt.Frontend, opt.Exports, opt.CacheExports = "", nil, nil
	}
	if host := entitlements.EntitlementNetworkHost.String(); p.options.Network == pb.NetMode_HOST && !slices.Contains(opt.AllowedEntitlements, host) {
		opt.AllowedEntitlements = append(opt.AllowedEntitlements, host)
	}
	return opt, nil
}

// files returns the files of what is to be started, and its configuration.
func (p *profiling) files(ctx context.Context, g gwclient.Client) (ref gwclient.Reference, config []byte, err error) {
	if p.stage == nil {
		return startup.Image(ctx, g, p.image, p.platform)
	}
	s := p.stage.solve
	delete(s.FrontendAttrs, compress.AttrExport) // no image leaves
	res, err := g.Solve(ctx, gwclient.SolveRequest{Frontend: s.Frontend, FrontendOpt: s.FrontendAttrs, Evaluate: true})
	if err != nil {
		return nil, nil, err
	}
	if ref, err = res.SingleRef(); err != nil {
		return nil, nil, err
	}
	if ref == nil {
		return nil, nil, errors.New("the stage has no files")
	}
	return ref, res.Metadata[exptypes.ExporterImageConfigKey], nil
}

// start starts the program, and completes made.
func (p *profiling) start(ctx context.Context, g gwclient.Client, ref gwclient.Reference, config []byte, log *programLog, made *madeProfile) error {
	program, image, err := startup.ProgramOf(config, p.replaced)
	if err != nil {
		return err
	}
	if p.healthy {
		if p.options.Conditions.Health = program.Health; program.Health == nil {
			return withHint(errors.New("--until-healthy: the image has no HEALTHCHECK"), "wait for a port (--until-port) or for a line of its output (--until-log)")
		}
	}
	o := p.options
	o.Output = log
	made.program = strings.Join(program.Args, " ")
	log.begin("start " + made.program)
	started, err := startup.Watch(ctx, g, ref, program, o)
	log.end(err)
	if err != nil {
		return err
	}
	made.Profile = &profile.Profile{Image: p.image, Platform: platforms.FormatAll(p.platform), Until: started.Until, Files: started.Files}
	if p.stage != nil && len(made.names) > 0 {
		made.Image = made.names[0]
	}
	if p.stage == nil {
		made.config = digest.FromBytes(config)
		if image.RootFS.DiffIDs != nil && len(image.RootFS.DiffIDs) == started.Layers {
			made.Layers = image.RootFS.DiffIDs
		}
	}
	return nil
}

// programLog shows what a program prints in the display of a build, as a step of its own.
type programLog struct {
	statuses chan *client.SolveStatus // for BuildKit's client, which closes it
	to       chan<- *client.SolveStatus
	passed   sync.WaitGroup

	vertex client.Vertex // of the program; set before it starts

	mu    sync.Mutex
	ended bool
}

// newProgramLog passes on what statuses gets.
func newProgramLog(to chan<- *client.SolveStatus) *programLog {
	l := &programLog{statuses: make(chan *client.SolveStatus), to: to}
	l.passed.Go(func() {
		for s := range l.statuses {
			to <- s
		}
	})
	return l
}

func (l *programLog) begin(name string) {
	now := time.Now()
	l.vertex = client.Vertex{Digest: digest.FromString(fmt.Sprint(name, now.UnixNano())), Name: name, Started: &now}
	v := l.vertex
	l.show(&client.SolveStatus{Vertexes: []*client.Vertex{&v}})
}

// show does nothing after the end: a program that is interrupted may still print.
func (l *programLog) show(s *client.SolveStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.to <- s
	}
}

// Write may be called concurrently.
func (l *programLog) Write(p []byte) (int, error) {
	l.show(&client.SolveStatus{Logs: []*client.VertexLog{{Vertex: l.vertex.Digest, Stream: 1, Data: slices.Clone(p), Timestamp: time.Now()}}})
	return len(p), nil
}

func (l *programLog) end(err error) {
	now := time.Now()
	v := l.vertex
	v.Completed = &now
	if err != nil {
		v.Error = err.Error()
	}
	l.show(&client.SolveStatus{Vertexes: []*client.Vertex{&v}})
}

// wait closes the display when all is passed on.
func (l *programLog) wait() {
	l.passed.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	close(l.to)
}
