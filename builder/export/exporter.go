// Package export changes which layers an image is given when it leaves the cache, which keeps one for each step.
//
//	solver ──> Source: a result for each platform, its configuration ──> [Merger.Wrap]'s exporter ──> BuildKit's exporter
//	                                  history + layers ──> units ──> a layer for each: a union of directories less what is residue
//
// A run of adjacent RUN layers becomes one layer, so that what a later step deleted is gone; what package managers leave behind (package strip) is left out. What comes in
// is what a solve gives to an exporter of images; what goes out is the same with other layers and a history that fits them. The files in the image are those that the
// steps made, but for what the [Report] says was left out. Without the attributes [AttrSquash] and [AttrStrip] nothing is changed.
//
// The package knows nothing of Dockerfiles: it reads the history. What it can't make sense of stays as it is, and the report says why. Its weak place is that it
// wants the directories of overlayfs: with another snapshotter all files of an image are compared, for each step.
package export

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"

	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/sirupsen/logrus"
)

// Wrap returns an exporter of images whose layers are merged, as its attributes say.
func (m *Merger) Wrap(inner exporter.Exporter) exporter.Exporter { return wrapped{inner, m} }

type wrapped struct {
	exporter.Exporter
	merger *Merger
}

func (w wrapped) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	o, rest, err := takeOptions(attrs)
	if err != nil {
		return nil, err
	}
	inner, err := w.Exporter.Resolve(ctx, id, rest)
	if err != nil || o.nothing() {
		return inner, err
	}
	return &instance{inner, w.merger, o}, nil
}

type instance struct {
	exporter.ExporterInstance
	merger  *Merger
	options Options
}

func (i *instance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	if i.merger.Begin != nil {
		i.merger.Begin()
	}
	src, report, refs, err := i.merger.merge(ctx, src, i.options, i.Config(), session.NewGroup(info.SessionID))
	if err != nil {
		return nil, nil, nil, err
	}
	resp, finalize, desc, err := i.ExporterInstance.Export(ctx, src, info)
	if err != nil || desc == nil {
		refs.release()
		return resp, finalize, desc, err
	}
	if text, err := json.Marshal(report); err == nil {
		resp = maps.Clone(resp)
		resp[ReportKey] = base64.StdEncoding.EncodeToString(text)
	}
	return resp, finalize, held{desc, refs}, nil
}

// held releases the layers when the export has ended, with the descriptor: a push asks for them after Export has returned.
type held struct {
	exporter.DescriptorReference
	refs references
}

func (h held) Release() error {
	h.refs.release()
	return h.DescriptorReference.Release()
}

// references are the results of all platforms whose layers are new.
type references []*merged

func (r references) release() {
	for _, m := range r {
		if err := m.release(context.Background()); err != nil {
			logrus.WithError(err).Warn("release a layer")
		}
	}
}
