package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Build is what was measured of one build of a cell of the matrix.
type Build struct {
	Side  string `json:"side"` // see contender
	Round int    `json:"round"`
	// Seconds are those of the command; ProcessorSeconds those of all processes that worked for it, daemons and steps included.
	Seconds          float64 `json:"seconds"`
	ProcessorSeconds float64 `json:"processorSeconds"`
	// PeakBytes is the most memory that these processes had at a time, of the samples that were taken.
	PeakBytes int64 `json:"peakBytes"`
	// Of the registry, base images included.
	ReceivedBytes int64 `json:"receivedBytes"`
	SentBytes     int64 `json:"sentBytes"`
	Requests      int   `json:"requests"`
	// Of the pushed image, compressed.
	ImageBytes int64 `json:"imageBytes"`
	Layers     int   `json:"layers"`
	Steps
}

// Steps is what became of a build's steps, as the builder tells it.
type Steps struct {
	Executed int `json:"executed"`
	Replayed int `json:"replayed"`
	Cached   int `json:"cached"`
}

// figureColumns are the figures that are compared, each with how much a value of it is worth in its unit. The names are part of those of results.
var figureColumns = []struct {
	name, unit string
	of         func(Build) float64
}{
	{"time", "s", func(f Build) float64 { return f.Seconds }},
	{"processor time", "s of CPU", func(f Build) float64 { return f.ProcessorSeconds }},
	{"peak memory", "MiB", func(f Build) float64 { return float64(f.PeakBytes) / (1 << 20) }},
	{"received", "KB", func(f Build) float64 { return float64(f.ReceivedBytes) / 1e3 }},
	{"sent", "KB", func(f Build) float64 { return float64(f.SentBytes) / 1e3 }},
	{"requests", "requests", func(f Build) float64 { return float64(f.Requests) }},
	{"image", "MB", func(f Build) float64 { return float64(f.ImageBytes) / 1e6 }},
	{"layers", "layers", func(f Build) float64 { return float64(f.Layers) }},
	{"executed", "steps", func(f Build) float64 { return float64(f.Executed) }},
	{"replayed", "steps", func(f Build) float64 { return float64(f.Replayed) }},
	{"cached", "steps", func(f Build) float64 { return float64(f.Cached) }},
}

// observe runs commands at the same time and measures all that they and the daemons do until the last has ended. What they print is returned, in order.
func (b *bench) observe(ctx context.Context, daemons []int, commands ...*exec.Cmd) (f Build, logs [][]byte, err error) {
	known := append(b.known(), daemons...)
	if _, err := orphansTime(known...); err != nil { // of what ran before
		return f, nil, err
	}
	b.hub.proxy.Reset()
	before, err := sumTime(daemons)
	if err != nil {
		return f, nil, err
	}
	dir, err := os.MkdirTemp(b.Dir, "logs-")
	if err != nil {
		return f, nil, err
	}
	defer os.RemoveAll(dir)
	outputs := make([]*os.File, len(commands))
	for i, c := range commands {
		if outputs[i], err = os.Create(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			return f, nil, err
		}
		defer outputs[i].Close()
		c.Stdout, c.Stderr = outputs[i], outputs[i]
	}
	begin := time.Now()
	pids, started := append([]int(nil), daemons...), 0
	for _, c := range commands {
		if err = c.Start(); err != nil {
			break
		}
		pids, started = append(pids, c.Process.Pid), started+1
	}
	done := make(chan struct{})
	peak := watchMemory(pids, done, anyProcess)
	var used time.Duration
	for i, c := range commands[:started] {
		failed := c.Wait()
		if s := c.ProcessState; s != nil {
			used += s.UserTime() + s.SystemTime()
		}
		log, readErr := os.ReadFile(outputs[i].Name())
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), failed, log))
		}
		err = errors.Join(err, readErr)
		logs = append(logs, log)
	}
	f.Seconds = time.Since(begin).Seconds()
	close(done)
	f.PeakBytes = <-peak
	late, orphanErr := orphansTime(known...)
	after, timeErr := sumTime(daemons)
	if err = errors.Join(ctx.Err(), err, orphanErr, timeErr); err != nil {
		return f, logs, err
	}
	f.ProcessorSeconds = (used + late + after - before).Seconds()
	counts := b.hub.proxy.Counts()
	f.Requests = counts.Requests
	f.ReceivedBytes = counts.ManifestBytes + counts.BlobBytes
	f.SentBytes = counts.PushedManifestBytes + counts.PushedBlobBytes
	return f, logs, nil
}

// known are children of this process that go on running.
func (b *bench) known() []int {
	if b.daemon == nil || b.daemon.Process == nil {
		return nil
	}
	return []int{b.daemon.Process.Pid}
}

// sumTime is what processes, and descendants that they have waited for, used until now.
func sumTime(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		t, err := familyTime(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}
