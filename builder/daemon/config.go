// Package daemon lets an engine stand where a buildkitd stands: it reads what a buildkitd is configured with and says what
// that means for an engine, and it makes the gRPC server that buildctl and buildx expect.
//
//	buildkitd.toml ─┐
//	flags, as toml ─┴─> Load ──> Config ──> Listen, Credentials   in the command's process
//	                               └──────> Options, NewServer    in the engine's
//
// Every flag of buildkitd is a key of buildkitd.toml, too, so a document made from flags that is read after the file is all
// that overriding takes; both processes read the same documents and come to the same Config. A key that optbuild can't
// honour is an error when a build would come out differently without it, else a warning; both name the key.
package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/appdefaults"
	"github.com/moby/sys/userns"
	"github.com/pelletier/go-toml/v2"
)

// Config is what a buildkitd is configured with.
type Config struct{ config.Config }

// DefaultConfigPath is where buildkitd looks for its configuration.
func DefaultConfigPath(rootless bool) string {
	if rootless {
		return filepath.Join(appdefaults.UserConfigDir(), "buildkitd.toml")
	}
	return filepath.Join(appdefaults.ConfigDir, "buildkitd.toml")
}

// Load reads documents in buildkitd.toml's format; a later one overrides an earlier one key by key. Relative paths in them
// start at dir. The warnings name keys that have no effect.
func Load(dir string, documents ...string) (c Config, warnings []string, err error) {
	for _, text := range documents {
		var unknown *toml.StrictMissingError
		var broken *toml.DecodeError
		err := toml.NewDecoder(bytes.NewReader([]byte(text))).DisallowUnknownFields().Decode(&c.Config)
		if errors.As(err, &unknown) {
			for _, k := range unknown.Errors {
				warnings = append(warnings, fmt.Sprintf("buildkitd.toml: unknown key %s is ignored", strings.Join(k.Key(), ".")))
			}
		} else if errors.As(err, &broken) {
			row, column := broken.Position()
			return Config{}, nil, fmt.Errorf("buildkitd.toml:%d:%d: %w", row, column, err)
		} else if err != nil {
			return Config{}, nil, fmt.Errorf("read buildkitd.toml: %w", err)
		}
	}
	for _, k := range unsupported {
		switch why := k.check(&c.Config); {
		case why == "":
		case k.ignored:
			warnings = append(warnings, fmt.Sprintf("buildkitd.toml: %s is ignored: %s", k.key, why))
		default:
			return Config{}, nil, fmt.Errorf("buildkitd.toml: %s: %s", k.key, why)
		}
	}
	c.setDefaults()
	c.resolvePaths(dir)
	return c, warnings, nil
}

// unsupportedKey is a key that optbuild can't honour, or not with every value.
type unsupportedKey struct {
	key string
	// ignored is set where doing without the key changes no build.
	ignored bool
	// check returns why the key can't be honoured as it is set; empty if it can.
	check func(*config.Config) string
}

var unsupported = []unsupportedKey{
	{"worker.oci.enabled", false, func(c *config.Config) string {
		return when(c.Workers.OCI.Enabled != nil && !*c.Workers.OCI.Enabled, "optbuild has no other worker")
	}},
	{"worker.containerd.enabled", false, func(c *config.Config) string {
		return when(c.Workers.Containerd.Enabled != nil && *c.Workers.Containerd.Enabled, "optbuild has no containerd worker")
	}},
	{"worker.containerd", true, func(c *config.Config) string {
		return when(c.Workers.Containerd.Enabled == nil && !reflect.DeepEqual(c.Workers.Containerd, config.ContainerdConfig{}),
			"optbuild has no containerd worker")
	}},
	{"worker.oci.snapshotter", false, func(c *config.Config) string {
		known := []string{"", "auto", "overlayfs", "fuse-overlayfs", "native"}
		return when(!slices.Contains(known, c.Workers.OCI.Snapshotter),
			fmt.Sprintf("unknown snapshotter %q (auto, overlayfs, fuse-overlayfs or native)", c.Workers.OCI.Snapshotter))
	}},
	{"worker.oci.proxySnapshotterPath", false, func(c *config.Config) string {
		return when(c.Workers.OCI.ProxySnapshotterPath != "", "optbuild uses no snapshotter of another process")
	}},
	{"worker.oci.stargzSnapshotter", true, func(c *config.Config) string {
		return when(c.Workers.OCI.StargzSnapshotterConfig != nil, "optbuild has no stargz snapshotter")
	}},
	{"worker.oci.userRemapUnsupported", false, func(c *config.Config) string {
		return when(c.Workers.OCI.UserRemapUnsupported != "", "user namespaces for steps are not supported; run optbuild as an ordinary user")
	}},
	{"insecure-entitlements", false, func(c *config.Config) string {
		for _, e := range c.Entitlements {
			if e != "network.host" && e != "security.insecure" && e != "device" {
				return fmt.Sprintf("unknown entitlement %q (network.host, security.insecure or device)", e)
			}
		}
		return ""
	}},
	{"system.maxRegistryConcurrency", false, func(c *config.Config) string {
		return when(c.System != nil && c.System.MaxRegistryConcurrency != nil && *c.System.MaxRegistryConcurrency <= 0, "must be greater than zero")
	}},
	{"grpc.debugAddress", true, func(c *config.Config) string {
		return when(c.GRPC.DebugAddress != "", "optbuild has no debugging endpoint")
	}},
	{"grpc.securityDescriptor", true, func(c *config.Config) string {
		return when(c.GRPC.SecurityDescriptor != "", "it is for Windows")
	}},
	{"cache.gha.sign", false, func(c *config.Config) string {
		return when(c.Cache.GHA != nil && c.Cache.GHA.Sign != nil, "optbuild does not sign cache entries")
	}},
	{"cache.gha.verify.required", false, func(c *config.Config) string {
		return when(c.Cache.GHA != nil && c.Cache.GHA.Verify.Required, "optbuild does not verify signatures of cache entries")
	}},
}

func when(cond bool, why string) string {
	if cond {
		return why
	}
	return ""
}

func (c *Config) setDefaults() {
	if len(c.GRPC.Address) == 0 {
		c.GRPC.Address = []string{appdefaults.Address}
		if userns.RunningInUserNS() {
			c.GRPC.Address = []string{appdefaults.UserAddress()}
		}
	}
	if len(c.CDI.SpecDirs) == 0 {
		c.CDI.SpecDirs = appdefaults.CDISpecDirs
	}
	switch {
	case c.Log.Level != "":
	//lint:ignore SA1019 buildkitd still reads it
	case c.Trace:
		c.Log.Level = "trace"
	//lint:ignore SA1019 buildkitd still reads it
	case c.Debug:
		c.Log.Level = "debug"
	default:
		c.Log.Level = "info"
	}
}

// resolvePaths makes paths absolute: the engine's process does not run where the command was given.
func (c *Config) resolvePaths(dir string) {
	abs := func(paths ...*string) {
		for _, p := range paths {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(dir, *p)
			}
		}
	}
	each := func(paths []string) {
		for i := range paths {
			abs(&paths[i])
		}
	}
	oci := &c.Workers.OCI
	abs(&c.Root, &c.GRPC.TLS.Cert, &c.GRPC.TLS.Key, &c.GRPC.TLS.CA, &c.OTEL.SocketPath, &c.ProvenanceEnvDir, &oci.CNIConfigPath, &oci.CNIBinaryPath)
	each(c.CDI.SpecDirs)
	if strings.Contains(oci.Binary, "/") { // else it is looked for in PATH
		abs(&oci.Binary)
	}
	for i, addr := range c.GRPC.Address {
		if path, ok := strings.CutPrefix(addr, "unix://"); ok {
			abs(&path)
			c.GRPC.Address[i] = "unix://" + path
		}
	}
	for _, r := range c.Registries {
		each(r.RootCAs)
		each(r.TLSConfigDir)
		for i := range r.KeyPairs {
			abs(&r.KeyPairs[i].Key, &r.KeyPairs[i].Certificate)
		}
	}
}
