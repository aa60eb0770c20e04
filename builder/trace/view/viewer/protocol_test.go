package viewer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/optbuild/optbuild/builder/trace"
)

// fake is a view that is no mount.
type fake struct {
	seen     []trace.Seen
	closeErr error
	seenErr  error
	closed   atomic.Bool
	wait     <-chan struct{} // Close waits for it; may be nil
}

func (f *fake) Close(ctx context.Context) error {
	if f.wait != nil {
		select {
		case <-f.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.closed.Store(true)
	return f.closeErr
}

func (f *fake) Seen() ([]trace.Seen, error) { return f.seen, f.seenErr }

// connect returns a client of a server in this process. The views are named by the paths of directories.
func connect(t testing.TB, views map[string]*fake) (c *client, hangUp func()) {
	here, there := net.Pipe()
	result := make(chan error, 1)
	go func() {
		err := serve(there, func(d Directory, order *atomic.Uint32) (served, error) {
			v, ok := views[d.Path]
			if !ok {
				return nil, errors.New("no such view: " + d.Path)
			}
			order.Add(1)
			return v, nil
		})
		there.Close()
		result <- err
	}()
	c = newClient(here, func() error { return errors.New("gone") })
	hangUp = sync.OnceFunc(func() {
		here.Close()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(hangUp)
	return c, hangUp
}

func mountFakes(t testing.TB, c *client, paths ...string) *Views {
	t.Helper()
	var dirs []Directory
	for _, p := range paths {
		dirs = append(dirs, Directory{Path: p})
	}
	id, _, err := c.ask(t.Context(), request{Mount: dirs}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &Views{client: c, id: id, dirs: dirs}
}

func closeFakes(ctx context.Context, v *Views) ([][]trace.Seen, error) {
	_, seen, err := v.client.ask(ctx, request{Close: v.id, Wait: time.Minute}, len(v.dirs))
	return seen, err
}

func names(count int) []trace.Seen {
	out := make([]trace.Seen, count)
	for i := range out {
		out[i] = trace.Seen{Path: fmt.Sprintf("node_modules/\xff%d/index.js", i), What: trace.Looked, Order: uint32(i + 1)}
	}
	return out
}

func TestProtocol(t *testing.T) {
	small, large := names(3), names(300_000)
	c, _ := connect(t, map[string]*fake{
		"small": {seen: small}, "large": {seen: large}, "empty": {},
		"busy": {closeErr: errors.New("device is busy")}, "broken": {seenErr: errors.New("it was broken")},
	})
	for _, x := range []struct {
		views []string
		want  [][]trace.Seen
		err   string
	}{
		{views: []string{"small"}, want: [][]trace.Seen{small}},
		{views: []string{"large", "empty", "small"}, want: [][]trace.Seen{large, nil, small}},
		{views: []string{"small", "busy"}, err: "device is busy"},
		{views: []string{"small", "broken"}, err: "it was broken"},
		{},
	} {
		v := mountFakes(t, c, x.views...)
		seen, err := closeFakes(t.Context(), v)
		if x.err != "" {
			if err == nil || err.Error() != x.err {
				t.Errorf("%q: got %v, want %s", x.views, err, x.err)
			}
			continue
		}
		if err != nil || len(seen) != len(x.want) {
			t.Errorf("%q: got %d records, %v", x.views, len(seen), err)
			continue
		}
		for i := range x.want {
			if !reflect.DeepEqual(seen[i], x.want[i]) {
				t.Errorf("%q: record %d differs: %d names, want %d", x.views, i, len(seen[i]), len(x.want[i]))
			}
		}
		if _, err := closeFakes(t.Context(), v); err == nil {
			t.Errorf("%q: closed twice", x.views)
		}
	}
}

// TestProtocolMountFails: what was mounted before is closed.
func TestProtocolMountFails(t *testing.T) {
	first := &fake{}
	c, _ := connect(t, map[string]*fake{"first": first})
	_, _, err := c.ask(t.Context(), request{Mount: []Directory{{Path: "first"}, {Path: "second"}}}, 0)
	if err == nil || !strings.Contains(err.Error(), "no such view: second") {
		t.Errorf("got %v", err)
	}
	if !first.closed.Load() {
		t.Error("the first is still open")
	}
}

// TestProtocolConcurrent: a request that waits delays no other one, and answers are not mixed up.
func TestProtocolConcurrent(t *testing.T) {
	release := make(chan struct{})
	views := map[string]*fake{"waits": {wait: release, seen: names(1)}}
	for i := range 20 {
		views[fmt.Sprint(i)] = &fake{seen: names(i * 1000)}
	}
	c, _ := connect(t, views)
	waits := mountFakes(t, c, "waits")
	waited := make(chan error, 1)
	go func() { _, err := closeFakes(t.Context(), waits); waited <- err }()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			seen, err := closeFakes(t.Context(), mountFakes(t, c, fmt.Sprint(i)))
			if err != nil || len(seen[0]) != i*1000 {
				t.Errorf("view %d: got %d names, %v", i, len(seen[0]), err)
			}
		})
	}
	wg.Wait()
	close(release)
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// TestProtocolEnd: the server takes down what is open when the connection ends, and whoever waits for an answer gets an error.
func TestProtocolEnd(t *testing.T) {
	open := &fake{}
	c, hangUp := connect(t, map[string]*fake{"open": open, "waits": {wait: make(chan struct{})}})
	mountFakes(t, c, "open")
	waits := mountFakes(t, c, "waits")
	waited := make(chan error, 1)
	go func() { _, err := closeFakes(t.Context(), waits); waited <- err }()
	hangUp()
	if err := <-waited; !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
	if _, err := closeFakes(t.Context(), waits); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
	if !open.closed.Load() {
		t.Error("a view is still open")
	}
}

// TestProtocolCancelled: who gives up gets no answer, and others still do.
func TestProtocolCancelled(t *testing.T) {
	release := make(chan struct{})
	c, _ := connect(t, map[string]*fake{"waits": {wait: release, seen: names(10_000)}, "other": {seen: names(1)}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := closeFakes(ctx, mountFakes(t, c, "waits")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	if _, err := closeFakes(t.Context(), mountFakes(t, c, "other")); err != nil {
		t.Error(err)
	}
}
