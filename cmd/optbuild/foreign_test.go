package main

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/outcome"
)

func TestForeignSummary(t *testing.T) {
	step := func(how string, seconds float64, line int) toldStep {
		return toldStep{Step: "RUN make " + how, Platform: "linux/arm64", How: how, Seconds: seconds, Line: line}
	}
	for name, c := range map[string]struct {
		steps []toldStep
		want  string
	}{
		"none":   {[]toldStep{step("", 1, 0)}, ""},
		"native": {[]toldStep{step(native, 1, 0)}, ""},
		"cross":  {[]toldStep{step(cross, 2, 0), step(cross, 1, 0)}, "RUN steps: 2 cross (3.0s)"},
		"shared": {[]toldStep{step(native, 1, 0), step(shared, 3, 0)}, "RUN steps: 1 native (1.0s), 1 shared (3.0s)"},
		"emulated": {[]toldStep{step(native, 1, 0), step(emulated, 2, 3), step(emulated, 5.25, 4), step("", 9, 0)},
			"RUN steps: 1 native (1.0s), 2 emulated (7.2s)\nemulated: the longest is RUN make emulated in line 4, 5.2s for linux/arm64; " +
				"a machine of that platform (build --partial), or a stage that compiles across (FROM --platform=$BUILDPLATFORM), needs no emulation"},
	} {
		if got := strings.Join(toldBuild{Steps: c.steps}.foreign(), "\n"); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// TestSameSummary: only what was emulated in this build could have been spared.
func TestSameSummary(t *testing.T) {
	b := toldBuild{Steps: []toldStep{
		{Stage: "web", How: emulated, Seconds: 40}, {Stage: "Web", How: emulated, Seconds: 1.25}, {Stage: "web", How: native, Seconds: 9}, {Stage: "stage-0", How: emulated, Seconds: 2}, {Stage: "dl", How: native, Seconds: 3},
	}}
	const want = "stage web: what is copied from it was the same for all platforms, but for times; --share-stage web runs it once (saves 41.2s of emulation)\n" +
		"stage 0: what is copied from it was the same for all platforms, but for times; --share-stage 0 runs it once (saves 2.0s of emulation)"
	if got := strings.Join(b.same([]string{"web", "dl", "0", "gone"}), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestToldLine(t *testing.T) {
	id, action := outcome.Emulated("sha256:0123456789abcdef", "linux/arm64")
	if text, ok := toldLine(&client.VertexStatus{ID: id, Name: action}); !ok || text != "emulated: linux/arm64" {
		t.Errorf("got %q, %v", text, ok)
	}
	if _, ok := toldLine(&client.VertexStatus{ID: "extracting", Name: "extract"}); ok {
		t.Error("another status is taken for ours")
	}
}
