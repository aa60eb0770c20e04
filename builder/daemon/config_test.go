package daemon

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/engine"
)

func TestLoad(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       string // what Load says: its warnings, or its error
	}{
		{"empty", "", ""},
		{"everything that is honoured", everything, ""},
		{"unknown key", "[worker.oci]\nsnapshoter = 'x'\ngc = false", "buildkitd.toml: unknown key worker.oci.snapshoter is ignored"},
		{"broken", "[worker", "error: buildkitd.toml:1:7: toml: expected ']' to close table name"},
		{"a wrong type", "\n[worker.oci]\ngc = 'yes'", "error: buildkitd.toml:3:6: toml: cannot decode TOML string into struct field config.OCIConfig.GC of type bool"},
		{"no oci worker", "[worker.oci]\nenabled = false", "error: buildkitd.toml: worker.oci.enabled: optbuild has no other worker"},
		{"containerd worker", "[worker.containerd]\nenabled = true", "error: buildkitd.toml: worker.containerd.enabled: optbuild has no containerd worker"},
		{"containerd worker switched off", "[worker.containerd]\nenabled = false\nnamespace = 'x'", ""},
		{"containerd worker set up", "[worker.containerd]\nnamespace = 'x'", "buildkitd.toml: worker.containerd is ignored: optbuild has no containerd worker"},
		{"stargz", "[worker.oci]\nsnapshotter = 'stargz'", `error: buildkitd.toml: worker.oci.snapshotter: unknown snapshotter "stargz" (auto, overlayfs, fuse-overlayfs or native)`},
		{"stargz's settings", "[worker.oci.stargzSnapshotter]\nno_prometheus = true", "buildkitd.toml: worker.oci.stargzSnapshotter is ignored: optbuild has no stargz snapshotter"},
		{"proxy snapshotter", "[worker.oci]\nproxySnapshotterPath = '/x'", "error: buildkitd.toml: worker.oci.proxySnapshotterPath: optbuild uses no snapshotter of another process"},
		{"user remap", "[worker.oci]\nuserRemapUnsupported = 'x'", "error: buildkitd.toml: worker.oci.userRemapUnsupported: user namespaces for steps are not supported; run optbuild as an ordinary user"},
		{"entitlement", "insecure-entitlements = ['network.hots']", `error: buildkitd.toml: insecure-entitlements: unknown entitlement "network.hots" (network.host, security.insecure or device)`},
		{"concurrency", "[system]\nmaxRegistryConcurrency = 0", "error: buildkitd.toml: system.maxRegistryConcurrency: must be greater than zero"},
		{"debugging", "[grpc]\ndebugAddress = ':1'\nsecurityDescriptor = 'x'",
			"buildkitd.toml: grpc.debugAddress is ignored: optbuild has no debugging endpoint\nbuildkitd.toml: grpc.securityDescriptor is ignored: it is for Windows"},
		{"signing", "[cache.gha.sign]\ncommand = ['sign']", "error: buildkitd.toml: cache.gha.sign: optbuild does not sign cache entries"},
		{"signatures", "[cache.gha.verify]\nrequired = true", "error: buildkitd.toml: cache.gha.verify.required: optbuild does not verify signatures of cache entries"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings, err := Load("/cwd", tt.text)
			got := strings.Join(warnings, "\n")
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

// A later document overrides an earlier one key by key: lists as a whole, maps by entry.
func TestLoadOverrides(t *testing.T) {
	c, _, err := Load("/cwd", `
[grpc]
address = ["unix:///a", "unix:///b"]
gid = 3
[worker.oci]
gc = true
snapshotter = "native"
[worker.oci.labels]
a = "1"
b = "2"
`, `
[grpc]
address = ["tcp://c:1"]
[worker.oci]
gc = false
[worker.oci.labels]
b = "3"
`)
	if err != nil {
		t.Fatal(err)
	}
	oci := c.Workers.OCI
	got := dump(t, map[string]any{"address": c.GRPC.Address, "gid": c.GRPC.GID, "gc": oci.GC, "snapshotter": oci.Snapshotter, "labels": oci.Labels})
	want := `{"address":["tcp://c:1"],"gc":false,"gid":3,"labels":{"a":"1","b":"3"},"snapshotter":"native"}`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// The engine's process does not run where the command was given.
func TestLoadResolvesPaths(t *testing.T) {
	c := load(t, `
root = "r"
provenanceEnvDir = "/p"
[grpc]
address = ["unix://s.sock", "unix:///s.sock", "tcp://h:1"]
[grpc.tls]
cert = "c"
key = "k"
ca = "a"
[otel]
socketPath = "o"
[cdi]
specDirs = ["d", "/d"]
[worker.oci]
binary = "runc"
cniConfigPath = "cc"
cniBinaryPath = "cb"
[registry."x"]
ca = ["r1"]
tlsconfigdir = ["r2"]
[[registry."x".keypair]]
key = "r3"
cert = "r4"
`)
	oci := c.Workers.OCI
	got := dump(t, []any{c.Root, c.ProvenanceEnvDir, c.GRPC.Address, c.GRPC.TLS, c.OTEL.SocketPath, c.CDI.SpecDirs, oci.Binary,
		oci.CNIConfigPath, oci.CNIBinaryPath, c.Registries["x"].RootCAs, c.Registries["x"].TLSConfigDir, c.Registries["x"].KeyPairs})
	want := `["/cwd/r","/p",["unix:///cwd/s.sock","unix:///s.sock","tcp://h:1"],{"Cert":"/cwd/c","Key":"/cwd/k","CA":"/cwd/a"},"/cwd/o",` +
		`["/cwd/d","/d"],"runc","/cwd/cc","/cwd/cb",["/cwd/r1"],["/cwd/r2"],[{"Key":"/cwd/r3","Certificate":"/cwd/r4"}]]`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

const everything = `
debug = true
root = "/var/lib/x"
insecure-entitlements = ["network.host", "security.insecure"]
proxyNetwork = true
provenanceEnvDir = "PROVENANCE"

[log]
format = "json"

[grpc]
address = ["tcp://127.0.0.1:1"]
uid = 1
gid = 2
[grpc.tls]
cert = "/cert"
key = "/key"
ca = "/ca"

[otel]
socketPath = "/run/x.sock"

[cdi]
specDirs = ["/etc/cdi"]
autoAllowed = ["vendor.com/gpu"]

[history]
maxAge = 60
maxEntries = 5

[dns]
nameservers = ["1.1.1.1"]
options = ["edns0"]
searchDomains = ["example.com"]

[worker.oci]
enabled = true
platforms = ["linux/amd64", "linux/arm64"]
snapshotter = "native"
rootless = true
noProcessSandbox = true
gc = true
networkMode = "cni"
cniConfigPath = "/cni.json"
cniBinaryPath = "/cni"
cniPoolSize = 3
bridgeName = "br9"
bridgeSubnet = "10.9.0.0/16"
binary = "true"
defaultCgroupParent = "parent"
apparmor-profile = "profile"
selinux = true
max-parallelism = 4
[worker.oci.labels]
a = "b"
[[worker.oci.gcpolicy]]
filters = ["type==source.local"]
keepDuration = "48h"
maxUsedSpace = "512MB"
[[worker.oci.gcpolicy]]
all = true
keepBytes = 1000
minFreeSpace = 2000

[registry."docker.io"]
mirrors = ["mirror.example.com"]

[frontend."dockerfile.v0"]
enabled = false
[frontend."gateway.v0"]
enabled = false
allowedRepositories = ["docker/dockerfile"]

[system]
platformsCacheMaxAge = "1h"
maxRegistryConcurrency = 7
`

func TestApply(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.json"), []byte(`{"foo":"bar"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := Load("/cwd", strings.Replace(everything, "PROVENANCE", dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	if c.Log.Level != "debug" {
		t.Errorf("log level %q", c.Log.Level)
	}
	o := engine.Options{Root: dir, Runtime: "/runc", Rootless: true, CgroupParent: "ours", KeepImages: true}
	o.Hosts = func(host string) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{{Host: "as-builds-do." + host}}, nil
	}
	if err := c.Apply(&o); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, registry := range []string{"docker.io", "example.com"} {
		hosts, err := o.Hosts(registry)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			names = append(names, h.Host)
		}
	}
	if got := strings.Join(names, " "); got != "mirror.example.com registry-1.docker.io as-builds-do.example.com" {
		t.Errorf("hosts: %s", got)
	}
	if !filepath.IsAbs(o.Runtime) || filepath.Base(o.Runtime) != "true" {
		t.Errorf("runtime %q", o.Runtime)
	}
	want := engine.Options{
		Root: dir, Runtime: o.Runtime, Rootless: true, CgroupParent: "parent", KeepImages: true,
		NoProcessSandbox: true, Snapshotter: "native", AppArmorProfile: "profile", SELinux: true, MaxParallelism: 4,
		Labels:       map[string]string{"a": "b"},
		Entitlements: []string{"network.host", "security.insecure", "device"},
		CDISpecDirs:  []string{"/etc/cdi"}, CDIAutoAllowed: []string{"vendor.com/gpu"},
		NoGateway: true, GatewayRepositories: []string{"docker/dockerfile"}, ProxyNetwork: true,
		ProvenanceEnv: map[string]any{"foo": "bar"},
		GCPolicy: []client.PruneInfo{
			{Filter: []string{"type==source.local"}, KeepDuration: 48 * time.Hour, MaxUsedSpace: 512 << 20},
			{All: true, ReservedSpace: 1000, MinFreeSpace: 2000},
		},
		DNS: c.DNS, History: c.History,
		Platforms: o.Platforms,
	}
	want.Network.Mode, want.Network.CNIConfigPath, want.Network.CNIBinaryPath, want.Network.CNIPoolSize = "cni", "/cni.json", "/cni", 3
	want.Network.BridgeName, want.Network.BridgeSubnet = "br9", "10.9.0.0/16"
	o.Hosts = nil
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", o, want)
	}
	if got := dump(t, o.Platforms); got != `[{"architecture":"amd64","os":"linux"},{"architecture":"arm64","os":"linux"}]` {
		t.Errorf("platforms %s", got)
	}
	if got := dump(t, o.DNS) + dump(t, o.History); got != `{"Nameservers":["1.1.1.1"],"Options":["edns0"],"SearchDomains":["example.com"]}{"MaxAge":{"Duration":60000000000},"MaxEntries":5}` {
		t.Errorf("dns and history %s", got)
	}
}

func TestApplyDefaults(t *testing.T) {
	c, _, err := Load("/cwd", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		rootless bool
		network  string
	}{
		{false, `{"Mode":"","CNIConfigPath":"/etc/buildkit/cni.json","CNIBinaryPath":"/opt/cni/bin","CNIPoolSize":0,"BridgeName":"buildkit0","BridgeSubnet":"10.10.0.0/16"}`},
		{true, ""},
	} {
		o := engine.Options{Root: t.TempDir(), Runtime: "/runc", Rootless: tt.rootless, Entitlements: []string{"network.host"}}
		if err := c.Apply(&o); err != nil {
			t.Fatal(err)
		}
		if got := dump(t, o.Network); !tt.rootless && got != tt.network {
			t.Errorf("network:\n%s\nwant:\n%s", got, tt.network)
		}
		if tt.rootless && o.Network.Mode != "host" {
			t.Errorf("rootless network mode %q", o.Network.Mode)
		}
		// What builds may ask for by default, a buildkitd's clients may not.
		if got := dump(t, o.Entitlements); got != `["device"]` {
			t.Errorf("entitlements %s", got)
		}
		if len(o.GCPolicy) != 4 || o.History != nil || o.Runtime != "/runc" || len(o.Platforms) == 0 {
			t.Errorf("%d rules, history %v, runtime %s, platforms %v", len(o.GCPolicy), o.History, o.Runtime, o.Platforms)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"[worker.oci]\nrootless = true":             "worker.oci.rootless: this process is root; run optbuild as an ordinary user for a rootless engine",
		"[worker.oci]\nnoProcessSandbox = true":     "worker.oci.noProcessSandbox: only a rootless engine can do without it",
		"[worker.oci]\nbinary = '/nonexistent/x'":   "worker.oci.binary: exec: \"/nonexistent/x\": stat /nonexistent/x: no such file or directory",
		"[worker.oci]\nplatforms = ['a/b/c/d/e']":   `worker.oci.platforms: "d/e" is an invalid component of "a/b/c/d/e": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument`,
		"provenanceEnvDir = '/proc/self/cmdline/x'": "provenanceEnvDir: open /proc/self/cmdline/x: not a directory",
	} {
		c, _, err := Load("/cwd", text)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(&engine.Options{Root: t.TempDir()}); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot:  %v\nwant: %s", text, err, want)
		}
	}
}

func dump(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
