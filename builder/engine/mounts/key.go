package mounts

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache/mounts"
)

// mount is one cache mount of a step.
type mount struct {
	*pb.Mount
	id       string // as the Dockerfile has it
	base     string // what it starts from, see baseOf
	platform string
	stays    string // why it does not travel; "" if it does
}

// cacheMounts returns the cache mounts of an exec.
func cacheMounts(v solver.Vertex, op *pb.ExecOp, platform *pb.Platform) (list []mount) {
	for _, m := range op.Mounts {
		if m.MountType != pb.MountType_CACHE || m.CacheOpt == nil {
			continue
		}
		c := mount{Mount: m, id: m.CacheOpt.ID}
		if _, id, ok := strings.Cut(c.id, "/"); ok { // what is before it is the namespace of ids
			c.id = id
		}
		if platform != nil {
			c.platform = platforms.FormatAll(ocispecs.Platform{
				OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant, OSVersion: platform.OSVersion, OSFeatures: platform.OSFeatures,
			})
		}
		var ok bool
		if c.base, ok = baseOf(v, m); !ok {
			c.stays = "it starts from files"
		}
		list = append(list, c)
	}
	return list
}

// Key is what the archives of a mount are found by, for builds without a scope.
type Key struct {
	Sum string
	id  string
}

// Keys are what the archives of a step's cache mounts are found by; false if one of its mounts does not travel, or is not of a kind whose program checks what it finds there: what a step has
// left in it another one may need, and it comes to other machines under conditions only.
func Keys(v solver.Vertex, op *pb.ExecOp, platform *pb.Platform) (keys []Key, ok bool) {
	for _, m := range cacheMounts(v, op, platform) {
		if m.stays != "" || !mounts.KindOf(m.Dest).Checked {
			return nil, false
		}
		keys = append(keys, Key{Sum: m.key(""), id: m.id})
	}
	return keys, true
}

// baseOf describes what a mount starts from if that is an empty directory: nothing at all, or what BuildKit makes for a mount with an owner or a mode of its own.
func baseOf(v solver.Vertex, m *pb.Mount) (string, bool) {
	if m.Input < 0 {
		return "", true
	}
	inputs := v.Inputs()
	if m.Input >= int64(len(inputs)) {
		return "", false
	}
	op, ok := inputs[m.Input].Vertex.Sys().(*pb.Op)
	if !ok || len(inputs[m.Input].Vertex.Inputs()) > 0 || op.GetFile() == nil || len(op.GetFile().Actions) != 1 {
		return "", false
	}
	dir := op.GetFile().Actions[0].GetMkdir()
	if dir == nil || path.Clean("/"+dir.Path) != path.Clean("/"+m.Selector) {
		return "", false
	}
	return fmt.Sprintf("mode %o owner %s", dir.Mode, dir.Owner), true
}

// key is what a mount's archives are found by. Mounts with equal keys are one mount, on several machines.
func (m mount) key(scope string) string {
	h := sha256.New()
	for _, line := range []string{
		"optbuild cache mount 1",
		"scope", scope,
		"id", m.CacheOpt.ID,
		"platform", m.platform, // programs may keep what they compiled
		"base", m.base,
		"ids", strconv.FormatBool(singleID()), // where there is one id, all files are root's
	} {
		fmt.Fprintf(h, "%d %s\n", len(line), line)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// singleID is true in a user namespace that has one id.
func singleID() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 {
			count, _ := strconv.Atoi(f[2])
			n += count
		}
	}
	return n == 1
}
