package daemon

import (
	"context"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"

	"github.com/optbuild/optbuild/builder/outcome"
)

// What is pushed is not kept as well, unless that was asked for.
func TestPushedOnly(t *testing.T) {
	solve := &controlapi.SolveRequest{
		Exporters: []*controlapi.Exporter{
			{Type: "image", Attrs: map[string]string{"name": "a", "push": "true"}},
			{Type: "image", Attrs: map[string]string{"name": "b", "push": "true", "store": "true"}},
			{Type: "image", Attrs: map[string]string{"name": "c"}},
			{Type: "image"},
			{Type: "oci", Attrs: map[string]string{"push": "true"}},
		},
		ExporterDeprecated:      "image",
		ExporterAttrsDeprecated: map[string]string{"push": "1"},
	}
	_, err := pushedOnly(context.Background(), solve, nil, func(_ context.Context, req any) (any, error) {
		r := req.(*controlapi.SolveRequest)
		var got []map[string]string
		for _, e := range r.Exporters {
			got = append(got, e.Attrs)
		}
		want := `[{"name":"a","push":"true","store":"false"},{"name":"b","push":"true","store":"true"},{"name":"c"},null,{"push":"true"},{"push":"1","store":"false"}]`
		if got := dump(t, append(got, r.ExporterAttrsDeprecated)); got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A client can't tell which provenance is to be believed.
func TestRecordedHere(t *testing.T) {
	solve := &controlapi.SolveRequest{
		Exporters:               []*controlapi.Exporter{{Type: "image", Attrs: map[string]string{"name": "a", outcome.AttrRecorded: "word"}}, {Type: "oci"}},
		ExporterAttrsDeprecated: map[string]string{outcome.AttrRecorded: "word"},
	}
	_, err := recordedHere(t.Context(), solve, nil, func(_ context.Context, req any) (any, error) {
		r := req.(*controlapi.SolveRequest)
		if len(r.Exporters[0].Attrs) != 1 || len(r.ExporterAttrsDeprecated) != 0 {
			t.Errorf("got %v and %v", r.Exporters[0].Attrs, r.ExporterAttrsDeprecated)
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
