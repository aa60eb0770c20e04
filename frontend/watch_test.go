package frontend

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/optbuild/optbuild/frontend/opt"
)

// TestMarks compares what is asked of the engine for each RUN and COPY: w for watched, u for unsynced.
func TestMarks(t *testing.T) {
	const file = "FROM a\nRUN one\nCOPY x /x\n# optbuild: off=skip-sync\nRUN two\n# optbuild: off=watch-inputs\nRUN three\n# optbuild: keep\nRUN four\n"
	for _, c := range []struct {
		name string
		opts map[string]string
		want string
	}{
		{"safe", map[string]string{}, "COPY w, four, one wu, three u, two w"},
		{"without watching", map[string]string{AttrDisable: opt.WatchInputs}, "COPY, four, one u, three u, two"},
		{"without skipping", map[string]string{AttrDisable: opt.SkipSync}, "COPY w, four, one w, three, two w"},
		{"off", map[string]string{AttrOptimize: "off"}, "COPY, four, one, three, two"},
		{"bisecting", map[string]string{AttrRewrites: "1"}, "COPY, four, one, three, two"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &gateway{files: map[string]string{"Dockerfile": file, "x": "x"}, opts: c.opts}
			g.opts[AttrProject] = "p"
			if _, err := Build(t.Context(), g); err != nil {
				t.Fatal(err)
			}
			if got := marks(t, g.defs[len(g.defs)-1]); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func marks(t *testing.T, def *pb.Definition) string {
	t.Helper()
	var list []string
	for _, dt := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(dt); err != nil {
			t.Fatal(err)
		}
		var s string
		switch {
		case op.GetExec() != nil:
			args := op.GetExec().Meta.Args
			s = args[len(args)-1] + " "
		case op.GetFile() != nil:
			s = "COPY "
		default:
			continue
		}
		d := def.Metadata[string(digest.FromBytes(dt))].GetDescription()
		if d[WatchKey] == "p" {
			s += "w"
		}
		if d[UnsyncedKey] != "" {
			s += "u"
		}
		list = append(list, strings.TrimSpace(s))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
