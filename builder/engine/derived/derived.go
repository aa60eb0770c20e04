// Package derived makes workers that solve steps as another one does, with one thing changed.
package derived

import (
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/worker/base"
)

// Worker returns what is needed of a worker to solve steps, with another cache manager and another executor. A worker can't be copied: it has locks.
func Worker(w *base.Worker, m cache.Manager, e executor.Executor) *base.Worker {
	o := w.WorkerOpt
	o.Executor = e
	return &base.Worker{
		WorkerOpt: o, CacheMgr: m, SourceManager: w.SourceManager,
		ImageSource: w.ImageSource, OCILayoutSource: w.OCILayoutSource, GitSource: w.GitSource, HTTPSource: w.HTTPSource,
	}
}
