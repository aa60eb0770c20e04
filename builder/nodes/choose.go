package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/grpcerrors"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
)

// chosen is a node that has answered. Its client is to be closed.
type chosen struct {
	node   *node
	client *client.Client
}

// lostNode is one that has not.
type lostNode struct {
	node *node
	*LostError
}

// answer is what a node said when it was asked.
type answer struct {
	node   *node
	client *client.Client
	builds int // that it is at work on
	err    error
}

// choose asks the candidates at once and takes the least busy one of those that answer, or the first one if that is idle. It is none if no node can do it; then, and only then, all are in lost.
// The chosen one has one solve more until it is left.
func (f *Fleet) choose(ctx context.Context, platform string, candidates []*node) (*chosen, []lostNode) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(candidates))
	for _, n := range candidates {
		go func() { answers <- ask(ctx, n, platform) }()
	}
	var there []answer
	var lost []lostNode
	var enough <-chan time.Time
	pending := len(candidates)
	defer func() { // the rest is of no interest
		cancel()
		for range pending {
			if a := <-answers; a.client != nil {
				a.client.Close()
			}
		}
	}()
	for pending > 0 {
		select {
		case a := <-answers:
			pending--
			if a.err != nil {
				lost = append(lost, lostNode{a.node, &LostError{a.node.Address, a.err}})
				continue
			}
			there = append(there, a)
			if best := f.take(there, candidates, pending == 0); best != nil {
				return best, lost
			}
			if enough == nil {
				enough = time.After(f.grace)
			}
			continue
		case <-enough:
		}
		break
	}
	return f.take(there, candidates, true), lost
}

// take chooses among those that have answered, and closes the clients of the others. Without must, only an idle one will do.
func (f *Fleet) take(there []answer, order []*node, must bool) *chosen {
	f.mu.Lock()
	defer f.mu.Unlock()
	best := -1
	load := func(i int) int { return there[i].builds + there[i].node.solves }
	for i := range there {
		if best < 0 || load(i) < load(best) || load(i) == load(best) && slices.Index(order, there[i].node) < slices.Index(order, there[best].node) {
			best = i
		}
	}
	if best < 0 || !must && load(best) > 0 {
		return nil
	}
	for i, a := range there {
		if i != best {
			a.client.Close()
		}
	}
	there[best].node.solves++
	return &chosen{there[best].node, there[best].client}
}

// ask finds out whether a node is there, builds the platform, and how busy it is.
func ask(ctx context.Context, n *node, platform string) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	a.node = n
	c, err := n.dial(ctx)
	if err != nil {
		a.err = err
		return a
	}
	workers, err := c.ListWorkers(ctx)
	if err == nil {
		err = builds(workers, platform)
	}
	if err != nil {
		c.Close()
		if expired(ctx, err) {
			err = fmt.Errorf("no answer in %s", n.Timeout)
		}
		a.err = plain(err)
		return a
	}
	a.client, a.builds = c, active(ctx, c)
	return a
}

// expired reports whether a call has failed for want of time. The other end, which knows the deadline, may be the first to say so.
func expired(ctx context.Context, err error) bool {
	return errors.Is(ctx.Err(), context.DeadlineExceeded) || grpcerrors.Code(err) == codes.DeadlineExceeded
}

// dial makes a client. Nothing is sent yet.
func (n *Node) dial(ctx context.Context) (*client.Client, error) {
	var opts []client.ClientOpt
	if n.secure() {
		name := n.ServerName
		if u, err := url.Parse(n.Address); name == "" && err == nil {
			name = u.Hostname()
		}
		if n.CACert != "" {
			opts = append(opts, client.WithServerConfig(name, n.CACert))
		} else {
			opts = append(opts, client.WithServerConfigSystem(name))
		}
		if n.Cert != "" {
			opts = append(opts, client.WithCredentials(n.Cert, n.Key))
		}
	}
	return client.New(ctx, n.Address, opts...)
}

// builds is an error if none of the workers builds a platform.
func builds(workers []*client.WorkerInfo, platform string) error {
	want, err := platforms.Parse(platform)
	if err != nil {
		return err
	}
	var all []ocispecs.Platform
	for _, w := range workers {
		all = append(all, w.Platforms...)
	}
	if canBuild(all, want) {
		return nil
	}
	var names []string
	for _, p := range all {
		if name := platforms.FormatAll(p); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return fmt.Errorf("does not build %s: it has %s", platform, strings.Join(names, ", "))
}

func canBuild(has []ocispecs.Platform, want ocispecs.Platform) bool {
	return slices.ContainsFunc(has, func(p ocispecs.Platform) bool {
		return platforms.Only(p).Match(want)
	})
}

// active counts the builds that a node is at work on; one that does not tell counts as idle.
func active(ctx context.Context, c *client.Client) (n int) {
	stream, err := c.ControlClient().ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{ActiveOnly: true, EarlyExit: true})
	if err != nil {
		return 0
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) || err != nil {
			return n
		}
		if e.Type == controlapi.BuildHistoryEventType_STARTED {
			n++
		}
	}
}

// plain takes gRPC's wrapping from the error of a connection.
func plain(err error) error {
	text := err.Error()
	for { // connection error: desc = "transport: … desc = \"…\""
		_, quoted, ok := strings.Cut(text, "desc = ")
		if !ok {
			break
		}
		if s, uerr := strconv.Unquote(quoted); uerr == nil {
			quoted = s
		}
		text = quoted
	}
	text = strings.TrimPrefix(text, "transport: ")
	text = strings.TrimPrefix(text, "Error while dialing: ")
	text = strings.TrimPrefix(text, "authentication handshake failed: ")
	if grpcerrors.Code(err) == codes.Unimplemented {
		text = "is no BuildKit daemon (" + text + ")"
	}
	return errors.New(text)
}
