package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder"
	"github.com/optbuild/optbuild/builder/daemon"
)

// serveKey is a flag of buildkitd that sets a key of buildkitd.toml.
type serveKey struct {
	flag, key, usage string
	// kind says how the flag is written: as text, a list, a boolean, a number, or a map (key=value, several times).
	kind kind
	// hidden flags are there for those who come from buildkitd; the help shows the rest.
	hidden bool
}

type kind int

const (
	text kind = iota
	list
	boolean
	number
	pairs
)

var serveKeys = []serveKey{
	{"addr", "grpc.address", "address to listen on: unix:///PATH or tcp://HOST:PORT", list, false},
	{"tlscert", "grpc.tls.cert", "certificate of tcp addresses", text, false},
	{"tlskey", "grpc.tls.key", "its key", text, false},
	{"tlscacert", "grpc.tls.ca", "certificate authority that clients have to be signed by", text, false},
	{"allow-insecure-entitlement", "insecure-entitlements", "let builds ask for network.host, security.insecure or device", list, false},
	{"log-level", "log.level", "debug, info, warn or error", text, false},
	{"log-format", "log.format", "text or json", text, false},
	{"otel-socket-path", "otel.socketPath", "socket on which steps send their spans", text, true},
	{"proxy-network", "proxyNetwork", "make every build use the proxy network", boolean, true},
	{"cdi-disabled", "cdi.disabled", "offer no CDI devices", boolean, true},
	{"cdi-spec-dir", "cdi.specDirs", "directory with CDI specifications", list, true},
	{"debugaddr", "grpc.debugAddress", "ignored", text, true},
	{"rootless", "worker.oci.rootless", "fail unless the engine is rootless", boolean, true},
	{"oci-worker", "worker.oci.enabled", "always true", boolean, true},
	{"containerd-worker", "worker.containerd.enabled", "always false", boolean, true},
	{"oci-worker-labels", "worker.oci.labels", "label of the worker, KEY=VALUE", pairs, true},
	{"oci-worker-snapshotter", "worker.oci.snapshotter", "auto, overlayfs, fuse-overlayfs or native", text, true},
	{"oci-worker-proxy-snapshotter-path", "worker.oci.proxySnapshotterPath", "not supported", text, true},
	{"oci-worker-platform", "worker.oci.platforms", "platform that the worker offers", list, true},
	{"oci-worker-net", "worker.oci.networkMode", "network of steps: auto, host, cni or bridge", text, true},
	{"oci-cni-config-path", "worker.oci.cniConfigPath", "CNI configuration", text, true},
	{"oci-cni-binary-dir", "worker.oci.cniBinaryPath", "directory of CNI plugins", text, true},
	{"oci-cni-pool-size", "worker.oci.cniPoolSize", "network namespaces to keep ready", number, true},
	{"oci-worker-binary", "worker.oci.binary", "another OCI runtime than the embedded runc", text, true},
	{"oci-worker-apparmor-profile", "worker.oci.apparmor-profile", "AppArmor profile of steps", text, true},
	{"oci-worker-selinux", "worker.oci.selinux", "set SELinux labels", boolean, true},
	{"oci-worker-rootless", "worker.oci.rootless", "fail unless the engine is rootless", boolean, true},
	{"oci-worker-no-process-sandbox", "worker.oci.noProcessSandbox", "run steps in the engine's pid namespace", boolean, true},
	{"oci-max-parallelism", "worker.oci.max-parallelism", "steps that may run at once", number, true},
	{"oci-worker-gc", "worker.oci.gc", "collect garbage after builds (default: true)", boolean, true},
}

func serveCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "buildkitd.toml to read (default: /etc/buildkit/buildkitd.toml if it exists)"},
		&cli.StringFlag{Name: "root", Usage: "state directory, as before the command"},
		&cli.BoolFlag{Name: "debug", Usage: "verbose log"},
		&cli.StringFlag{Name: "group", Usage: "group, by name or id, that owns the unix sockets"},
		&cli.StringFlag{Name: "oci-worker-gc-keepstorage", Usage: "what collection keeps: RESERVED[,FREE[,MAXIMUM]] in MB", Hidden: true},
	}
	for _, k := range serveKeys {
		flags = append(flags, k.cliFlag())
	}
	return &cli.Command{
		Name:  "serve",
		Usage: "stand where a buildkitd stands, for buildctl and docker buildx",
		Description: "Runs in the foreground until SIGTERM or Ctrl-C, which are its ordinary end (exit code 0). All flags of buildkitd with a meaning here are accepted;\n" +
			"each sets a key of buildkitd.toml.",
		Flags:  flags,
		Action: serve,
	}
}

func (k serveKey) cliFlag() cli.Flag {
	switch k.kind {
	case list, pairs:
		return &cli.StringSliceFlag{Name: k.flag, Usage: k.usage, Hidden: k.hidden}
	case boolean:
		return &cli.BoolFlag{Name: k.flag, Usage: k.usage, Hidden: k.hidden}
	case number:
		return &cli.IntFlag{Name: k.flag, Usage: k.usage, Hidden: k.hidden}
	default:
		return &cli.StringFlag{Name: k.flag, Usage: k.usage, Hidden: k.hidden}
	}
}

func serve(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("serve takes no arguments: %s", c.Args().First())
	}
	file, err := serveConfigFile(c.String("config"))
	if err != nil {
		return err
	}
	overrides, err := serveOverrides(c)
	if err != nil {
		return err
	}
	own, err := loadConfig()
	if err != nil {
		return err
	}
	limit, err := maxCache(c, own)
	if err != nil {
		return err
	}
	registries, err := registryConfig(c)
	if err != nil {
		return err
	}
	o := builder.ServeOptions{
		Root:     inherited(c, "root"),
		Config:   []string{file, overrides},
		Say:      warn,
		SingleID: c.Bool("single-id"),
		Settings: builder.Settings{Runtime: c.String("oci-runtime"), Registry: registries, MaxCache: limit},
	}
	if o.Root == "" {
		if o.DefaultRoot, err = stateDir(c); err != nil {
			return err
		}
	}
	if err := builder.Serve(c.Context, o); err != nil {
		return err
	}
	return errDone
}

// inherited is the value of a flag that may stand before the command's name or behind it.
func inherited(c *cli.Context, name string) string {
	for _, l := range c.Lineage() {
		if v := l.String(name); v != "" {
			return v
		}
	}
	return ""
}

// serveConfigFile reads buildkitd.toml: the one that was asked for, or the default one if it exists.
func serveConfigFile(path string) (string, error) {
	asked := path != ""
	if !asked {
		path = daemon.DefaultConfigPath(os.Geteuid() != 0)
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return "", nil
	}
	return string(b), err
}

// serveOverrides writes the flags that were given as a document in buildkitd.toml's format.
func serveOverrides(c *cli.Context) (string, error) {
	doc := tomlDoc{}
	for _, k := range serveKeys {
		if !c.IsSet(k.flag) {
			continue
		}
		switch k.kind {
		case list:
			doc.set(k.key, c.StringSlice(k.flag))
		case boolean:
			doc.set(k.key, c.Bool(k.flag))
		case number:
			doc.set(k.key, c.Int(k.flag))
		case pairs:
			m := map[string]string{}
			for _, p := range c.StringSlice(k.flag) {
				name, value, ok := strings.Cut(p, "=")
				if !ok {
					return "", usagef("--%s %s: it has to be KEY=VALUE", k.flag, p)
				}
				m[name] = value
			}
			doc.set(k.key, m)
		default:
			doc.set(k.key, c.String(k.flag))
		}
	}
	for _, l := range c.Lineage() {
		if l.Bool("debug") {
			doc.set("log.level", "debug")
		}
	}
	if g := c.String("group"); g != "" {
		id, err := groupID(g)
		if err != nil {
			return "", usagef("--group: %w", err)
		}
		doc.set("grpc.gid", id)
	}
	if sizes := c.String("oci-worker-gc-keepstorage"); sizes != "" {
		keys := []string{"reservedSpace", "minFreeSpace", "maxUsedSpace"}
		for i, s := range strings.SplitN(sizes, ",", len(keys)) {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return "", usagef("--oci-worker-gc-keepstorage %s: %w", sizes, err)
			}
			doc.set("worker.oci."+keys[i], fmt.Sprint(n*1e6))
		}
	}
	b, err := toml.Marshal(map[string]any(doc))
	return string(b), err
}

func groupID(name string) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// tomlDoc is a document of nested tables.
type tomlDoc map[string]any

// set sets the key with the given dotted path.
func (d tomlDoc) set(path string, value any) {
	table := map[string]any(d)
	keys := strings.Split(path, ".")
	for _, k := range keys[:len(keys)-1] {
		next, ok := table[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			table[k] = next
		}
		table = next
	}
	table[keys[len(keys)-1]] = value
}
