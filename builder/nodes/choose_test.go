package nodes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	apitypes "github.com/moby/buildkit/api/types"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/grpc"
)

// daemon is what a fleet asks of a BuildKit daemon before it solves there. It is at work on some builds.
type daemon struct {
	controlapi.UnimplementedControlServer
	arch   string
	builds int
	mute   bool // it takes connections, and never answers
}

func (d *daemon) ListWorkers(ctx context.Context, _ *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	if d.mute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &controlapi.ListWorkersResponse{Record: []*apitypes.WorkerRecord{{ID: "w", Platforms: []*pb.Platform{{OS: "linux", Architecture: d.arch}}}}}, nil
}

func (d *daemon) ListenBuildHistory(_ *controlapi.BuildHistoryRequest, s grpc.ServerStreamingServer[controlapi.BuildHistoryEvent]) error {
	for range d.builds {
		if err := s.Send(&controlapi.BuildHistoryEvent{Type: controlapi.BuildHistoryEventType_STARTED}); err != nil {
			return err
		}
	}
	return nil
}

// fleetOf serves daemons, a nil one being none at all, and returns the fleet of them, for linux/arm64.
func fleetOf(t *testing.T, timeout time.Duration, daemons ...*daemon) *Fleet {
	t.Helper()
	var list []Node
	for i, d := range daemons {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		list = append(list, Node{Platforms: []string{"linux/arm64"}, Address: "unix://" + path, Timeout: timeout})
		if d == nil {
			continue
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		controlapi.RegisterControlServer(s, d)
		go s.Serve(l)
		t.Cleanup(s.Stop)
	}
	f := New(list)
	f.grace = time.Minute // all are waited for
	return f
}

func TestChoose(t *testing.T) {
	const impatient = "none that is silent"
	for _, c := range []struct {
		name    string
		daemons []*daemon
		want    []int // the nodes that are taken, one after another; -1: none
		lost    string
		timeout time.Duration
	}{
		{"the least busy one", []*daemon{{arch: "arm64", builds: 3}, {arch: "arm64", builds: 1}, {arch: "arm64", builds: 2}}, []int{1}, "", time.Minute},
		{"what is sent there counts", []*daemon{{arch: "arm64", builds: 3}, {arch: "arm64", builds: 1}}, []int{1, 1, 0}, "", time.Minute},
		{"an idle one", []*daemon{{arch: "arm64", builds: 1}, {arch: "arm64"}}, []int{1}, "", time.Minute},
		{"none that is not there", []*daemon{nil, {arch: "arm64", builds: 1}}, []int{1}, "dial unix", time.Minute},
		{"none of another platform", []*daemon{{arch: "riscv64"}, {arch: "arm64", builds: 1}}, []int{1}, "does not build linux/arm64: it has linux/riscv64", time.Minute},
		{impatient, []*daemon{{arch: "arm64", builds: 9}, {mute: true}}, []int{0}, "", time.Minute},
		{"none", []*daemon{nil, {mute: true}}, []int{-1}, "no answer in 300ms", 300 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := fleetOf(t, c.timeout, c.daemons...)
			if c.name == impatient {
				f.grace = 100 * time.Millisecond
			}
			var lost []string
			for turn, want := range c.want {
				got, failed := f.choose(t.Context(), "linux/arm64", f.nodes)
				for _, l := range failed {
					lost = append(lost, l.Error())
				}
				switch {
				case want < 0 && got != nil, want >= 0 && (got == nil || got.node != f.nodes[want]):
					t.Errorf("turn %d: got %+v, want node %d", turn, got, want)
				}
				if got != nil {
					got.client.Close()
				}
			}
			if text := strings.Join(lost, "\n"); c.lost == "" && text != "" || !strings.Contains(text, c.lost) {
				t.Errorf("lost: %q, want %q", text, c.lost)
			}
		})
	}
}

// TestWatch gives up a node that is silent, and not one that answers that it can't.
func TestWatch(t *testing.T) {
	ctx, lose := context.WithCancelCause(t.Context())
	defer lose(nil)
	f := fleetOf(t, time.Minute, &daemon{arch: "arm64"}) // Info is not implemented
	n := f.nodes[0]
	c, err := n.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	some, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	watch(some, c, 100*time.Millisecond, lose)
	if ctx.Err() != nil {
		t.Fatalf("it answered, and is given up: %v", context.Cause(ctx))
	}

	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s")) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err = (&Node{Address: "unix://" + l.Addr().String()}).dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	watch(ctx, c, 100*time.Millisecond, lose)
	if !errors.Is(context.Cause(ctx), errSilent) {
		t.Errorf("it is silent, and the cause is %v", context.Cause(ctx))
	}
}

// TestIdle takes an idle node without waiting for one that is silent.
func TestIdle(t *testing.T) {
	f := fleetOf(t, time.Hour, &daemon{mute: true}, &daemon{arch: "arm64"})
	f.grace = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, lost := f.choose(ctx, "linux/arm64", f.nodes)
	if ctx.Err() != nil || got == nil || got.node != f.nodes[1] || len(lost) > 0 {
		t.Fatalf("got %+v, lost %v, %v", got, lost, ctx.Err())
	}
	got.client.Close()
}
