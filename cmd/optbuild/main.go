// Command optbuild builds container images from Dockerfiles, without a daemon.
//
// This package is the command line: flags, terminal, exit codes. It sees both halves of optbuild, the compiler (package
// frontend) and the engine (package builder), and joins them at BuildKit's gateway interface.
package main

import (
	"context"
	"io"
	"log"
	"os"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/process"
	_ "github.com/optbuild/optbuild/builder/process/nogc" // switches the collector off before other packages are initialised
	"github.com/optbuild/optbuild/frontend"
)

func main() {
	builder.Main(map[string]gwclient.BuildFunc{frontend.Name: frontend.Build}) // returns unless this process is an engine
	process.StartWithoutGC()
	// Libraries log to stderr in a form that is not for people; what matters comes back as an error.
	logrus.SetLevel(logrus.ErrorLevel)
	log.SetOutput(io.Discard)
	ctx, interrupted := withSignals(context.Background())
	app := newApp()
	out := &resultWriter{Writer: app.Writer}
	app.Writer = out
	err := app.RunContext(ctx, normaliseArgs(os.Args))
	if err == nil {
		err = out.err
	}
	os.Exit(finish(err, interrupted()))
}
