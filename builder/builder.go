// Package builder gives a command access to an engine: it starts or joins one (package process), which runs BuildKit's
// solver (package engine) with the embedded runtime (package runtime).
//
//	Connect ──> process.Connect ──> a child process: Main ──> engine.New
//	   └──────> BuildKit client, image store
//
// It knows nothing of Dockerfiles: frontends are handed to Main by cmd.
package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/optbuild/optbuild/builder/housekeeping"
	"github.com/optbuild/optbuild/builder/process"
	"github.com/optbuild/optbuild/builder/registry"
	"github.com/optbuild/optbuild/builder/store"
	"github.com/optbuild/optbuild/builder/store/api"
)

// Options say which engine a command wants.
type Options struct {
	// Root is the state directory.
	Root string
	// Say is called with lines for the user while Connect waits. May be nil.
	Say func(string)
	// Settings of the engine, if this command is the one that starts it.
	Settings Settings
	// SingleID forces the single-id mode.
	SingleID bool
	// Sync makes the engine write the cache to disk before it ends: for machines that are thrown away after the build while
	// the state directory is kept.
	Sync bool
}

// Settings are decided by the command that starts an engine; commands that join it get the engine as it is.
type Settings struct {
	// Runtime is the path of another OCI runtime than the embedded one.
	Runtime string `json:"runtime,omitempty"`
	// Debug makes the engine's log verbose.
	Debug bool `json:"debug,omitempty"`
	// Registry says how registries are talked to.
	Registry registry.Config `json:"registry,omitzero"`
	// Daemon makes the engine serve like a buildkitd; see Serve.
	Daemon *daemonSettings `json:"daemon,omitempty"`
	// MaxCache is the most bytes that the cache may take on disk; 0 means a share of the disk.
	MaxCache int64 `json:"maxCache,omitempty"`
}

// Conn is a command's connection to its engine. Close it.
type Conn struct {
	*process.Conn
	Dir    process.Dir
	Client *client.Client

	images *grpc.ClientConn
}

// Connect joins or starts the engine of a state directory.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	d, err := process.OpenDir(o.Root)
	if err != nil {
		return nil, err
	}
	pc, err := process.Connect(ctx, d, process.Options{Build: BuildID(), Settings: o.Settings, Say: o.Say, SingleID: o.SingleID, Sync: o.Sync})
	if err != nil {
		return nil, err
	}
	if !pc.Started {
		pc.Notices = append(pc.Notices, missing(pc.Settings, o.Settings)...)
	}
	c, err := client.New(ctx, "unix:///optbuild", client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return pc.Dial(ctx, process.ServiceBuildKit)
	}))
	if err != nil {
		pc.Close()
		return nil, fmt.Errorf("create client: %w", err)
	}
	images, err := grpc.NewClient("passthrough:///optbuild-store",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pc.Dial(ctx, process.ServiceStore) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)))
	if err != nil {
		c.Close()
		pc.Close()
		return nil, fmt.Errorf("create image store client: %w", err)
	}
	return &Conn{Conn: pc, Dir: d, Client: c, images: images}, nil
}

// missing are lines about what a command wants of an engine that another command started without it.
func missing(running json.RawMessage, want Settings) (lines []string) {
	var has Settings
	if err := json.Unmarshal(running, &has); err != nil {
		return nil
	}
	for _, host := range has.Registry.Lacks(want.Registry) {
		lines = append(lines, fmt.Sprintf("warning: --insecure-registry %s has no effect: another optbuild that is running now started without it", host))
	}
	return lines
}

// Store returns the engine's local image store. It can be used until the connection is closed.
func (c *Conn) Store(o store.Options) *store.Store { return store.New(api.Client(c.images), o) }

// Keeper returns a client for disk usage and pruning.
func (c *Conn) Keeper() *housekeeping.Client {
	return housekeeping.NewClient(func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, process.ServiceKeeper) })
}

// Explain returns err, or what is behind it when a call failed because the engine went away.
func (c *Conn) Explain(err error) error {
	if err == nil {
		return nil
	}
	patience := time.Duration(0)
	if status.Code(err) == codes.Unavailable || errdefs.IsUnavailable(err) { // as BuildKit's client, or the image store's, says it
		patience = time.Second // all connections end with the engine, but one may be seen to end before the other
	}
	if lost := c.LostWithin(patience); lost != nil {
		return lost
	}
	return err
}

// Close gives up the connection; when no other command uses the engine, it returns after the engine has ended.
func (c *Conn) Close() error {
	err := errors.Join(c.Client.Close(), c.images.Close())
	if herr := c.Conn.Close(); err == nil {
		err = herr
	}
	return err
}

// buildID is set at link time to a digest of the sources that the binary was built from.
var buildID string

// BuildID identifies this binary: commands join only engines of the same build.
var BuildID = sync.OnceValue(func() string {
	if buildID != "" {
		return buildID
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	id := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" || s.Key == "vcs.modified" {
			id += " " + s.Value
		}
	}
	return id
})
