package engine

import (
	"fmt"
	"path/filepath"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"

	"github.com/optbuild/optbuild/builder/compress"
	"github.com/optbuild/optbuild/builder/engine/lazy"
	"github.com/optbuild/optbuild/builder/export"
)

// newMerger makes layers for the images that leave a worker.
func newMerger(root string, w *base.Worker) *export.Merger {
	return &export.Merger{
		Manager:    w.CacheMgr,
		Content:    w.WorkerOpt.ContentStore,
		Leases:     w.WorkerOpt.LeaseManager,
		Dir:        filepath.Join(root, "snapshots", "layers"), // goes with the snapshots that it is about
		Compressor: fmt.Sprint(compress.Version),
	}
}

// exporting is a worker whose images have merged layers, where an export asks for it.
type exporting struct {
	worker.Worker
	merger *export.Merger
}

func (w exporting) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	e, err := w.Worker.Exporter(name, sm)
	if err != nil {
		return nil, err
	}
	switch name {
	case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
		return lazy.Exporter(w.merger.Wrap(e), w.merger.Manager, false), nil
	case client.ExporterLocal, client.ExporterTar:
		return lazy.Exporter(e, w.merger.Manager, true), nil
	}
	return e, nil
}
