package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/record"
)

// Elsewhere is where machines tell each other which layers images were given, so that one that has none of an image's files can export it (package sharing has it from a registry).
type Elsewhere interface {
	// Asked is true if any of the sessions reads or writes a shared cache.
	Asked(sessions []string) bool
	// Chain returns the name of a chain of layers that were fetched (package record: Chains); "" if it is its own.
	Chain(sessions []string, chain string) string
	// LayerID returns the id of the stored layer with a chain's name; "" if that is not known.
	LayerID(sessions []string, chain string) string
	// Layers returns what was made of the RUNs with a key, in the form of Made; nil if nothing is known. Handler fetches one of its blobs.
	Layers(ctx context.Context, sessions []string, key string) (value []byte, handler func(ocispecs.Descriptor) *cache.DescHandler)
	// Made is told what was made of RUNs, the topmost of which has a record: a value, and the blobs that it is worth nothing without. The layers of an image may have no digests before a cache is written that wants them: so the
	// key is asked for then, for the layers of the record.
	Made(sessions []string, record string, key func([]cache.ImmutableRef) string, value []byte, blobs []ocispecs.Descriptor)
}

// group is a run of RUNs, and what became of it.
type group struct {
	whole    unit
	parts    []unit
	outcomes map[int]outcome // by the first layer of a part
	key      sharedKey       // that others know it by
	// handlers fetch the layers of parts that others have made.
	handlers map[int]fetches
	found    bool // others know the group, as it is
}

// fetches returns what fetches a layer.
type fetches func(ocispecs.Descriptor) *cache.DescHandler

// sharedGroup is the form in which a group is passed on.
type sharedGroup struct {
	Units    []int     `json:"units"`
	Outcomes []outcome `json:"outcomes"`
}

// group returns the parts of a unit: as others have divided it, or as its layers say.
func (j *job) group(ctx context.Context, u unit, squash Squash) (*group, error) {
	g := &group{whole: u, parts: []unit{u}, outcomes: map[int]outcome{}, handlers: map[int]fetches{}}
	if squash != SquashRuns || u.runs() == 0 {
		return g, nil
	}
	shared := j.Elsewhere != nil && j.Elsewhere.Asked(j.sessions())
	if shared {
		g.key = j.sharedKey(u)
		if g.found = j.find(ctx, g, u); g.found {
			return g, nil
		}
	}
	var err error
	if g.parts, err = j.divide(ctx, u); err != nil || !shared || len(g.parts) == 1 {
		return g, err
	}
	// When one of the RUNs runs again the group is another one, and those parts that it is not in are what they were.
	for _, p := range g.parts {
		j.find(ctx, g, p)
	}
	return g, nil
}

func (j *job) sessions() []string {
	if j.session == nil {
		return nil
	}
	return session.AllSessionIDs(j.session)
}

// sharedKey makes a key of what a unit's layers are made of, whatever machine made them. Of what lies below only the base image is in it: a stored layer stands for all that its step depended
// on. What it did not look at it has not changed, and what it did look at is as it was, else it would not have been replayed on the COPYs that are below it now.
type sharedKey struct {
	begins key // what all keys of the unit depend on
	base   int // layers of the base image
	unit   unit
	ids    []string // sessions
	from   Elsewhere
}

func (j *job) sharedKey(u unit) sharedKey {
	k := sharedKey{begins: *j.common(u), base: j.base, unit: u, ids: j.sessions(), from: j.Elsewhere}
	k.begins.add("divided", fmt.Sprint(minDivided))
	return k
}

// of returns the key for the image's layers up to those of the unit, or up to some above them. It is "" if some have no digest yet.
func (s sharedKey) of(layers []cache.ImmutableRef) string {
	k := s.begins
	names := record.Chains(layers, func(chain string) string { return s.from.Chain(s.ids, chain) })
	if s.unit.last >= len(names) {
		return ""
	}
	if s.base > 0 {
		if names[s.base-1] == "" {
			return ""
		}
		k.add("base", names[s.base-1])
	}
	for i, ref := range layers[s.unit.first : s.unit.last+1] {
		name := names[s.unit.first+i]
		id := ref.GetString(record.Stored)
		if id == "" && name != "" {
			id = s.from.LayerID(s.ids, name)
		}
		switch {
		case s.unit.steps[i].kind == run && id != "":
			k.add("stored", id)
		case s.unit.steps[i].kind == workdir && ref.GetString(record.DiffID) != "":
			k.add("files", ref.GetString(record.DiffID))
		case name != "":
			k.add("chain", name)
		default:
			return ""
		}
	}
	return k.sum()
}

// find takes what others have made of a group, or of one of its parts.
func (j *job) find(ctx context.Context, g *group, u unit) bool {
	key := j.sharedKey(u).of(j.chain)
	if key == "" {
		return false
	}
	value, handler := j.Elsewhere.Layers(ctx, j.sessions(), key)
	if value == nil {
		return false
	}
	var s sharedGroup
	err := json.Unmarshal(value, &s)
	whole := len(g.parts) == 1 // a part is not divided any more
	if err == nil && (!u.fits(s.Units) || len(s.Outcomes) != len(s.Units) || !whole && len(s.Units) > 1) {
		err = errors.New("it is of other layers")
	}
	for i := range s.Outcomes {
		if err == nil {
			err = s.Outcomes[i].check(s.Units[i])
		}
	}
	if err != nil {
		logrus.WithError(err).Warn("merged layers from elsewhere are not used")
		return false
	}
	parts := u.cut(s.Units)
	if whole {
		g.parts = parts
	}
	for i, p := range parts {
		g.outcomes[p.first], g.handlers[p.first] = s.Outcomes[i], handler
	}
	return true
}

// check is an error if an outcome is none that is passed on for so many layers. What it says of its layer besides digests and format is dropped.
func (o *outcome) check(layers int) error {
	if o.Desc == nil {
		if len(o.Stripped) > 0 || layers > 1 {
			return errors.New("it has no layer")
		}
		return nil
	}
	d := o.Desc
	_, err := digest.Parse(d.Annotations[labels.LabelUncompressed])
	if err == nil {
		err = d.Digest.Validate()
	}
	if err == nil && (d.Size < 0 || !images.IsLayerType(d.MediaType) || images.IsNonDistributable(d.MediaType)) {
		err = fmt.Errorf("%s is no layer", d.Digest)
	}
	if err == nil {
		d.URLs, d.Data, d.Platform, d.ArtifactType = nil, nil, nil, ""
		maps.DeleteFunc(d.Annotations, func(k, _ string) bool {
			return k != labels.LabelUncompressed && !slices.Contains(compression.EStargzAnnotations, k)
		})
	}
	return err
}

// outcomeOf is the outcome of one of a group's parts. Without wanted, a unit that stays as it is needs no layer.
func (j *job) outcomeOf(ctx context.Context, g *group, u unit, wanted bool) (outcome, error) {
	if o, ok := g.outcomes[u.first]; ok && g.handlers[u.first] != nil && (!wanted || o.Desc != nil) {
		return o, nil
	}
	o, err := j.outcome(ctx, u, wanted)
	if err == nil {
		g.outcomes[u.first] = o
		delete(g.handlers, u.first)
	}
	return o, err
}

// pass tells others what was made of a group here, and of each of its parts.
func (j *job) pass(g *group) {
	if g.key.from == nil || g.found || len(g.outcomes) != len(g.parts) {
		return
	}
	j.made(g, g.key, g.parts)
	if len(g.parts) == 1 {
		return
	}
	for _, p := range g.parts {
		if g.handlers[p.first] == nil {
			j.made(g, j.sharedKey(p), []unit{p})
		}
	}
}

func (j *job) made(g *group, key sharedKey, parts []unit) {
	s := sharedGroup{}
	var blobs []ocispecs.Descriptor
	for _, p := range parts {
		o := g.outcomes[p.first]
		s.Units, s.Outcomes = append(s.Units, len(p.steps)), append(s.Outcomes, o)
		if o.Desc != nil {
			blobs = append(blobs, *o.Desc)
		}
	}
	value, err := json.Marshal(s)
	if err != nil {
		logrus.WithError(err).Warn("pass on merged layers")
		return
	}
	j.Elsewhere.Made(j.sessions(), j.chain[parts[len(parts)-1].last].ID(), key.of, value, blobs)
}
