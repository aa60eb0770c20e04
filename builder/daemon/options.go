package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/appdefaults"
	"github.com/moby/buildkit/util/archutil"
	"github.com/moby/buildkit/util/disk"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/util/resolver/limited"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/optbuild/optbuild/builder/engine"
)

// Apply sets in o what the configuration says. It comes with o as builds have it: Root, Runtime, Rootless, NoProcessSandbox
// and CgroupParent say where and how the engine runs, which no configuration changes.
func (c Config) Apply(o *engine.Options) error {
	oci := c.Workers.OCI
	switch {
	case oci.Rootless && !o.Rootless:
		return errors.New("worker.oci.rootless: this process is root; run optbuild as an ordinary user for a rootless engine")
	case oci.NoProcessSandbox && !o.Rootless:
		return errors.New("worker.oci.noProcessSandbox: only a rootless engine can do without it")
	}
	o.NoProcessSandbox = o.NoProcessSandbox || oci.NoProcessSandbox
	if oci.Binary != "" {
		path, err := exec.LookPath(oci.Binary)
		if err != nil {
			return fmt.Errorf("worker.oci.binary: %w", err)
		}
		o.Runtime = path
	}
	if oci.DefaultCgroupParent != "" {
		o.CgroupParent = oci.DefaultCgroupParent
	}
	if oci.Snapshotter != "" {
		o.Snapshotter = oci.Snapshotter
	}
	o.Platforms = archutil.SupportedPlatforms(false)
	if len(oci.Platforms) > 0 {
		var err error
		if o.Platforms, err = parsePlatforms(oci.Platforms); err != nil {
			return fmt.Errorf("worker.oci.platforms: %w", err)
		}
	}
	o.Labels = maps.Clone(oci.Labels)
	o.Network = network(oci.NetworkConfig, o.Rootless)
	o.DNS = c.DNS
	o.AppArmorProfile = oci.ApparmorProfile
	o.SELinux = oci.SELinux
	o.MaxParallelism = oci.MaxParallelism
	o.GCPolicy = gcPolicy(oci.GCConfig, o.Root)
	o.Entitlements = c.Entitlements
	o.CDISpecDirs, o.CDIAutoAllowed = nil, nil
	if c.CDI.Disabled == nil || !*c.CDI.Disabled {
		o.CDISpecDirs, o.CDIAutoAllowed = c.CDI.SpecDirs, c.CDI.AutoAllowed
		o.Entitlements = append(o.Entitlements[:len(o.Entitlements):len(o.Entitlements)], "device")
	}
	o.Hosts = c.hosts(o.Hosts)
	o.History = c.History
	o.ProxyNetwork = c.ProxyNetwork
	o.GatewayRepositories = c.Frontends.Gateway.AllowedRepositories
	o.NoGateway = isFalse(c.Frontends.Gateway.Enabled)
	if isFalse(c.Frontends.Dockerfile.Enabled) {
		o.Frontends = maps.Clone(o.Frontends)
		delete(o.Frontends, "dockerfile.v0")
	}
	env, err := provenanceEnv(c.ProvenanceEnvDir)
	if err != nil {
		return fmt.Errorf("provenanceEnvDir: %w", err)
	}
	o.ProvenanceEnv = env
	return nil
}

// hosts resolves the registries that the configuration names as buildkitd does, and others as before.
func (c Config) hosts(others docker.RegistryHosts) docker.RegistryHosts {
	named := resolver.NewRegistryConfig(c.Registries)
	return func(host string) ([]docker.RegistryHost, error) {
		if _, ok := c.Registries[host]; ok || others == nil {
			return named(host)
		}
		return others(host)
	}
}

// SetProcess sets what BuildKit keeps in variables of the process: the log's level and format, limits.
func (c Config) SetProcess() error {
	level, err := logrus.ParseLevel(c.Log.Level)
	if err != nil {
		return fmt.Errorf("log.level: %w", err)
	}
	logrus.SetLevel(level)
	switch c.Log.Format {
	case "json":
		logrus.SetFormatter(&logrus.JSONFormatter{})
	case "", "text":
		logrus.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	default:
		return fmt.Errorf("log.format: unknown format %q (text or json)", c.Log.Format)
	}
	if s := c.System; s != nil {
		if s.PlatformsCacheMaxAge != nil {
			archutil.CacheMaxAge = s.PlatformsCacheMaxAge.Duration
		}
		if s.MaxRegistryConcurrency != nil {
			limited.SetMaxConcurrency(int64(*s.MaxRegistryConcurrency))
		}
	}
	return nil
}

// network fills in buildkitd's defaults. A rootless engine has the host's network unless it is told otherwise.
func network(n config.NetworkConfig, rootless bool) config.NetworkConfig {
	if rootless && (n.Mode == "" || n.Mode == "auto") {
		n.Mode = "host"
	}
	if n.CNIConfigPath == "" {
		n.CNIConfigPath = appdefaults.DefaultCNIConfigPath
		if rootless {
			n.CNIConfigPath = appdefaults.UserCNIConfigPath
		}
	}
	if n.CNIBinaryPath == "" {
		n.CNIBinaryPath = appdefaults.DefaultCNIBinDir
	}
	if n.BridgeName == "" {
		n.BridgeName = appdefaults.BridgeName
	}
	if n.BridgeSubnet == "" {
		n.BridgeSubnet = appdefaults.BridgeSubnet
	}
	return n
}

// gcPolicy returns the rules by which BuildKit collects after each build: those of the configuration, or its defaults for
// the size of the disk. Nil when collection is off.
func gcPolicy(c config.GCConfig, root string) []client.PruneInfo {
	if isFalse(c.GC) {
		return nil
	}
	stat, _ := disk.GetDiskStat(root) // on an error it is zero, and percentages become a fixed size
	rules := c.GCPolicy
	if len(rules) == 0 {
		rules = config.DefaultGCPolicy(c, stat)
	}
	out := make([]client.PruneInfo, 0, len(rules))
	for _, r := range rules {
		if r.ReservedSpace == (config.DiskSpace{}) {
			//lint:ignore SA1019 buildkitd still reads it
			r.ReservedSpace = r.KeepBytes
		}
		out = append(out, client.PruneInfo{
			Filter:        r.Filters,
			All:           r.All,
			KeepDuration:  r.KeepDuration.Duration,
			ReservedSpace: r.ReservedSpace.AsBytes(stat),
			MaxUsedSpace:  r.MaxUsedSpace.AsBytes(stat),
			MinFreeSpace:  r.MinFreeSpace.AsBytes(stat),
		})
	}
	return out
}

func parsePlatforms(names []string) ([]ocispecs.Platform, error) {
	out := make([]ocispecs.Platform, 0, len(names))
	for _, n := range names {
		p, err := platforms.Parse(n)
		if err != nil {
			return nil, err
		}
		out = append(out, platforms.Normalize(p))
	}
	return out, nil
}

// provenanceEnv merges the JSON files of a directory; the default directory need not exist.
func provenanceEnv(dir string) (map[string]any, error) {
	if dir == "" {
		dir = filepath.Join(appdefaults.ConfigDir, "provenance.d")
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	env := map[string]any{}
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, &env); err != nil {
			return nil, fmt.Errorf("read %s: %w", e.Name(), err)
		}
	}
	return env, nil
}

func isFalse(b *bool) bool { return b != nil && !*b }
