package replay

import (
	"context"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
)

// fileLayers returns which layers of the root file system of an exec, the topmost being 0, were made by file operations: COPY, ADD, WORKDIR, and not by RUNs or by the base
// image. It is nil if that is not known.
func fileLayers(v solver.Vertex, root int64) []int {
	files := []int{}
	edge, ok := inputOf(v, root)
	for n := 0; ok; n++ {
		op, isOp := edge.Vertex.Sys().(*pb.Op)
		if !isOp || n == maxChain {
			return nil
		}
		parent := int64(-1)
		switch o := op.Op.(type) {
		case *pb.Op_Source:
			return files
		case *pb.Op_File:
			parent = fileParent(o.File, edge.Index, len(edge.Vertex.Inputs()))
			files = append(files, n)
		case *pb.Op_Exec:
			for _, m := range o.Exec.Mounts {
				if m.MountType == pb.MountType_BIND && m.Output == int64(edge.Index) {
					parent = m.Input
				}
			}
		default:
			return nil
		}
		edge, ok = inputOf(edge.Vertex, parent)
	}
	return files
}

type filesKey struct{}

// withFiles returns a context that tells the executors below which files were copied for a step, if that is known.
func withFiles(ctx context.Context, st *step) context.Context {
	if st == nil || st.files == nil {
		return ctx
	}
	for _, m := range st.op.Mounts {
		if m.MountType == pb.MountType_BIND && m.Dest != pb.RootMount && m.Input >= 0 {
			return ctx // there may be others in it
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.root == nil {
		return ctx
	}
	dirs := []string{}
	for _, i := range st.files {
		if i >= len(st.root.Lower) {
			return ctx
		}
		dirs = append(dirs, st.root.Lower[i].Path)
	}
	return context.WithValue(ctx, filesKey{}, dirs)
}

// FilesOf returns the directories with the files that were copied for the step which runs with a context, topmost first; false if they are not known.
func FilesOf(ctx context.Context) ([]string, bool) {
	dirs, ok := ctx.Value(filesKey{}).([]string)
	return dirs, ok
}
