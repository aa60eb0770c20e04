// Package analyze says where the bytes of an image are: what each line of its Dockerfile put there, what a later line
// replaced or deleted (and everybody who pulls the image still gets), what is there twice, and what the export stripped.
// It also compares two images path by path, which is how a build proves that it is reproducible.
//
//	Image (manifest, configuration, blobs) ── scan each layer ──> entries ── stack ──> Report ──> text, JSON, HTML
//	two Images ───────────────────────────── scan both at once ─────────────────────> Difference
//
// What comes in is an [Image], from any place that can give blobs; what goes out is a [Report], whose JSON form is
// documented by its fields. Layers are read as streams, once, and checked against their digests: memory grows with the number
// of files (about 250 bytes for each) and not with their size.
//
// Terms. An *entry* of the history is what one instruction left in the configuration; a *layer* belongs to one entry, most entries
// have none. *Stored* bytes are a layer's as it lies in a registry, compressed or not; *unpacked* bytes are the contents of its
// files. Bytes are *wasted* when the final file system does not reach them: they are in a layer for nothing. A file that is in the final
// file system at two paths is no waste but *equal*: both paths may be needed.
//
// Where it is weak: the tar's own headers are in neither count, and how many stored bytes the waste is, nobody knows without
// compressing again.
//
// The package knows nothing of engines, terminals or flags.
package analyze

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Options say how much of an image is listed; the zero value lists what fits a screen.
type Options struct {
	// Most bounds each list of files. 0 means 10, negative all.
	Most int
}

// Report is what there is to say of an image. All sizes are in bytes.
type Report struct {
	Image    string        `json:"image"`
	Digest   digest.Digest `json:"digest"`   // of the manifest
	Platform string        `json:"platform"` // os/arch[/variant]
	Layers   int           `json:"layers"`
	// Bytes is the sum of the layers as they are stored and pulled, which is what `optbuild images` calls SIZE.
	Bytes int64 `json:"bytes"`
	// UnpackedBytes is the sum of all files in all layers, and Files their number.
	UnpackedBytes int64 `json:"unpackedBytes"`
	Files         int   `json:"files"`
	// WastedBytes are those of UnpackedBytes that the final file system does not reach; WastedPercent is their share, and
	// WastedFiles the number of files that they are in.
	WastedBytes   int64   `json:"wastedBytes"`
	WastedPercent float64 `json:"wastedPercent"`
	WastedFiles   int     `json:"wastedFiles"`
	// EqualBytes could be saved if of each set of equal files one were kept.
	EqualBytes int64 `json:"equalBytes"`
	// StrippedBytes are the ones that the export left out, as the history tells. 0 if it does not.
	StrippedBytes int64 `json:"strippedBytes"`
	// History has an element for each line of the Dockerfile, those of the base image first.
	History []Entry `json:"history"`
	// Wasted, Largest and Equal are the worst ones, in that order; the number of them is bounded by Options.
	Wasted  []Wasted `json:"wasted"`
	Largest []File   `json:"largest"`
	Equal   []Equal  `json:"equal"`
}

// Entry is what one instruction left. Without a layer only Number, Instruction, Created and Comment have values.
type Entry struct {
	Number      int           `json:"number"` // from 1
	Instruction string        `json:"instruction"`
	Created     *time.Time    `json:"created,omitempty"`
	Comment     string        `json:"comment,omitempty"`
	Layer       digest.Digest `json:"layer,omitempty"` // of the blob
	MediaType   string        `json:"mediaType,omitempty"`
	Bytes       int64         `json:"bytes"` // as stored
	// UnpackedBytes and Files are those of the layer; WastedBytes the part of them that the final file system lacks.
	UnpackedBytes int64 `json:"unpackedBytes"`
	Files         int   `json:"files"`
	WastedBytes   int64 `json:"wastedBytes"`
	// StrippedBytes were left out of the layer when it was exported, by the rules in Stripped.
	StrippedBytes int64    `json:"strippedBytes,omitempty"`
	Stripped      []string `json:"stripped,omitempty"`
}

// Kind says how a file's bytes were wasted.
type Kind string

// The kinds of waste.
const (
	Overwritten Kind = "overwritten" // a later layer has other content at the path
	Copied      Kind = "copied"      // a later layer has the same content again: mode, owner, attributes or nothing at all differ
	Deleted     Kind = "deleted"     // a later layer deletes the path, or a directory that it is in
	Repeated    Kind = "repeated"    // the same layer has the path twice
)

// Wasted is a file whose bytes are in a layer for nothing. A file that is wasted several times is there several times.
type Wasted struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Kind  Kind   `json:"kind"`
	Entry int    `json:"entry"` // the number of the history's entry that put it there
	By    int    `json:"by"`    // the entry that wasted it
	// Changed says of what was copied what differs: "mode", "owner", "attributes", "time"; empty if nothing does.
	Changed []string `json:"changed,omitempty"`
}

// File is a file of the final file system.
type File struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Entry int    `json:"entry"`
}

// Equal is a set of files of the final file system with the same content, hard links counted once.
type Equal struct {
	Bytes       int64    `json:"bytes"`       // of each
	WastedBytes int64    `json:"wastedBytes"` // of all but one
	Paths       []string `json:"paths"`       // sorted
}

// layersAtOnce bounds how many layers are read at a time; each is bound by the decompression of one stream.
const layersAtOnce = 4

// Analyze reads all layers of an image.
func Analyze(ctx context.Context, im Image, o Options) (*Report, error) {
	scanned := make([][]entry, len(im.Manifest.Layers))
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(min(layersAtOnce, runtime.GOMAXPROCS(0)))
	for i := range im.Manifest.Layers {
		eg.Go(func() (err error) {
			scanned[i], err = im.scan(egctx, i)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, fmt.Errorf("analyze %s: %w", im.Name, err)
	}
	r := &Report{
		Image: im.Name, Digest: im.Digest, Layers: len(im.Manifest.Layers),
		Platform: platforms.FormatAll(platforms.Normalize(im.Config.Platform)),
	}
	r.addHistory(im)
	var st stack
	layer := 0
	for i := range r.History {
		if e := &r.History[i]; e.Layer != "" {
			st.apply(scanned[layer], e)
			scanned[layer] = nil
			layer++
		}
	}
	r.sum(&st, o)
	return r, nil
}

// addHistory lists the entries. What the history does not tell of, because it has fewer entries than there are layers, comes last.
func (r *Report) addHistory(im Image) {
	layers := im.Manifest.Layers
	add := func(e Entry, withLayer bool) {
		e.Number = len(r.History) + 1
		if withLayer {
			e.Layer, e.MediaType, e.Bytes = layers[0].Digest, layers[0].MediaType, layers[0].Size
			layers = layers[1:]
		}
		r.History = append(r.History, e)
	}
	for _, h := range im.Config.History {
		e := Entry{Instruction: instruction(h.CreatedBy), Created: h.Created, Comment: plainComment(h.Comment)}
		e.StrippedBytes, e.Stripped = stripped(h.Comment)
		if e.Instruction == "" {
			e.Instruction = cmp.Or(e.Comment, "(unknown)")
		}
		add(e, !h.EmptyLayer && len(layers) > 0)
	}
	for len(layers) > 0 {
		add(Entry{Instruction: "(not in the history)"}, true)
	}
}

// instruction is what a history says of a line, without what builders put around it.
func instruction(createdBy string) string {
	s := strings.TrimSuffix(strings.TrimSpace(createdBy), " # buildkit")
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c #(nop)"); ok { // docker's classic builder
		return strings.TrimSpace(rest)
	}
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c "); ok {
		s = "RUN " + rest
	}
	if rest, ok := strings.CutPrefix(s, "RUN /bin/sh -c "); ok {
		s = "RUN " + rest
	}
	return strings.Join(strings.Fields(s), " ")
}
