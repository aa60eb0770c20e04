package frontend

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	"github.com/optbuild/optbuild/frontend/plan"
)

// restore gives the definition the user's Dockerfile and its lines, and notes for the report which step each vertex is made of.
func (r *rewriter) restore(def *pb.Definition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lowered = true
	if r.file == nil {
		return
	}
	ours := map[int32]bool{}
	for i, info := range def.Source.Infos {
		switch {
		case r.file.text != nil && string(info.Data) == string(r.file.text):
			info.Data = r.file.source
			ours[int32(i)] = true
			r.ran = true
		case string(info.Data) == string(r.file.source):
			ours[int32(i)] = false
		}
	}
	if r.report.Steps == nil {
		r.report.Steps = map[string]Vertex{}
	}
	images := 0
	if isImage(def) {
		images = 1
	}
	records := execRecords(def)
	done := map[*pb.Range]int{} // steps; vertices share ranges
	for vertex, locs := range def.Source.Locations {
		var v Vertex
		for _, loc := range locs.Locations {
			made, known := ours[loc.SourceIndex]
			if !known {
				continue
			}
			for _, rg := range loc.Ranges {
				if _, ok := done[rg]; !ok {
					done[rg] = r.file.step(int(rg.GetStart().GetLine()))
					if made {
						r.file.restoreRange(rg)
					}
				}
				v.Step = done[rg]
				v.Lines = v.Lines.Union(plan.Lines{First: int(rg.GetStart().GetLine()), Last: int(rg.GetEnd().GetLine())})
			}
		}
		if v.Lines != (plan.Lines{}) {
			v.Record = records[vertex]
			v.Images = r.report.Steps[vertex].Images + images
			r.report.Steps[vertex] = v
		}
	}
	joinSources(def.Source)
}

// isImage reports whether a definition is that of an image; of what is scanned, or read, the head is none of the Dockerfile's steps.
func isImage(def *pb.Definition) bool {
	var d llb.Definition
	d.FromPB(def)
	head, err := d.Head()
	return err == nil && len(def.Source.Locations[head.String()].GetLocations()) > 0
}

// joinSources makes one of equal sources: a definition may build on another one of the same Dockerfile, which was the user's again already.
func joinSources(src *pb.Source) {
	to := make([]int32, len(src.Infos))
	var infos []*pb.SourceInfo
	for i, info := range src.Infos {
		j := slices.IndexFunc(infos, func(have *pb.SourceInfo) bool { return proto.Equal(have, info) })
		if j < 0 {
			j = len(infos)
			infos = append(infos, info)
		}
		to[i] = int32(j)
	}
	if len(infos) == len(src.Infos) {
		return
	}
	src.Infos = infos
	done := map[*pb.Location]bool{}
	for _, locs := range src.Locations {
		for _, loc := range locs.Locations {
			if !done[loc] && loc.SourceIndex >= 0 && int(loc.SourceIndex) < len(to) {
				loc.SourceIndex = to[loc.SourceIndex]
			}
			done[loc] = true
		}
	}
}

// restoreRange makes the range of a line of the optimised text that of the user's lines that it stands for.
func (c *compiled) restoreRange(rg *pb.Range) {
	if rg.Start == nil || rg.End == nil {
		return
	}
	from, to := c.line(int(rg.Start.Line)), c.line(int(rg.End.Line))
	rg.Start = &pb.Position{Line: int32(from.First)}
	rg.End = &pb.Position{Line: int32(max(to.Last, from.First))}
}

// line maps a line of the optimised text; one that does not exist stands for itself.
func (c *compiled) line(n int) plan.Lines {
	if n <= 0 || n >= len(c.lines) {
		return plan.Lines{First: n, Last: n}
	}
	return c.lines[n]
}

// step is the ID of the step in a line of what is built, 0 if there is none.
func (c *compiled) step(line int) int {
	if line <= 0 || line >= len(c.steps) {
		return 0
	}
	return c.steps[line]
}

// execRecords are BuildKit's descriptions of the file systems that the definition's RUNs leave, by vertex.
func execRecords(def *pb.Definition) map[string]string {
	records := map[string]string{}
	for _, dt := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(dt) == nil && op.GetExec() != nil {
			records[string(digest.FromBytes(dt))] = "mount / from exec " + strings.Join(op.GetExec().GetMeta().GetArgs(), " ")
		}
	}
	return records
}
