package engine

import (
	"context"
	"maps"
	"slices"

	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/attestation"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/result"

	"github.com/optbuild/optbuild/builder/outcome"
)

// recordedExporter takes provenance that a node has recorded of an image for BuildKit's own, which would be that the image was made of an image. BuildKit lets nobody but itself say
// how an image was made; here the command may, for its nodes.
type recordedExporter struct{ exporter.Exporter }

func (e recordedExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	word, ok := attrs[outcome.AttrRecorded]
	if !ok {
		return e.Exporter.Resolve(ctx, id, attrs)
	}
	attrs = maps.Clone(attrs)
	delete(attrs, outcome.AttrRecorded)
	i, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil || word == "" {
		return i, err
	}
	return recordedInstance{i, word}, nil
}

type recordedInstance struct {
	exporter.ExporterInstance
	word string
}

func (i recordedInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	made := map[string][]exporter.Attestation{}
	for platform, list := range src.Attestations {
		made[platform] = i.recorded(list, session.NewGroup(info.SessionID))
	}
	src = src.Clone()
	src.Attestations = made
	return i.ExporterInstance.Export(ctx, src, info)
}

// recorded replaces BuildKit's provenance in a platform's attestations by that of a node, if there is one.
func (i recordedInstance) recorded(list []exporter.Attestation, s session.Group) []exporter.Attestation {
	list = slices.Clone(list)
	of := func(a exporter.Attestation) bool {
		return a.Ref != nil && string(a.Metadata[outcome.RecordedKey]) == i.word
	}
	if !slices.ContainsFunc(list, of) {
		return list
	}
	list = slices.DeleteFunc(list, func(a exporter.Attestation) bool {
		return !of(a) && string(a.Metadata[result.AttestationReasonKey]) == result.AttestationReasonProvenance
	})
	for k, a := range list {
		if of(a) {
			file := a
			a.Ref, a.Metadata = nil, maps.Clone(a.Metadata)
			delete(a.Metadata, outcome.RecordedKey)
			a.ContentFunc = func(ctx context.Context) ([]byte, error) { return attestation.ReadAll(ctx, s, file) }
			list[k] = a
		}
	}
	return list
}
