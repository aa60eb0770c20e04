package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/export"
)

// Where each step of an image begins, what is below it may be compressed (yes), be rehearsed, since it may still become one layer with it (maybe), or neither (no).
func TestComplete(t *testing.T) {
	base := llb.Image("base", llb.Platform(ocispecs.Platform{OS: "linux", Architecture: "amd64"}))
	other := base.Run(llb.Shlex("other")).Root()
	local := llb.Local("context")
	gzip := ours(compression.New(compression.Gzip), false, nil, compress.Options{Memo: compress.NewMemo(t.TempDir())})
	type steps []string
	for name, test := range map[string]struct {
		steps steps
		want  map[export.Squash]string // "" is that of runs
	}{
		"runs":             {steps{"RUN a", "RUN b", "RUN c"}, map[export.Squash]string{"runs": "no maybe maybe", "off": "no yes yes", "stage": "no no no"}},
		"copies":           {steps{"COPY", "COPY", "RUN", "COPY"}, map[export.Squash]string{"runs": "no yes yes yes", "off": "no yes yes yes", "stage": "no no no no"}},
		"runs, then copy":  {steps{"RUN a", "RUN b", "COPY", "RUN c"}, map[export.Squash]string{"runs": "no maybe yes yes"}},
		"workdir in runs":  {steps{"RUN a", "WORKDIR", "RUN b", "WORKDIR", "COPY"}, map[export.Squash]string{"runs": "no no maybe no yes", "off": "no yes yes yes yes"}},
		"workdir in front": {steps{"WORKDIR", "RUN a", "COPY"}, map[export.Squash]string{"runs": "no yes yes"}},
		"mounts":           {steps{"MOUNT", "COPY --from"}, map[export.Squash]string{"runs": "no yes"}},
		"link":             {steps{"COPY", "LINK", "RUN a", "COPY"}, map[export.Squash]string{"runs": "no yes yes yes"}},
	} {
		for squash, want := range test.want {
			t.Run(fmt.Sprintf("%s, %s", name, squash), func(t *testing.T) {
				st := base
				for i, s := range test.steps {
					word, rest, _ := strings.Cut(s, " ")
					switch word {
					case "RUN":
						st = st.Run(llb.Shlex("x" + rest)).Root()
					case "MOUNT":
						st = st.Run(llb.Shlex("y"), llb.AddMount("/m", other, llb.Readonly), llb.AddMount("/c", llb.Scratch(), llb.AsPersistentCacheDir("c", llb.CacheMountShared))).Root()
					case "WORKDIR":
						st = st.File(llb.Mkdir(fmt.Sprintf("/w%d", i), 0o755))
					case "COPY":
						from := local
						if rest != "" {
							from = other
						}
						st = st.File(llb.Copy(from, "a", fmt.Sprintf("/%d", i)))
					case "LINK":
						st = llb.Merge([]llb.State{st, llb.Scratch().File(llb.Copy(local, "l", "/l"))})
					}
				}
				def, err := st.Marshal(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				u := &unfinished{Unfinished: export.Unfinished{Attrs: map[string]string{export.AttrSquash: string(squash)}, Compression: gzip}, steps: layerSteps(def.ToPB())}
				e := newEager(nil, nil, nil)
				defer e.Close()
				e.expect(u)
				var got []string
				for i, s := range u.steps {
					p, below := e.at(s.vertex)
					if below != nothing && p.index != i {
						t.Errorf("step %d is at %d", i, p.index)
					}
					got = append(got, map[readiness]string{complete: "yes", rehearsable: "maybe", nothing: "no"}[below])
				}
				if text := strings.Join(got, " "); text != want {
					t.Errorf("got  %s\nwant %s", text, want)
				}
			})
		}
	}
}

// Old images are forgotten, and with them what is known of their steps.
func TestForgotten(t *testing.T) {
	e := newEager(nil, nil, nil)
	defer e.Close()
	for i := range 3 * maxUnfinished {
		vertices := []layerStep{{vertex: "shared"}, {vertex: digest.FromString(fmt.Sprint(i))}}
		e.expect(&unfinished{steps: vertices})
	}
	if len(e.images) != maxUnfinished || len(e.steps) != maxUnfinished+1 {
		t.Errorf("%d images, %d steps", len(e.images), len(e.steps))
	}
}
