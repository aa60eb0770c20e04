package engine

import (
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
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

func TestUploadBegins(t *testing.T) {
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
		up := newUploads(nil, nil, nil).begin("session", c.attrs)
		if up == nil != (c.want == nil) || up != nil && !slices.Equal(up.refs, c.want) {
			t.Errorf("%s: got %+v, want %v", name, up, c.want)
		}
	}
	if newUploads(nil, nil, nil).begin("", map[string]string{"push": "true", "name": "r.example/a"}) != nil {
		t.Error("there is a push without a session")
	}
}
