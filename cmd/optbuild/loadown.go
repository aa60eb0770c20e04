package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/platforms"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/store"
)

// loadOwn gives an engine this machine's platform of an image of several, which the local store has.
func (b *build) loadOwn(ctx context.Context, conn *builder.Conn) error {
	own := b.solve.LoadOwn
	if own == nil {
		return nil
	}
	w, err := b.solve.OpenEngine()
	if err != nil {
		return err
	}
	err = conn.Store(store.Options{}).Save(ctx, w, own.Names, store.SaveOptions{Platform: &own.Platform})
	err = conn.Explain(errors.Join(err, w.Close()))
	if err != nil {
		return fmt.Errorf("load %s: %w", platforms.FormatAll(own.Platform), err)
	}
	if !b.told.quiet {
		warn(fmt.Sprintf("load: the engine gets %s; the local store has all platforms", platforms.FormatAll(own.Platform)))
	}
	return nil
}
