package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/console"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/load"
	"github.com/optbuild/optbuild/builder/nodes"
	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/process"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/explain"
)

func buildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Aliases:   []string{"b"},
		Usage:     "build an image from a Dockerfile",
		ArgsUsage: "PATH | URL | -",
		Flags:     slices.Concat(buildFlags(), oldResourceFlags(), ignoredFlags()),
		Action:    runBuild,
	}
}

func runBuild(c *cli.Context) error {
	if c.NArg() != 1 {
		return contextArgument(c.Args().Slice())
	}
	if _, err := optimizeOptions(c); err != nil {
		return err
	}
	err := buildOnce(c, true)
	var lost *lostCacheError
	if c.Context.Err() != nil || !errors.As(err, &lost) || readsStdin(c) {
		return err
	}
	// What the cache promised it did not have. Its layers had not been fetched until a step needed them, and then it was too late to run those that made them.
	warn("building again without a shared cache: " + lost.layer)
	return buildOnce(c, false)
}

// readsStdin is true if a second build would find nothing there.
func readsStdin(c *cli.Context) bool {
	return c.Args().First() == "-" || c.String("file") == "-"
}

// buildOnce builds, with or without what --cache and --cache-from name.
func buildOnce(c *cli.Context, shared bool) error {
	b, err := newBuild(c, shared)
	if err != nil {
		return err
	}
	defer b.solve.Discard()
	for _, w := range slices.Concat(ignoredWarnings(c), resourceWarnings(c), b.solve.Warnings) {
		warn(w)
	}
	root, err := stateDir(c)
	if err == nil {
		_, err = process.OpenDir(root)
	}
	if err != nil {
		return err
	}
	examined := make(chan error, 1)
	go func() { examined <- b.solve.Examine(c.Context) }() // while an engine starts
	conn, err := connect(c)
	eerr := <-examined
	if err != nil {
		return err
	}
	if eerr != nil {
		_ = conn.Close()
		return buildInputError(eerr)
	}
	var resp *client.SolveResponse
	var account *explain.Account
	var over error // the image is kept, and is over a limit
	if err = b.checkBefore(c.Context, conn); err == nil {
		if resp, account, err = b.run(c.Context, conn); err == nil {
			over = b.checkAfter(c.Context, conn, resp)
			err = b.loadOwn(c.Context, conn)
		}
	}
	var lost *process.LostError
	var unreadable *request.InputError
	if c.Context.Err() == nil && !errors.As(err, &lost) && !errors.As(err, &unreadable) {
		if err := b.solve.Sent(); err != nil {
			warn(err.Error())
		}
	}
	if cerr := conn.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := b.solve.Commit(); err != nil {
		return err
	}
	if err := b.join(c, resp); err != nil {
		return err
	}
	if err := b.deliver(c, resp, account); err != nil {
		return err
	}
	return over
}

// build is one run of the command.
type build struct {
	solve   *request.Solve
	mode    progressui.DisplayMode
	quiet   bool
	debug   bool
	engine  *load.Engine // that the image is loaded into, nil if it is not
	iidFile string
	metaTo  string
	state   string // the state directory; set when the engine runs
	once    bool   // the context comes from standard input, which can't be read again
	told    told
	checks  checks
	fleet   *fleet    // nil if everything is built here
	steps   toldBuild // what became of them; set when the build has ended

	report     *frontend.Report // of the compiler, nil if there is none; set when the build has ended
	unreported error            // why it could not be read
}

func newBuild(c *cli.Context, shared bool) (*build, error) {
	b := &build{quiet: c.Bool("quiet") || c.String("progress") == "quiet", debug: c.Bool("debug"), iidFile: c.String("iidfile"), metaTo: c.String("metadata-file"), once: c.Args().First() == "-"}
	var err error
	if b.checks, err = checksOf(c); err != nil {
		return nil, err
	}
	if b.mode, err = displayMode(c); err != nil {
		return nil, err
	}
	b.told.page = c.String("report")
	b.told.quiet = b.quiet || silent(b.mode)
	if b.told.filter, err = parseRemarks(c.String("remarks")); err != nil {
		return nil, err
	}
	for _, out := range []struct{ flag, path string }{{"iidfile", b.iidFile}, {"metadata-file", b.metaTo}, {"report", b.told.page}} {
		if err := checkFolder(out.path); err != nil { // before the build, not after it
			return nil, usagef("--%s %s: %w", out.flag, out.path, err)
		}
	}
	if b.iidFile != "" { // a failed build must not leave the id of an older one
		if err := removeFile(b.iidFile); err != nil {
			return nil, fmt.Errorf("remove old image id file: %w", err)
		}
	}
	registries, err := registryConfig(c)
	if err != nil {
		return nil, err
	}
	docker, err := registries.LoadDocker()
	if err != nil {
		return nil, err
	}
	proxies := map[string]string{}
	for k, v := range docker.ParseProxyConfig("", nil) {
		if v != nil {
			proxies[k] = *v
		}
	}
	r := requestFrom(c)
	if !shared {
		r.Cache, r.CacheFrom = request.CacheOff, nil
	}
	if err := useProfiles(c, &r); err != nil {
		return nil, err
	}
	r.Proxies = proxies
	r.Loader = b.loader(c.Context, load.Options{DockerConfig: filepath.Dir(docker.GetFilename()), CurrentContext: docker.CurrentContext})
	root, err := stateDir(c)
	if err != nil {
		return nil, err
	}
	r.Ledgers = filepath.Join(root, "contexts")
	if b.solve, err = request.New(c.Context, r, frontend.Name); err != nil {
		return nil, buildInputError(err)
	}
	if err := b.useNodes(c); err != nil {
		b.solve.Discard()
		return nil, err
	}
	auth, err := registry.Auth(registries, docker)
	if err != nil {
		return nil, err
	}
	b.solve.Session = append(b.solve.Session, auth)
	return b, nil
}

// loader returns how to find the engine for --load.
func (b *build) loader(ctx context.Context, o load.Options) func() (func() (io.WriteCloser, error), error) {
	return func() (func() (io.WriteCloser, error), error) {
		e, err := load.Find(ctx, o)
		if errors.Is(err, load.ErrNoEngine) {
			err = withHint(err, "start one, or name it with DOCKER_HOST; without an engine: -t NAME alone keeps the image in optbuild's own store, -o type=docker,dest=FILE writes an archive")
		}
		if err != nil {
			return nil, err
		}
		b.engine = e
		return func() (io.WriteCloser, error) { return e.Open(ctx), nil }, nil
	}
}

// buildInputError makes wrong flags usage errors and adds the hints of input errors.
func buildInputError(err error) error {
	var fe *request.FlagError
	var ie *request.InputError
	switch {
	case errors.As(err, &fe):
		return &usageErr{err}
	case errors.As(err, &ie) && ie.Hint != "":
		return withHint(err, "%s", ie.Hint)
	}
	return err
}

// run solves and shows the progress. It returns when the build has ended or the engine is lost.
func (b *build) run(ctx context.Context, conn *builder.Conn) (*client.SolveResponse, *explain.Account, error) {
	b.state = conn.Dir.Path()
	ctx, cancel := conn.Watch(ctx)
	defer cancel()
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	ended := refuseUnreadable(b.solve, refuse)
	defer ended()
	rec := newRecorder(filepath.Join(conn.Dir.Path(), "logs"))
	defer rec.close()
	show, err := newDisplay(b.mode, rec)
	if err != nil {
		return nil, nil, err
	}
	var resp *client.SolveResponse
	switch {
	case b.solve.Call != nil:
		resp, err = b.call(ctx, conn, show.statuses())
	case b.fleet != nil:
		resp, err = b.solveWithNodes(ctx, conn, show)
	default:
		resp, err = conn.Client.Solve(ctx, nil, b.solve.SolveOpt, show.statuses())
		if outcome.IsSharedCode(err) && ctx.Err() == nil && !b.once {
			show.wait()
			warn(visible(sharedCode(err)))
			b.unshare()
			if show, err = newDisplay(b.mode, rec); err != nil {
				return nil, nil, err
			}
			resp, err = conn.Client.Solve(ctx, nil, b.solve.SolveOpt, show.statuses())
		}
	}
	ended()
	show.wait()
	if err == nil && b.told.page == "" && !b.checks.any() && b.solve.LoadOwn == nil {
		conn.Leave() // the engine ends while what became of the build is written down
	}
	if resp != nil {
		b.report, b.unreported = frontend.ReadReport(resp.ExporterResponse)
	}
	if b.solve.Call == nil {
		b.steps = b.became(rec, err != nil)
	}
	err = conn.Explain(err)
	if err != nil && !b.told.quiet {
		for _, line := range b.fleet.notes() {
			warn(line)
		}
	}
	var lost *process.LostError
	var unreadable *request.InputError
	var gone *nodes.UnavailableError
	switch {
	case err == nil:
	case errors.As(context.Cause(ctx), &unreadable):
		return nil, nil, buildInputError(unreadable)
	case errors.As(err, &lost):
		return nil, nil, err
	case ctx.Err() != nil: // interrupted: nothing that the Dockerfile's author did
		return nil, nil, err
	case errors.As(err, &gone):
		return nil, nil, nodeError(gone)
	default:
		err = lostCache(b.explain(err, rec, show), rec)
	}
	show.showWarnings(b.debug)
	annotate(os.Stderr, warningAnnotations(b.solve.Dockerfile, show.warnings)...)
	if err != nil {
		return nil, nil, err
	}
	return resp, b.compilation(ctx, conn, rec.times, resp), nil
}

// refuseUnreadable cancels the solve when one of its inputs can't be read. When ended returns, what was found until then is
// the cause; it may be called again.
func refuseUnreadable(s *request.Solve, cancel context.CancelCauseFunc) (ended func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case err := <-s.Unreadable():
			cancel(err)
		case <-stop:
		}
	}()
	return sync.OnceFunc(func() {
		close(stop)
		<-done
		select {
		case err := <-s.Unreadable():
			cancel(err)
		default:
		}
	})
}

// call asks the frontend a question; its answer is metadata of the result, which only a gateway client is shown.
func (b *build) call(ctx context.Context, conn *builder.Conn, ch chan *client.SolveStatus) (*client.SolveResponse, error) {
	opt := b.solve.SolveOpt
	name, attrs := opt.Frontend, opt.FrontendAttrs
	opt.Frontend = ""
	answer := map[string]string{}
	_, err := conn.Client.Build(ctx, opt, "optbuild", func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
		res, err := c.Solve(ctx, gwclient.SolveRequest{Frontend: name, FrontendOpt: attrs})
		if err != nil {
			return nil, err
		}
		for k, v := range res.Metadata {
			answer[k] = string(v)
		}
		return res, nil
	}, ch)
	return &client.SolveResponse{ExporterResponse: answer}, err
}

// deliver writes what a finished build gives to files and to stdout.
func (b *build) deliver(c *cli.Context, resp *client.SolveResponse, account *explain.Account) error {
	id := imageID(resp.ExporterResponse)
	if b.iidFile != "" {
		if err := replaceFile(b.iidFile, func(w io.Writer) error { _, err := io.WriteString(w, id); return err }); err != nil {
			return fmt.Errorf("write image id: %w", err)
		}
	}
	if b.metaTo != "" {
		if err := replaceFile(b.metaTo, func(w io.Writer) error { return printJSON(w, b.metadata(resp.ExporterResponse, account)) }); err != nil {
			return fmt.Errorf("write metadata: %w", err)
		}
	}
	if b.solve.Call != nil {
		return printCall(c.App.Writer, b.solve, resp.ExporterResponse)
	}
	for _, f := range outcome.ReadForeign(resp.ExporterResponse) {
		warn("warning: " + visible(f.String()) + " (--strict makes this an error)")
	}
	if b.engine != nil && b.mode != progressui.QuietMode {
		warn("loaded into " + b.engine.String())
	}
	if b.quiet && id != "" {
		fmt.Fprintln(c.App.Writer, id)
	}
	if err := b.told.tell(os.Stderr, account, b.state); err != nil {
		return err
	}
	if !b.told.quiet {
		tellLayers(resp.ExporterResponse)
		for _, line := range slices.Concat(b.solve.Notes, b.fleet.notes(), b.steps.summary(), b.steps.same(outcome.ReadSame(resp.ExporterResponse))) {
			warn(line)
		}
		if line := b.solve.Changed(); line != "" {
			warn(line)
		}
	}
	return nil
}

// checkFolder says whether there is a folder for a file to be written.
func checkFolder(path string) error {
	if path == "" {
		return nil
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) || err == nil && !info.IsDir() {
		return fmt.Errorf("there is no directory %s", dir)
	}
	return nil
}

// imageID is what docker calls the image id: the digest of the configuration, or the manifest's when there is none.
func imageID(resp map[string]string) string {
	if id := resp[exptypes.ExporterImageConfigDigestKey]; id != "" {
		return id
	}
	return resp[exptypes.ExporterImageDigestKey]
}

func displayMode(c *cli.Context) (progressui.DisplayMode, error) {
	if c.Bool("quiet") {
		return progressui.QuietMode, nil
	}
	mode := progressui.DisplayMode(c.String("progress"))
	if mode == "none" {
		mode = progressui.QuietMode
	}
	switch mode {
	case progressui.AutoMode, "":
		return progressui.AutoMode, nil
	case progressui.TtyMode, progressui.PlainMode, progressui.RawJSONMode, progressui.QuietMode:
		return mode, nil
	}
	return "", usagef("--progress %s: is not auto, tty, plain, rawjson, quiet or none", mode)
}

func stdoutIsTerminal() bool {
	_, err := console.ConsoleFromFile(os.Stdout)
	return err == nil
}
