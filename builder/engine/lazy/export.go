package lazy

import (
	"context"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/result"
)

// Exporter is an exporter of layers that may be read in parts. What can't be read is its error. One that exports files gets, of a build that asks for no shared cache, what does without; others need few files, if any. The
// manager is [Plain]'s.
func Exporter(e exporter.Exporter, m cache.Manager, files bool) exporter.Exporter {
	if p, ok := m.(inParts); ok {
		return readingExporter{e, p, files}
	}
	return e
}

type readingExporter struct {
	exporter.Exporter
	m     inParts
	files bool
}

func (e readingExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	i, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	return readingInstance{i, e.m, e.files}, nil
}

type readingInstance struct {
	exporter.ExporterInstance
	m     inParts
	files bool
}

func (i readingInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	var off []cache.ImmutableRef
	defer func() {
		for _, r := range off {
			release(ctx, r)
		}
	}()
	g := session.NewGroup(info.SessionID)
	src, err := result.ConvertResult(src, func(r cache.ImmutableRef) (cache.ImmutableRef, error) {
		if !i.files {
			return r, nil
		}
		if plain := i.m.OffTwins(ctx, r, g); plain != nil {
			off = append(off, plain)
			return plain, nil
		}
		return r, nil
	})
	if err != nil {
		return nil, nil, nil, err
	}
	unread := i.m.Unread()
	resp, finalize, ref, err := i.ExporterInstance.Export(ctx, src, info)
	return resp, finalize, ref, because(err, unread)
}
