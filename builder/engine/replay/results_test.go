package replay

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/optbuild/optbuild/builder/trace"
	"github.com/optbuild/optbuild/snapshot"
)

func TestWorthWatching(t *testing.T) {
	large := fewFiles.Bytes
	for _, c := range []struct {
		name  string
		files map[string]int64 // sizes
		read  bool
		want  bool
	}{
		{"it read the context", map[string]int64{"a": 1}, true, true},
		{"it read nothing of the context", map[string]int64{"a": 1}, false, false},
		{"as large as may be", map[string]int64{"a": large / 2, "b": large / 2}, true, true},
		{"too large", map[string]int64{"a": large / 2, "b": large/2 + 1}, true, false},
		{"as many as may be", sized(fewFiles.Entries), true, true},
		{"too many", sized(fewFiles.Entries + 1), true, false},
		{"what git left", map[string]int64{"a": 1, ".git": 1}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "fs")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, size := range c.files {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
			}
			if c.read {
				if err := snapshot.SetContextRead(dir); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := worthWatching(dir, false); err != nil || got != c.want {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func sized(n int) map[string]int64 {
	files := map[string]int64{}
	for i := range n {
		files[strconv.Itoa(i)] = 0
	}
	return files
}

// Results that are the very ones of a trace need not be here. Others have to be.
func TestSameResults(t *testing.T) {
	dir := t.TempDir()
	made := time.Unix(1_000_000_000, 0)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "file"), made, made); err != nil {
		t.Fatal(err)
	}
	layer := trace.Layer{Entries: []trace.Entry{{Path: ".", What: trace.Looked, Mode: unix.S_IFDIR}, {Path: "file", What: trace.Read, Mode: unix.S_IFREG, Modified: 1}, {Path: "none", What: trace.Absent}}}
	stored := &trace.Trace{Layers: []trace.Layer{layer, layer, layer, layer}}
	noted, err := withResults(stored, []watched{{result: true, stored: "x", dir: dir}, {dir: "copied"}, {result: true, stored: "y", dir: dir}, {result: true, dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Notes != nil || layer.Entries[1].Modified != 1 {
		t.Error("the stored trace has changed")
	}
	for i, want := range []int64{made.UnixNano(), 1, made.UnixNano(), made.UnixNano()} {
		if got := noted.Layers[i].Entries[1].Modified; got != want {
			t.Errorf("a file of layer %d is of %d, want %d", i, got, want)
		}
	}
	if _, err := withResults(stored, []watched{{}}); err == nil {
		t.Error("got no error for the trace of another step")
	}
	for _, c := range []struct {
		name    string
		trace   *trace.Trace
		watched []watched
		want    []int
		err     bool
	}{
		{"all the same", noted, []watched{{result: true, stored: "x"}, {dir: "copied"}, {result: true, stored: "y"}, {result: true, dir: "z"}}, []int{0, 2}, false},
		{"another one, here", noted, []watched{{result: true, stored: "y", dir: "y"}, {dir: "copied"}, {result: true, stored: "y"}, {result: true, dir: "z"}}, []int{2}, false},
		{"another one, not here", noted, []watched{{result: true, stored: "y"}, {dir: "copied"}, {result: true, stored: "y"}, {result: true, dir: "z"}}, nil, true},
		{"one that is not stored, and not here", noted, []watched{{result: true, stored: "x"}, {dir: "copied"}, {result: true, stored: "y"}, {result: true}}, nil, true},
		{"nothing is noted", stored, []watched{{result: true, stored: "x", dir: "x"}}, nil, false},
		{"nothing is noted, and it is not here", stored, []watched{{result: true, stored: "x"}}, nil, true},
	} {
		same, err := (&inputs{watched: c.watched}).same(c.trace)
		if got := slices.Sorted(maps.Keys(same)); (err != nil) != c.err || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

// A step may take what another one left in a cache mount of both: one below it, or one of a stage that something is copied from.
func TestShares(t *testing.T) {
	mount := func(id string) *pb.Mount {
		return &pb.Mount{MountType: pb.MountType_CACHE, Dest: "/m", CacheOpt: &pb.CacheOpt{ID: "namespace/" + id}}
	}
	base, context := source("docker-image://debian"), source("local://context")
	copied := copyFrom("COPY . .", context, base)
	stage := func(id string) *vertex {
		return copyFrom("COPY --from=x", run("RUN x", base, mount(id)), copied)
	}
	for _, c := range []struct {
		name   string
		below  *vertex
		mounts []*pb.Mount
		want   bool
	}{
		{"no mounts", run("RUN a", copied, mount("a")), nil, false},
		{"others", run("RUN a", copied, mount("a"), mount("b")), []*pb.Mount{mount("c")}, false},
		{"one of them", run("RUN a", copied, mount("a"), mount("b")), []*pb.Mount{mount("c"), mount("b")}, true},
		{"that the frontend added", run("RUN a", copied, mount("optbuild/root/.npm")), []*pb.Mount{mount("optbuild/root/.npm")}, true},
		{"in another stage", stage("a"), []*pb.Mount{mount("a")}, true},
		{"others in another stage", stage("a"), []*pb.Mount{mount("b")}, false},
		{"added in another stage", stage("optbuild/root/.npm"), []*pb.Mount{mount("optbuild/root/.npm")}, false},
		{"added for a distribution", stage("optbuild-apt-debian"), []*pb.Mount{mount("optbuild-apt-debian")}, false},
		{"of almost the same name", stage("optbuildx"), []*pb.Mount{mount("optbuildx")}, true},
	} {
		chain := chainOf(run("RUN b", c.below, c.mounts...), 0)
		if len(chain) != 2 || chain[0].shares != c.want || chain[1].shares {
			t.Errorf("%s: got %v, want %v", c.name, chain, c.want)
		}
	}
}
