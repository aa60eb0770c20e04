package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/optbuild/optbuild/integration/wan"
)

// cacheExportCases are about writing a cache, over the link of the cold runners: of a build in which nothing has changed, and of one with a step that is new.
func (g *coldGround) cacheExportCases(b *bench) []*one {
	var npm *project
	step := &newStep{}
	return []*one{
		{
			name: "cache-export-unchanged",
			prepare: func(ctx context.Context) error {
				if err := g.make(ctx, b); err != nil {
					return err
				}
				var err error
				npm, err = npmProject(ctx, g.bench)
				return err
			},
			rows: func(ctx context.Context, runs int) ([]Result, error) {
				return g.exportUnchanged(ctx, npm, max(1, runs/3))
			},
		},
		{
			name: "cache-export-step",
			prepare: func(ctx context.Context) error {
				if err := g.make(ctx, b); err != nil {
					return err
				}
				step.dir = filepath.Join(g.Dir, "step")
				return os.MkdirAll(step.dir, 0o755)
			},
			rows: func(ctx context.Context, runs int) ([]Result, error) { return g.exportStep(ctx, step, max(1, runs/3)) },
		},
	}
}

// exporting is a build of one side that writes a cache; its progress comes as JSON.
func (g *coldGround) exporting(ours bool, name string, p *project, file string) *exec.Cmd {
	cache := g.registry + "/" + name + "/cache"
	if ours {
		return g.optbuildAs("", filepath.Join(g.Dir, name), append([]string{"build", "--progress=rawjson", "-o", "type=cacheonly", "-f", file, p.dir}, coldFlags.write(cache)...)...)
	}
	return g.buildctl("build", "--progress=rawjson", "--frontend=dockerfile.v0", "--local=context="+p.dir, "--local=dockerfile="+filepath.Dir(file),
		"--opt=filename="+filepath.Base(file), "--export-cache=type=registry,mode=max,ref="+cache)
}

// exportUnchanged builds again what was just built.
func (g *coldGround) exportUnchanged(ctx context.Context, p *project, runs int) ([]Result, error) {
	if err := g.emptyDaemon(ctx); err != nil {
		return nil, err
	}
	names := []string{"unchanged-ours", "unchanged-stock"}
	defer g.discard(ctx, filepath.Join(g.Dir, names[0]))
	var took, sent [2][]float64
	for i := range runs + 1 {
		for _, k := range [][]int{{0, 1}, {1, 0}}[i%2] {
			if i > 0 {
				g.far.Link.Set(wan.Runner)
			}
			g.far.Reset()
			progress, err := g.progress(g.exporting(k == 0, names[k], p, p.naive))
			g.far.Link.Set(wan.Profile{})
			if err != nil {
				return nil, err
			}
			if i == 0 {
				continue // the first one has everything to write
			}
			t, err := exportTook(progress)
			if err != nil {
				return nil, err
			}
			took[k], sent[k] = append(took[k], milliseconds(t)), append(sent[k], float64(g.far.Traffic().Sent)/1e3)
		}
	}
	return []Result{
		summarise("cache-export-unchanged, time of the export", "ms", took[0], took[1], 0.1),
		summarise("cache-export-unchanged, sent", "KB", sent[0], sent[1], 0),
	}, nil
}

// newStep is a Dockerfile whose last step is another one each time.
type newStep struct{ dir string }

// stepBytes are what the step leaves: they can't be compressed.
const stepBytes = 8_000_000

func (s *newStep) write(n int) (*project, error) {
	p := &project{dir: s.dir, naive: filepath.Join(s.dir, "Dockerfile")}
	text := fmt.Sprintf("FROM debian:12\nRUN head -c %d /dev/urandom >/first\nRUN : %d; head -c %d /dev/urandom >/second\n", stepBytes, n, stepBytes)
	return p, os.WriteFile(p.naive, []byte(text), 0o644)
}

func (g *coldGround) exportStep(ctx context.Context, s *newStep, runs int) ([]Result, error) {
	if err := g.emptyDaemon(ctx); err != nil {
		return nil, err
	}
	names := []string{"step-ours", "step-stock"}
	defer g.discard(ctx, filepath.Join(g.Dir, names[0]))
	var sent [2][]float64
	var layer []float64
	for i := range runs + 1 {
		p, err := s.write(i)
		if err != nil {
			return nil, err
		}
		for k := range names {
			g.far.Reset()
			if _, err := g.progress(g.exporting(k == 0, names[k], p, p.naive)); err != nil {
				return nil, err
			}
			if i > 0 {
				sent[k] = append(sent[k], float64(g.far.Traffic().Sent)/1e3)
			}
		}
		if i > 0 {
			layer = append(layer, stepBytes/1e3)
		}
	}
	unique := summarise("cache-export-step, sent", "KB", sent[0], layer, 1.1)
	unique.Against = "what is new"
	return []Result{unique, summarise("cache-export-step, sent", "KB", sent[0], sent[1], 0)}, nil
}

// progress runs a build, and returns its progress when nothing of it is under way any more.
func (g *coldGround) progress(c *exec.Cmd) ([]byte, error) {
	var log bytes.Buffer
	c.Stderr = &log
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, log.Bytes())
	}
	_, err := orphansTime(append(g.others, g.daemon.Process.Pid)...)
	return log.Bytes(), err
}

// exportTook is how long a cache was exported, as the progress in JSON has it.
func exportTook(progress []byte) (time.Duration, error) {
	for line := range bytes.Lines(progress) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue
		}
		var status struct {
			Vertexes []struct {
				Name               string
				Started, Completed time.Time
			}
		}
		if err := json.Unmarshal(line, &status); err != nil {
			return 0, fmt.Errorf("read progress: %w", err)
		}
		for _, v := range status.Vertexes {
			if strings.HasPrefix(v.Name, "exporting") && strings.Contains(v.Name, "cache to") && !v.Completed.IsZero() {
				return v.Completed.Sub(v.Started), nil
			}
		}
	}
	return 0, errors.New("the build's progress tells of no export")
}
