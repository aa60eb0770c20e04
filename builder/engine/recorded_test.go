package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/result"

	"github.com/optbuild/optbuild/builder/outcome"
)

// TestRecorded: provenance that has the word takes the place of BuildKit's. Without it, it stays what BuildKit refuses.
func TestRecorded(t *testing.T) {
	const provenance, bill = result.AttestationReasonProvenance, result.AttestationReasonSBOM
	type file struct{ cache.ImmutableRef }
	content := func(context.Context) ([]byte, error) { return nil, nil }
	attested := func(reason, word string) exporter.Attestation {
		a := exporter.Attestation{Metadata: map[string][]byte{result.AttestationReasonKey: []byte(reason)}, Ref: &file{}}
		if word != "" {
			a.Metadata[outcome.RecordedKey] = []byte(word)
		}
		return a
	}
	own := exporter.Attestation{Metadata: map[string][]byte{result.AttestationReasonKey: []byte(provenance)}, ContentFunc: content}
	for _, c := range []struct {
		name string
		list []exporter.Attestation
		want string
	}{
		{"made here", []exporter.Attestation{attested(bill, ""), own}, "[sbom file provenance made]"},
		{"made by a node", []exporter.Attestation{attested(bill, ""), attested(provenance, "word"), own}, "[sbom file provenance made]"},
		{"made by a node, nothing here", []exporter.Attestation{attested(provenance, "word")}, "[provenance made]"},
		{"claimed by a frontend", []exporter.Attestation{attested(provenance, ""), own}, "[provenance file provenance made]"},
		{"claimed with a guess", []exporter.Attestation{attested(provenance, "wort"), own}, "[provenance file provenance made]"},
		{"none", nil, "[]"},
	} {
		var got []string
		list := recordedInstance{word: "word"}.recorded(c.list, session.NewGroup(""))
		for _, a := range list {
			kind := "made"
			if a.Ref != nil {
				kind = "file"
			}
			got = append(got, string(a.Metadata[result.AttestationReasonKey])+" "+kind)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}
