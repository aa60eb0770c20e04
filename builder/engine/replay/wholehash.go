package replay

import "github.com/moby/buildkit/solver/pb"

// withoutWholeHash returns a RUN for which BuildKit does not read the whole root file system.
//
// What is mounted read-only is part of a step's key by its content. BuildKit spares root file systems that, since it would have to read each file, but looks at the two
// together where they are of the same vertex:
//
//	FROM debian:12
//	RUN --mount=type=bind,from=debian:12,source=/etc/x,target=/etc/y apt-get install …
//
// so that the base image is fetched, unpacked and hashed before the step's key is known (180 MB: a second of processor time). The vertex's own key, which is precise enough for the root
// file system, is so for the mount, too.
func withoutWholeHash(o *pb.Op_Exec) *pb.Op_Exec {
	roots := map[int64]bool{}
	for _, m := range o.Exec.Mounts {
		if m.Dest == pb.RootMount && m.Input >= 0 {
			roots[m.Input] = true
		}
	}
	var exec *pb.ExecOp
	for i, m := range o.Exec.Mounts {
		mounted := m.MountType == pb.MountType_BIND || m.MountType == pb.MountType_CACHE
		if m.Dest == pb.RootMount || !mounted || !roots[m.Input] || m.ContentCache != pb.MountContentCache_DEFAULT {
			continue
		}
		if exec == nil {
			exec = o.Exec.CloneVT()
		}
		exec.Mounts[i].ContentCache = pb.MountContentCache_OFF
	}
	if exec == nil {
		return o
	}
	return &pb.Op_Exec{Exec: exec}
}
