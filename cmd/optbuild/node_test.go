package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/nodes"
	"github.com/optbuild/optbuild/frontend"
	"github.com/optbuild/optbuild/frontend/explain"
	"github.com/optbuild/optbuild/frontend/plan"
)

func TestMergeReports(t *testing.T) {
	text := func(vertex string, line int) []byte {
		b, err := json.Marshal(&frontend.Report{Version: 1, Account: &explain.Account{Assumed: []string{vertex}}, Steps: map[string]frontend.Vertex{vertex: {Step: 7, Lines: plan.Lines{First: line, Last: line}}}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	merge := func(reports [][]byte, from ...string) *frontend.Report {
		r, err := frontend.ReadReport(map[string]string{frontend.ReportKey: string(mergeReports(reports, from))})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := merge([][]byte{text("a", 1), text("a", 2)}, "", "tcp://n:1")
	there := nodes.Salt("tcp://n:1", "a").String()
	if len(r.Steps) != 2 || r.Steps["a"] != (frontend.Vertex{Step: 7, Lines: plan.Lines{First: 1, Last: 1}}) || r.Steps[there] != (frontend.Vertex{Lines: plan.Lines{First: 2, Last: 2}}) {
		t.Errorf("of both: %+v", r.Steps)
	}
	// The only one is whole.
	if r = merge([][]byte{text("a", 3)}, "tcp://n:1"); len(r.Steps) != 1 || r.Steps[there].Step != 7 || r.Account == nil {
		t.Errorf("of a node: %+v", r)
	}
}

func TestLayersForNodes(t *testing.T) {
	for compression, want := range map[string]string{"": "", "gzip": "gzip", "zstd": "zstd", "uncompressed": "uncompressed", "estargz": ""} {
		got := layersForNodes([]client.ExportEntry{{Type: client.ExporterTar, Attrs: map[string]string{"compression": "zstd"}},
			{Type: client.ExporterImage, Attrs: map[string]string{"compression": compression, "compression-level": "3", "name": "app", "push": "true"}}})
		level := ""
		if want != "" {
			level = "3"
		}
		if got["compression"] != want || got["compression-level"] != level || got["name"] != "" || got["push"] != "" {
			t.Errorf("%s: %v", compression, got)
		}
	}
}

func TestNodeError(t *testing.T) {
	gone := &nodes.UnavailableError{Platform: "linux/arm64", Lost: []*nodes.LostError{{Address: "tcp://n:1", Err: errors.New("connection refused")}}, Own: errors.New("no qemu")}
	err := nodeError(fmt.Errorf("solve: %w", gone))
	if want := "--node: no node for linux/arm64 is left: tcp://n:1: connection refused; and this machine can't build it: no qemu"; err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if hint := hintFor(err); !strings.Contains(hint, "debug workers") || !strings.Contains(hint, "qemu-user-static") {
		t.Errorf("hint: %s", hint)
	}
	other := errors.New("another")
	if nodeError(other) != other {
		t.Error("another error is changed")
	}
}
