// Package request says what the flags of `docker buildx build` mean: it turns them into BuildKit's solve options.
//
// What comes in is a [Request], the flags as the user wrote them; what goes out is a [Solve]: options for BuildKit's client,
// attachables for its session, and outputs that are staged beside their destination and appear whole or not at all. All
// checks that need no engine are made here, so that a wrong flag fails before anything is started. The package knows
// nothing of engines, terminals or of how a Dockerfile is lowered.
package request

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"
)

// Request is one build as the command line describes it. Fields are named for flags.
type Request struct {
	// Context is a directory, a URL of a git repository or archive, or "-" for an archive or a Dockerfile on Stdin.
	Context string
	// File is the Dockerfile: a path, a URL, "-" for Stdin, or "" for Dockerfile in the context.
	File  string
	Stdin io.Reader

	Tags          []string
	BuildArgs     []string // NAME=VALUE, or NAME to take it from Environ
	Target        string
	Platforms     []string
	Labels        []string
	Annotations   []string
	Outputs       []string
	Push, Load    bool
	CacheFrom     []string
	CacheTo       []string
	NoCache       bool
	NoCacheFilter []string
	Pull          bool
	Secrets       []string
	SSH           []string
	BuildContexts []string
	Network       string
	AddHosts      []string
	ShmSize       string
	Ulimits       []string
	Allow         []string
	CgroupParent  string
	Call          string // "", "build", "check", "lint", "outline", "targets", ... with ",format=json"
	Provenance    string
	SBOM          string
	Attest        []string

	// Environ is the environment of the user, as os.Environ gives it.
	Environ []string
	// Proxies are build arguments from docker's configuration, used unless the user sets them.
	Proxies map[string]string
	// Loader finds another engine, for Load, and returns how to open a stream into its image store. It is called only when
	// an output needs it.
	Loader func() (open func() (io.WriteCloser, error), err error)
	// Stdout receives outputs with dest=-.
	Stdout io.Writer
	// Terminal says that Stdout is one, so that no archive is written to it.
	Terminal bool
}

// Solve is a request that was found to be sound. Finish it with Commit or Discard.
type Solve struct {
	client.SolveOpt
	// Call is the subrequest instead of a build, nil for a build.
	Call *Call
	// Dockerfile is the local path of the Dockerfile, "" if it is remote or was read from a stream.
	Dockerfile string
	// ContextDir is the local directory of the context, "" if it is remote.
	ContextDir string
	// NamedDirs are the named contexts that are local directories.
	NamedDirs map[string]string
	// Kept is true when the image goes into the local store.
	Kept bool
	// Warnings are lines for the user about flags that have no effect.
	Warnings []string

	stage staging
}

// Commit puts the staged outputs into their places; call it when the build has succeeded.
func (s *Solve) Commit() error { return s.stage.commit() }

// Discard removes what was staged; after Commit it does nothing to the outputs. Call it always.
func (s *Solve) Discard() { s.stage.discard() }

// FlagError is a flag whose value is wrong.
type FlagError struct {
	Flag, Value string
	Err         error
}

func (e *FlagError) Error() string { return fmt.Sprintf("--%s %s: %v", e.Flag, e.Value, e.Err) }
func (e *FlagError) Unwrap() error { return e.Err }

func flagErrorf(flag, value, format string, args ...any) error {
	return &FlagError{flag, value, fmt.Errorf(format, args...)}
}

// New checks the request and prepares what the solve needs. frontend is the frontend's name.
func New(r Request, frontend string) (_ *Solve, err error) {
	s := &Solve{SolveOpt: client.SolveOpt{
		Frontend:      frontend,
		FrontendAttrs: map[string]string{},
		LocalMounts:   map[string]fsutil.FS{},
	}, NamedDirs: map[string]string{}}
	defer func() {
		if err != nil {
			s.Discard()
		}
	}()
	for _, f := range []func(*Solve) error{
		r.attrs, r.values, r.caches, r.attestations, r.attachables, r.inputs, r.outputs, // outputs last: it makes files
	} {
		if err := f(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (r *Request) attrs(s *Solve) error {
	a := s.FrontendAttrs
	args, err := r.buildArgs()
	if err != nil {
		return err
	}
	for k, v := range args {
		a["build-arg:"+k] = v
	}
	if v, ok := args["BUILDKIT_SYNTAX"]; ok {
		source, _, _ := strings.Cut(strings.TrimSpace(v), " ")
		if source == "" {
			return flagErrorf("build-arg", "BUILDKIT_SYNTAX=", "is empty; name a frontend image")
		}
		s.Frontend, a["source"], a["cmdline"] = "gateway.v0", source, v
	}
	if on, _ := strconv.ParseBool(args["BUILDKIT_MULTI_PLATFORM"]); on {
		a["multi-platform"] = "true"
	}
	for _, l := range r.Labels {
		k, v, _ := strings.Cut(l, "=")
		if k == "" {
			return flagErrorf("label", l, "is not KEY=VALUE")
		}
		a["label:"+k] = v
	}
	if r.Target != "" {
		a["target"] = r.Target
	}
	if len(r.NoCacheFilter) > 0 {
		a["no-cache"] = strings.Join(r.NoCacheFilter, ",")
	}
	if r.NoCache {
		a["no-cache"] = ""
	}
	// docker build uses a local image of that name if there is one; --pull asks the registry.
	a["image-resolve-mode"] = pb.AttrImageResolveModePreferLocal
	if r.Pull {
		a["image-resolve-mode"] = pb.AttrImageResolveModeForcePull
	}
	if r.CgroupParent != "" {
		a["cgroup-parent"] = r.CgroupParent
	}
	return r.platforms(s)
}

// buildArgs joins the user's build arguments with the ones that docker adds by itself.
func (r *Request) buildArgs() (map[string]string, error) {
	env := environ(r.Environ)
	args := maps.Clone(r.Proxies)
	if args == nil {
		args = map[string]string{}
	}
	if v := env["SOURCE_DATE_EPOCH"]; v != "" {
		args["SOURCE_DATE_EPOCH"] = v
	}
	for _, arg := range r.BuildArgs {
		k, v, given := strings.Cut(arg, "=")
		if k == "" {
			return nil, flagErrorf("build-arg", arg, "is not NAME=VALUE")
		}
		for proxy := range r.Proxies { // HTTP_PROXY given by the user replaces http_proxy too
			if strings.EqualFold(proxy, k) {
				delete(args, proxy)
			}
		}
		if !given {
			if v, given = env[k]; !given {
				continue // as docker: an argument without a value anywhere is not passed
			}
		}
		args[k] = v
	}
	return args, nil
}

func (r *Request) platforms(s *Solve) error {
	var list []string
	for _, flag := range r.Platforms {
		for p := range strings.SplitSeq(flag, ",") {
			p = strings.TrimSpace(p)
			if p == "" {
				continue
			}
			spec := platforms.DefaultSpec()
			if p != "local" {
				var err error
				if spec, err = platforms.Parse(p); err != nil {
					return flagErrorf("platform", p, "is not os/arch[/variant]: %w", err)
				}
			}
			if f := platforms.FormatAll(platforms.Normalize(spec)); !slices.Contains(list, f) {
				list = append(list, f)
			}
		}
	}
	if len(list) > 0 {
		s.FrontendAttrs["platform"] = strings.Join(list, ",")
	}
	return nil
}

// tagNames returns the normalised names of the tags: app -> docker.io/library/app:latest.
func (r *Request) tagNames() ([]string, error) {
	var names []string
	for _, t := range r.Tags {
		ref, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, flagErrorf("tag", t, "is not [registry/]repository[:tag]: %w", err)
		}
		if _, digested := ref.(reference.Digested); digested {
			return nil, flagErrorf("tag", t, "names a digest; a tag is wanted")
		}
		names = append(names, reference.TagNameOnly(ref).String())
	}
	return names, nil
}

func (r *Request) attachables(s *Solve) error {
	if len(r.Secrets) > 0 {
		for _, spec := range r.Secrets {
			if err := checkSecret(spec); err != nil {
				return err
			}
		}
		a, err := build.ParseSecret(r.Secrets)
		if err != nil {
			return flagErrorf("secret", strings.Join(r.Secrets, " "), "%w", err)
		}
		s.Session = append(s.Session, a)
	}
	ssh := r.SSH
	if len(ssh) == 0 && isGitSSH(r.Context) {
		ssh = []string{"default"}
	}
	if len(ssh) > 0 {
		agents, err := build.ParseSSH(ssh)
		if err != nil {
			return flagErrorf("ssh", strings.Join(ssh, " "), "%w", err)
		}
		var a session.Attachable
		if a, err = sshprovider.NewSSHAgentProvider(agents); err != nil {
			return flagErrorf("ssh", strings.Join(ssh, " "), "%w", err)
		}
		s.Session = append(s.Session, a)
	}
	return nil
}

func checkSecret(spec string) error {
	if !strings.Contains(spec, "=") || !strings.Contains(","+spec, ",id=") {
		return flagErrorf("secret", spec, "needs an id: id=NAME[,src=FILE|,env=VARIABLE]")
	}
	for field := range strings.SplitSeq(spec, ",") {
		k, v, _ := strings.Cut(field, "=")
		if k != "src" && k != "source" {
			continue
		}
		if _, err := os.Stat(v); errors.Is(err, os.ErrNotExist) && !strings.Contains(spec, "type=env") {
			return flagErrorf("secret", spec, "file %s does not exist", v)
		}
	}
	return nil
}

func (r *Request) values(s *Solve) error {
	a := s.FrontendAttrs
	switch r.Network {
	case "", "default":
	case "host":
		a["force-network-mode"] = "host"
		s.AllowedEntitlements = append(s.AllowedEntitlements, "network.host")
	case "none":
		a["force-network-mode"] = "none"
	default:
		return flagErrorf("network", r.Network, "is not default, host or none")
	}
	for _, flag := range r.Allow {
		for e := range strings.SplitSeq(flag, ",") {
			name, _, _ := strings.Cut(e, "=")
			switch name {
			case "network.host", "security.insecure", "device":
				s.AllowedEntitlements = append(s.AllowedEntitlements, e)
			case "buildx.local.delete": // docker asks for leave to delete; here -o type=local,mode=delete is enough
			default:
				return flagErrorf("allow", e, "is not network.host, security.insecure or device")
			}
		}
	}
	hosts, err := extraHosts(r.AddHosts)
	if err != nil {
		return err
	}
	if hosts != "" {
		a["add-hosts"] = hosts
	}
	if r.ShmSize != "" {
		n, err := units.RAMInBytes(r.ShmSize)
		if err != nil || n < 0 {
			return flagErrorf("shm-size", r.ShmSize, "is not a size such as 64m")
		}
		a["shm-size"] = strconv.FormatInt(n, 10)
	}
	var limits []string
	for _, u := range r.Ulimits {
		l, err := units.ParseUlimit(u)
		if err != nil {
			return flagErrorf("ulimit", u, "is not TYPE=SOFT[:HARD]: %w", err)
		}
		limits = append(limits, l.String())
	}
	if len(limits) > 0 {
		a["ulimit"] = strings.Join(limits, ",")
	}
	call, err := parseCall(r.Call)
	if err != nil {
		return err
	}
	if call != nil {
		s.Call, s.Internal = call, true
		a["requestid"] = call.requestID()
	}
	return nil
}
