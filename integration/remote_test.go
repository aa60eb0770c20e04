package integration

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/tonistiigi/fsutil"
)

// remote-build ADDRESS DIR KEY=VALUE...: builds DIR as buildctl does, on a buildkitd that listens on unix://ADDRESS as soon as it
// does, with an exporter that has the given attributes; `type` among them names it. "dest" is the file that it writes.
func remoteBuild(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 3, "remote-build ADDRESS DIR KEY=VALUE...")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.New(ctx, args[0], client.WithContextDialer(dialWhenUp))
	ts.Check(err)
	defer c.Close()
	export := client.ExportEntry{Attrs: map[string]string{}}
	for _, a := range args[2:] {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "type":
			export.Type = v
		case "dest":
			export.Output = func(map[string]string) (io.WriteCloser, error) { return os.Create(ts.MkAbs(v)) }
		default:
			export.Attrs[k] = v
		}
	}
	dir, err := fsutil.NewFS(ts.MkAbs(args[1]))
	ts.Check(err)
	statuses := make(chan *client.SolveStatus)
	said := make(chan string)
	go func() {
		var log strings.Builder
		for s := range statuses {
			for _, l := range s.Logs {
				log.Write(l.Data)
			}
		}
		said <- log.String()
	}()
	_, err = c.Solve(ctx, nil, client.SolveOpt{
		Frontend:    "dockerfile.v0",
		LocalMounts: map[string]fsutil.FS{"context": dir, "dockerfile": dir},
		Exports:     []client.ExportEntry{export},
	}, statuses)
	ts.Logf("[remote-build]\n%s", <-said)
	ts.Check(err)
}

// remote-offers ADDRESS PLATFORM...: what the worker of a buildkitd says that it can build for, the build platform first, has the platforms.
func remoteOffers(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "remote-offers ADDRESS PLATFORM...")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.New(ctx, args[0], client.WithContextDialer(dialWhenUp))
	ts.Check(err)
	defer c.Close()
	workers, err := c.ListWorkers(ctx)
	ts.Check(err)
	var offered []string
	for _, w := range workers {
		for _, p := range w.Platforms {
			offered = append(offered, platforms.FormatAll(platforms.Normalize(p)))
		}
	}
	ts.Logf("%v", offered)
	if own := platforms.FormatAll(platforms.DefaultSpec()); len(offered) == 0 || offered[0] != own {
		ts.Fatalf("the build platform is not %s: %v", own, offered)
	}
	for _, p := range args[1:] {
		if !slices.Contains(offered, p) {
			ts.Fatalf("%s is not offered: %v", p, offered)
		}
	}
}

// dialWhenUp dials a unix socket, and waits for it to be there.
func dialWhenUp(ctx context.Context, address string) (net.Conn, error) {
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
		if err == nil || ctx.Err() != nil {
			return c, errors.Join(err, ctx.Err())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
