package integration

import (
	"bytes"
	"debug/buildinfo"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/optbuild/optbuild/builder/engine/actionscache/actionstest"
)

// TestLinked: what starts is paid for at each start of each process, also what packages do that are only there for a flag that nobody gave.
func TestLinked(t *testing.T) {
	info, err := buildinfo.ReadFile(filepath.Join(prepare(t).Dir, "bin", "optbuild"))
	if err != nil {
		t.Fatal(err)
	}
	dear := map[string]struct{ why, tag string }{
		"github.com/sigstore/rekor":         {"BuildKit's gha cache; builder/engine/actionscache does without", ""},
		"github.com/asaskevich/govalidator": {"rekor", ""},
		"github.com/aws/aws-sdk-go-v2":      {"the s3 cache", "optbuild_s3"},
	}
	for _, m := range info.Deps {
		if d, ok := dear[m.Path]; ok && (d.tag == "" || !strings.Contains(tagsOf(info), d.tag)) {
			t.Errorf("%s is linked in: %s", m.Path, d.why)
		}
	}
	if len(info.Deps) == 0 {
		t.Error("the binary does not say what is linked in")
	}
}

// tagsOf are the build tags of a binary.
func tagsOf(info *buildinfo.BuildInfo) string {
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return s.Value
		}
	}
	return ""
}

// TestBackends has stock BuildKit read the caches that optbuild has written outside of registries, and optbuild those of stock BuildKit. The step that one of them runs makes random
// bytes; where the other one runs it, too, it has others. OPTBUILD_BACKENDS_BIN names an optbuild that is built with all of them.
func TestBackends(t *testing.T) {
	g := prepare(t)
	needStock(t)
	bin := os.Getenv("OPTBUILD_BACKENDS_BIN")
	if bin == "" {
		bin = filepath.Join(g.Dir, "bin", "optbuild")
	}
	work, server := workplace(t, g, "backends-")
	actions, bucket, blobs := &actionstest.Service{}, newS3Bucket(), azureBlobs()
	serve := func(h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	actions.URL = serve(actions) + "/"
	f := &backendFixture{bin: bin, work: work, registry: server.Addr, writer: startStock(t, filepath.Join(work, "writer")), reader: startStock(t, filepath.Join(work, "reader"))}
	job := "url=" + actions.URL + ",token=" + actionsToken("refs/heads/main")
	for _, c := range []struct{ name, cache, scope string }{
		{"gha", "type=gha,version=2,url_v2=" + actions.URL + "," + job, "scope"},
		{"gha-v1", "type=gha,version=1," + job, "scope"},
		{"s3", "type=s3,bucket=bucket,region=here,use_path_style=true,access_key_id=" + s3KeyID + ",secret_access_key=" + cloudKey + ",endpoint_url=" + serve(bucket), "name"},
		{"azblob", "type=azblob,container=c,account_name=" + azureAccount + ",secret_access_key=" + cloudKey + ",account_url=" + serve(blobs) + "/", "name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Getenv("OPTBUILD_BACKENDS_BIN") == "" && c.name == "s3" {
				skipped.skip(t, "OPTBUILD_BACKENDS_BIN does not name an optbuild with "+c.name+"; make parity")
			}
			for i, way := range []string{"stock to optbuild", "optbuild to stock", "optbuild to optbuild"} {
				name := c.name + "-" + string(rune('a'+i))
				cache := c.cache + "," + c.scope + "=" + name
				from, to, _ := strings.Cut(way, " to ")
				made := f.build(t, from, name, "to", cache+",mode=max")
				if got := f.build(t, to, name, "from", cache); !bytes.Equal(got, made) {
					t.Errorf("%s: the step ran again", way)
				}
			}
			f.forgets(t, cloudKey)
		})
	}
}

type backendFixture struct {
	bin, work, registry string
	writer, reader      *stock
	states              []string
}

// build builds with a cache that is read ("from") or written ("to"), on nothing else that was built before, and returns what the step has made.
func (f *backendFixture) build(t *testing.T, by, name, way, cache string) []byte {
	t.Helper()
	dir, dest := filepath.Join(f.work, name), filepath.Join(f.work, name+"."+way)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// 6 MB: larger than one part of an upload.
	dockerfile := "FROM " + f.registry + "/busybox\nCOPY Dockerfile /\nRUN echo " + name + "; head -c 6000000 /dev/urandom >/large; sha256sum </large >/made\nFROM scratch\nCOPY --from=0 /made /made\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	var c *exec.Cmd
	if by == "stock" {
		s := map[string]*stock{"to": f.writer, "from": f.reader}[way]
		c = exec.CommandContext(t.Context(), os.Getenv("STOCK_BUILDCTL"), "--addr", s.addr, "build", "--progress=plain", "--frontend=dockerfile.v0",
			"--local", "context="+dir, "--local", "dockerfile="+dir, "--output", "type=local,dest="+dest, map[string]string{"to": "--export-cache", "from": "--import-cache"}[way], cache)
	} else {
		state := filepath.Join(f.work, name+"."+way+".state")
		f.states = append(f.states, state)
		c = exec.CommandContext(t.Context(), f.bin, "build", "--root", state, "--progress=plain", "-o", dest, "--cache-"+way, cache, dir)
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s, cache %s: %v\n%s", by, way, err, out)
	}
	made, err := os.ReadFile(filepath.Join(dest, "made"))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// forgets looks for a secret in what builds have left.
func (f *backendFixture) forgets(t *testing.T, secret string) {
	t.Helper()
	out, err := exec.Command("grep", append([]string{"-rlF", "--", secret}, f.states...)...).Output()
	if len(out) > 0 {
		t.Errorf("the key is in\n%s", out)
	}
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 1 {
		t.Errorf("look for the key: %v", err)
	}
}
