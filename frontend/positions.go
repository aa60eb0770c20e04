package frontend

import (
	"github.com/moby/buildkit/solver/pb"

	"github.com/optbuild/optbuild/frontend/plan"
)

// restore gives the definition the user's Dockerfile and its lines, and notes for the report which lines each vertex is made of.
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
		r.report.Steps = map[string]plan.Lines{}
	}
	done := map[*pb.Range]bool{} // vertices share ranges
	for vertex, locs := range def.Source.Locations {
		var lines plan.Lines
		for _, loc := range locs.Locations {
			made, known := ours[loc.SourceIndex]
			if !known {
				continue
			}
			for _, rg := range loc.Ranges {
				if made && !done[rg] {
					r.file.restoreRange(rg)
				}
				done[rg] = true
				lines = lines.Union(plan.Lines{First: int(rg.GetStart().GetLine()), Last: int(rg.GetEnd().GetLine())})
			}
		}
		if lines != (plan.Lines{}) {
			r.report.Steps[vertex] = lines
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
