package main

import (
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/frontend/opt"
)

// buildFlags are the flags of `docker buildx build`, with docker's meaning.
func buildFlags() []cli.Flag {
	list := func(name, usage string, aliases ...string) cli.Flag {
		return &cli.StringSliceFlag{Name: name, Usage: usage, Aliases: aliases}
	}
	text := func(name, usage string, aliases ...string) cli.Flag {
		return &cli.StringFlag{Name: name, Usage: usage, Aliases: aliases}
	}
	on := func(name, usage string, aliases ...string) cli.Flag {
		return &cli.BoolFlag{Name: name, Usage: usage, Aliases: aliases}
	}
	return slices.Concat(optimizeFlags(), remarkFlags(), layerFlags(), checkFlags(), []cli.Flag{
		list("add-host", "`HOST:IP` added to /etc/hosts of steps"),
		list("allow", "entitlement: network.host, security.insecure, device"),
		list("annotation", "annotation of the image, [TYPE:]`KEY=VALUE`"),
		list("attest", "attestation: type=provenance|sbom,`KEY=VALUE`,…"),
		&cli.StringFlag{Name: "attest-in", Usage: "where attestations of an image are: referrer (artifacts beside it, so that it is what it is without them), or index (entries of its index, as with docker)", Value: request.AttestInReferrer},
		list("build-arg", "build argument, `NAME=VALUE`, or NAME from the environment"),
		list("build-context", "named context, `NAME=WHERE`: a path, docker-image://, oci-layout://, git or http URL"),
		&cli.StringFlag{Name: "cache", Usage: "cache to read and to write, shared with other machines: a repository `REPO`[,KEY=VALUE,…], off, or project; keys: scope=NAME, mode=rw|ro, mounts=off, mounts-off=ID, max-age=30d, max-size=20GB, sign=FILE, trust=FILE (default: what $" + request.CacheEnv + " names, on CI also the project's " + request.ProjectFile + ", which project stands for elsewhere)"},
		list("cache-from", "cache to read: a `REFERENCE`, or type=registry|local|gha|s3|azblob,…"),
		list("cache-to", "cache to write: a `REFERENCE`, or type=registry|inline|local|gha|s3|azblob,…"),
		&cli.StringFlag{Name: "call", Usage: "question to answer instead of a build: check, outline, targets", Value: "build"},
		text("cgroup-parent", "parent cgroup of RUN steps"),
		on("check", "short for --call=check"),
		text("compression", "how layers are compressed: gzip (default), zstd, estargz or zstd:chunked (pulled lazily), uncompressed"),
		text("compression-level", "`LEVEL` of compression: 0 to 9 for gzip and estargz, 1 to 22 for zstd and zstd:chunked"),
		&cli.StringFlag{Name: "epoch", Usage: "times of the image: auto (SOURCE_DATE_EPOCH; or else, in a clean git checkout, the commit's for the configuration), git, off, or `SECONDS` since 1970", Value: "auto"},
		text("file", "`DOCKERFILE`: a path, a URL, or - for standard input (default: Dockerfile in the context)", "f"),
		on("force-compression", "compress the layers of the base image anew, too"),
		text("iidfile", "`FILE` that receives the image id"),
		list("label", "label of the image, `KEY=VALUE`"),
		on("load", "load the image into a Docker, containerd or Podman engine"),
		text("metadata-file", "`FILE` that receives the result's metadata, as JSON"),
		&cli.StringFlag{Name: "network", Usage: "network of RUN steps: default, host, none", Value: "default", Aliases: []string{"net"}},
		on("no-cache", "run every step"),
		list("node", "BuildKit daemon that builds some platforms, `PLATFORM=ADDRESS`[,cacert=FILE,cert=FILE,key=FILE]: tcp://, unix://, ssh://, kube-pod://, docker-container:// (default: those that $"+nodeEnv+" names)"),
		list("no-cache-filter", "run every step of these stages"),
		list("output", "where the result goes: a `DIRECTORY`, or type=image|registry|local|tar|oci|docker,dest=… (default: the local store)", "o"),
		text("partial", "push the image as a part of the index `REFERENCE`, which other machines push other platforms of"),
		list("platform", "target platforms, `OS/ARCH`,… or local"),
		&cli.StringFlag{Name: "progress", Usage: "auto, tty, plain, rawjson, quiet, none", Value: "auto", EnvVars: []string{"BUILDKIT_PROGRESS"}},
		text("provenance", "provenance attestation: false (default), true, mode=min|max,…"),
		on("pull", "ask the registry for newer base images"),
		on("push", "push the image"),
		on("quiet", "print the image id only", "q"),
		on("strict", "fail if the image starts a program of another platform, or if its steps made one, which is a warning otherwise"),
		text("sbom", "SBOM attestation: false (default), true, generator=IMAGE"),
		list("resource", "limit of each step, `KEY=VALUE`: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems"),
		list("secret", "secret for RUN --mount=type=secret: `id=NAME`[,src=FILE|,env=VARIABLE]"),
		text("shm-size", "size of /dev/shm of steps, such as 64m"),
		list("ssh", "SSH agent or keys: `ID`[=SOCKET|KEY,…]; the agent of the environment is called default"),
		list("tag", "`NAME` of the image, [REGISTRY/]REPOSITORY[:TAG]", "t"),
		text("target", "stage to build"),
		list("ulimit", "limit of steps, `TYPE=SOFT`[:HARD]"),
	})
}

// requestFrom is the build that the flags ask for.
func requestFrom(c *cli.Context) request.Request {
	platforms := c.StringSlice("platform")
	if len(platforms) == 0 {
		if p := os.Getenv("DOCKER_DEFAULT_PLATFORM"); p != "" {
			platforms = []string{p}
		}
	}
	call := c.String("call")
	if c.Bool("check") {
		call = "check"
	}
	return request.Request{
		Context: c.Args().First(), File: c.String("file"), Stdin: interruptible(c.Context, os.Stdin),
		Tags: c.StringSlice("tag"), BuildArgs: c.StringSlice("build-arg"), Target: c.String("target"), Platforms: platforms, Partial: c.String("partial"), Strict: c.Bool("strict"),
		Labels: c.StringSlice("label"), Annotations: c.StringSlice("annotation"), Outputs: c.StringSlice("output"),
		Push: c.Bool("push"), Load: c.Bool("load"), CacheFrom: c.StringSlice("cache-from"), CacheTo: c.StringSlice("cache-to"), Cache: c.String("cache"),
		NoCache: c.Bool("no-cache"), NoCacheFilter: c.StringSlice("no-cache-filter"), Pull: c.Bool("pull"),
		Secrets: c.StringSlice("secret"), SSH: c.StringSlice("ssh"), BuildContexts: c.StringSlice("build-context"),
		Network: c.String("network"), AddHosts: c.StringSlice("add-host"), ShmSize: c.String("shm-size"),
		Ulimits: c.StringSlice("ulimit"), Allow: c.StringSlice("allow"), CgroupParent: c.String("cgroup-parent"), Call: call,
		Provenance: c.String("provenance"), SBOM: c.String("sbom"), Attest: c.StringSlice("attest"), AttestIn: c.String("attest-in"),
		Squash: squashOf(c), Strip: stripOf(c), Resources: resources(c), IIDFile: c.String("iidfile"), Frontend: optimizeAttrs(c),
		Epoch: c.String("epoch"), Exact: c.String("optimize") == string(opt.Off), KeepModes: slices.Contains(disabled(c), request.GitModes),
		FetchWhole:  slices.Contains(disabled(c), request.LazyPull),
		Compression: c.String("compression"), CompressionLevel: c.String("compression-level"), ForceCompression: c.Bool("force-compression"),
		Environ: os.Environ(), Stdout: os.Stdout, Terminal: stdoutIsTerminal(),
	}
}

// oldResources are docker's flags for what --resource says today.
var oldResources = []struct {
	name    string
	aliases []string
}{{"memory", []string{"m"}}, {"memory-swap", nil}, {"cpu-shares", []string{"c"}}, {"cpu-period", nil}, {"cpu-quota", nil}, {"cpuset-cpus", nil}, {"cpuset-mems", nil}}

func oldResourceFlags() (flags []cli.Flag) {
	for _, f := range oldResources {
		flags = append(flags, &cli.StringFlag{Name: f.name, Aliases: f.aliases, Hidden: true})
	}
	return flags
}

// resources are the limits of steps; --resource counts more than an old flag.
func resources(c *cli.Context) (list []string) {
	for _, f := range oldResources {
		if c.IsSet(f.name) {
			list = append(list, f.name+"="+c.String(f.name))
		}
	}
	return append(list, c.StringSlice("resource")...)
}

// resourceWarnings says that limits need control groups, which only root's engine makes for its steps.
func resourceWarnings(c *cli.Context) []string {
	if os.Geteuid() == 0 || len(resources(c)) == 0 {
		return nil
	}
	return []string{"limits of memory and CPU have no effect unless the build is run by root"}
}

// ignored are flags that docker accepts: name, aliases, whether they take a value, and why nothing follows from them.
var ignored = []struct {
	name    string
	aliases []string
	value   bool
	why     string
}{
	{"builder", nil, true, "there is one builder, in this process tree"},
	{"compress", nil, false, "the context is not sent over a network"},
	{"disable-content-trust", nil, false, "content trust is not part of BuildKit"},
	{"force-rm", nil, false, "there are no intermediate containers"},
	{"isolation", nil, true, "it concerns Windows"},
	{"rm", nil, false, "there are no intermediate containers"},
	{"security-opt", nil, true, "use RUN --security=insecure and --allow security.insecure"},
}

func ignoredFlags() (flags []cli.Flag) {
	for _, f := range ignored {
		if f.value {
			flags = append(flags, &cli.StringSliceFlag{Name: f.name, Aliases: f.aliases, Hidden: true})
		} else {
			flags = append(flags, &cli.BoolFlag{Name: f.name, Aliases: f.aliases, Hidden: true})
		}
	}
	return flags
}

// ignoredWarnings is one line for each flag that was given and has no effect.
func ignoredWarnings(c *cli.Context) (lines []string) {
	for _, f := range ignored {
		if c.IsSet(f.name) {
			lines = append(lines, "--"+strings.TrimPrefix(f.name, "--")+" is accepted and ignored: "+f.why)
		}
	}
	return lines
}
