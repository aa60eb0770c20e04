package engine

import (
	"context"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/testutil"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestAnnotated(t *testing.T) {
	const host = "containerd.io/distribution.source.r.example"
	before := ocispecs.Descriptor{Annotations: map[string]string{host: "a/b", "other": "x"}}
	for add, want := range map[string]string{"a/b": "a/b", "c": "a/b,c", "c,a/b,d": "a/b,c,d", "": "a/b"} {
		if got := annotated(before, host, add).Annotations; got[host] != want || got["other"] != "x" {
			t.Errorf("%q: %v", add, got)
		}
	}
	if before.Annotations[host] != "a/b" {
		t.Error("the descriptor that was given has changed")
	}
	if got := annotated(ocispecs.Descriptor{}, host, "c").Annotations[host]; got != "c" {
		t.Errorf("the first repository: %q", got)
	}
}

// Whether a name has an image already is not asked of mirrors: what they have may be of yesterday.
func TestPushedTo(t *testing.T) {
	hosts := func(string) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{
			{Host: "mirror.example", Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve},
			{Host: "r.example", Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush},
		}, nil
	}
	list, err := pushedTo(hosts)("r.example")
	if err != nil || len(list) != 1 || list[0].Host != "r.example" {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestPushedRefs(t *testing.T) {
	for name, c := range map[string]struct {
		attrs map[string]string
		want  []string // nil: nothing is sent
	}{
		"no push":       {map[string]string{"name": "r.example/a"}, nil},
		"push":          {map[string]string{"push": "true", "name": "r.example/a:1"}, []string{"r.example/a:1"}},
		"names":         {map[string]string{"push": "1", "name": "r.example/a:1,r.example/b,r.example/a:2"}, []string{"r.example/a:1", "r.example/b:latest"}},
		"bad name":      {map[string]string{"push": "true", "name": "*"}, nil},
		"another way":   {map[string]string{"push": "true", "name": "r.example/a", "registry.insecure": "true"}, nil},
		"without names": {map[string]string{"push": "true"}, nil},
	} {
		if got := pushedRefs(c.attrs); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// TestUploadEnds: with its session an upload ends, what is under way included, and leaves nothing.
func TestUploadEnds(t *testing.T) {
	sessions, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	attrs := map[string]string{"push": "true", "name": "r.example/a"}
	u := newUploads(sessions, nil, nil)
	if u.begin(t.Context(), "", attrs) != nil || u.begin(t.Context(), "nobody", attrs) != nil {
		t.Error("there is a push without a session")
	}
	s, err := session.NewSession(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx, session.Dialer(testutil.TestStream(testutil.Handler(sessions.HandleConn)))) }()
	if _, err := sessions.Get(t.Context(), s.ID(), false); err != nil {
		t.Fatal(err)
	}
	first := u.begin(t.Context(), s.ID(), attrs)
	up := u.begin(t.Context(), s.ID(), attrs)
	if first == nil || first.ctx.Err() == nil {
		t.Error("what a second build of the session has replaced goes on")
	}
	if up == nil || !up.start(up.ctx, "one") {
		t.Fatal("nothing is sent")
	}
	end()
	<-ran
	<-up.ctx.Done()
	if up.start(up.ctx, "two") {
		t.Error("it goes on without the session")
	}
	up.finish(nil)
	u.settle(t.Context(), s.ID()) // returns
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.builds) > 0 {
		t.Errorf("%d uploads are left", len(u.builds))
	}
}
