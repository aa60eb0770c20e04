package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/builder/trace/store"
	"github.com/optbuild/optbuild/snapshot"
)

// These cases call the engine's packages directly: they take less than a command takes to start.

// lookup finds the stored trace of a step and compares it with a layer of 10,000 files, of which the step looked at so many.
func (b *bench) lookup(name string, observations int, bound float64) *one {
	c := &one{name: name, noStock: true, bound: bound}
	c.prepare = func(ctx context.Context) error {
		root := filepath.Join(b.Dir, b.next("lookup-"))
		layer, shared := filepath.Join(root, "layer"), filepath.Join(root, "shared")
		var seen []trace.Seen
		for i := range 10_000 {
			path := fmt.Sprintf("src/%d/%d.js", i/100, i)
			if err := writeFiles(layer, map[string]string{path: source(path, 2<<10)}); err != nil {
				return err
			}
			if observations == 10_000 || i/100%10 == 0 && i%100 < observations/10 { // some in each of ten directories
				seen = append(seen, trace.Seen{Path: path, What: trace.Looked | trace.Read, Order: uint32(i + 1)})
			}
		}
		id := strings.Repeat("0", 32)
		if err := os.MkdirAll(filepath.Join(shared, id), 0o755); err != nil {
			return err
		}
		s, err := store.Open(filepath.Join(root, "index"), func(id string) string { return filepath.Join(shared, id) })
		if err != nil {
			return err
		}
		captured, err := trace.Capture(layer, seen)
		if err != nil {
			return err
		}
		if err := s.Put(&trace.Trace{Layer: id, Started: time.Now(), Layers: []trace.Layer{captured}}); err != nil {
			return err
		}
		c.inside = func(context.Context) (time.Duration, error) {
			begin := time.Now()
			for t := range s.Lookup([32]byte{}, nil) {
				if d, err := t.Check([]string{layer}); d != nil || err != nil {
					return 0, fmt.Errorf("check: %v, %w", d, err)
				}
				return time.Since(begin), nil
			}
			return 0, fmt.Errorf("the trace was not found")
		}
		return nil
	}
	return c
}

// materialise has a stored layer of 30,000 files in a new snapshot.
func (b *bench) materialise(name string, bound float64) *one {
	c := &one{name: name, noStock: true, bound: bound}
	c.prepare = func(ctx context.Context) error {
		choice, err := snapshot.Choose(b.Dir, "overlayfs")
		if err != nil {
			return err
		}
		opened, err := choice.New(filepath.Join(b.Dir, "snapshots"))
		if err != nil {
			return err
		}
		b.undo = append(b.undo, func() { opened.Close() })
		layers, ok := opened.(*snapshot.Layers)
		if !ok {
			return skipped("layers can't be shared with this snapshotter")
		}
		if _, err := layers.Prepare(ctx, "run", ""); err != nil {
			return err
		}
		chain, err := layers.Chain(ctx, "run")
		if err != nil {
			return err
		}
		for i := range 30_000 {
			if err := writeFiles(chain[0].Path, map[string]string{fmt.Sprintf("m/%d/%d", i/100, i): "x"}); err != nil {
				return err
			}
		}
		if err := layers.Commit(ctx, "done", "run"); err != nil {
			return err
		}
		if err := layers.Share(ctx, "done", "stored"); err != nil {
			return err
		}
		c.inside = func(ctx context.Context) (time.Duration, error) {
			key := b.next("step")
			if _, err := layers.Prepare(ctx, key, ""); err != nil {
				return 0, err
			}
			begin := time.Now()
			if err := layers.Alias(ctx, key, "stored"); err != nil {
				return 0, err
			}
			return time.Since(begin), nil
		}
		return nil
	}
	return c
}
