package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// unchangedCase is about the export of an image that is what it was: nothing is sent, and it takes next to no time.
func (b *bench) unchangedCase() *one {
	const name = "export-unchanged"
	npm, root := b.once(npmProject), filepath.Join(b.Dir, "unchanged")
	build := func(output string) (took time.Duration, progress []byte, err error) {
		c := b.optbuildAs("", root, "build", "--progress=rawjson", "-o", output, "-f", npm.naive, npm.dir)
		var log bytes.Buffer
		c.Stderr = &log
		begin := time.Now()
		if err := c.Run(); err != nil {
			return 0, nil, fmt.Errorf("build: %w\n%s", err, log.Bytes())
		}
		took = time.Since(begin)
		_, err = orphansTime(b.daemon.Process.Pid) // the next command is not to find this one's engine
		return took, log.Bytes(), err
	}
	outputs := []string{"type=image,push=true,name=" + b.registry + "/unchanged", "type=cacheonly"}
	return &one{
		name: name,
		prepare: func(ctx context.Context) error {
			if err := npm.make(ctx); err != nil {
				return err
			}
			_, _, err := build(outputs[0])
			return err
		},
		rows: func(ctx context.Context, runs int) ([]Result, error) {
			var took [2][]float64
			var export, uploads []float64
			for i := range runs {
				order := []int{0, 1}
				if i%2 == 0 {
					slices.Reverse(order)
				}
				before := b.hub.uploads.Load()
				for _, k := range order {
					t, progress, err := build(outputs[k])
					if err != nil {
						return nil, err
					}
					took[k] = append(took[k], milliseconds(t))
					if k == 0 {
						if t, err = beyondSolve(progress); err != nil {
							return nil, err
						}
						export = append(export, milliseconds(t))
					}
				}
				uploads = append(uploads, float64(b.hub.uploads.Load()-before))
			}
			whole := summarise(name+", whole build", "ms", took[0], took[1], 0)
			whole.Against = "no image"
			return []Result{
				summarise(name+", blobs sent", "blobs", uploads, nil, nothing),
				summarise(name+", time beyond the solve", "ms", export, nil, 10),
				whole,
			}, nil
		},
	}
}

// beyondSolve is how long a build went on exporting after its last step, as its progress in JSON has it.
func beyondSolve(progress []byte) (time.Duration, error) {
	var solved, exported time.Time
	for line := range bytes.Lines(progress) {
		if !bytes.HasPrefix(line, []byte("{")) { // what is said at the end
			continue
		}
		var status struct {
			Vertexes []struct {
				Name      string
				Completed time.Time
			}
		}
		if err := json.Unmarshal(line, &status); err != nil {
			return 0, fmt.Errorf("read progress: %w", err)
		}
		for _, v := range status.Vertexes {
			last := &solved
			if strings.HasPrefix(v.Name, "exporting to ") {
				last = &exported
			}
			if v.Completed.After(*last) {
				*last = v.Completed
			}
		}
	}
	if solved.IsZero() || exported.IsZero() {
		return 0, errors.New("the build's progress tells of no export")
	}
	return exported.Sub(solved), nil
}
