package request

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/entitlements"
)

// attrs fills in what the frontend is told about the Dockerfile's meaning.
func (r *Request) attrs(s *Solve) error {
	a := s.FrontendAttrs
	args, err := r.buildArgs()
	if err != nil {
		return err
	}
	for k, v := range args {
		a["build-arg:"+k] = v
	}
	// The frontend itself follows BUILDKIT_SYNTAX, and knows which images it stands for.
	if v, ok := args["BUILDKIT_SYNTAX"]; ok && strings.TrimSpace(v) == "" {
		return flagErrorf("build-arg", "BUILDKIT_SYNTAX=", "is empty; name a frontend image")
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
	switch filter := strings.Join(r.NoCacheFilter, ","); {
	case filter != "" && r.NoCache:
		return flagErrorf("no-cache-filter", filter, "and --no-cache exclude each other")
	case filter != "":
		a["no-cache"] = filter
	case r.NoCache:
		a["no-cache"] = ""
	}
	// docker build uses a local image of that name if there is one; --pull asks the registry.
	a["image-resolve-mode"] = pb.AttrImageResolveModePreferLocal
	if r.Pull {
		a["image-resolve-mode"] = pb.AttrImageResolveModeForcePull
	}
	return r.platforms(s)
}

// buildArgs joins the user's build arguments with the ones that docker adds by itself.
func (r *Request) buildArgs() (map[string]string, error) {
	env := environ(r.Environ)
	args := map[string]string{}
	for _, arg := range r.BuildArgs {
		k, v, given := strings.Cut(arg, "=")
		if k == "" {
			return nil, flagErrorf("build-arg", arg, "is not NAME=VALUE")
		}
		if !given {
			if v, given = env[k]; !given {
				continue // as docker: an argument without a value anywhere is not passed
			}
		}
		args[k] = v
	}
	if v := env["SOURCE_DATE_EPOCH"]; v != "" {
		if _, given := args["SOURCE_DATE_EPOCH"]; !given {
			args["SOURCE_DATE_EPOCH"] = v
		}
	}
	given := slices.Collect(maps.Keys(args))
	for k, v := range r.Proxies {
		if !slices.ContainsFunc(given, func(g string) bool { return strings.EqualFold(g, k) }) {
			args[k] = v
		}
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
			spec, err := ParsePlatform(p)
			if err != nil {
				return flagErrorf("platform", p, "%w", err)
			}
			if f := platforms.FormatAll(spec); !slices.Contains(list, f) {
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

// steps fills in how RUN steps are run.
func (r *Request) steps(s *Solve) error {
	a := s.FrontendAttrs
	if r.CgroupParent != "" {
		a["cgroup-parent"] = r.CgroupParent
	}
	switch r.Network {
	case "", "default":
	case "host":
		a["force-network-mode"] = "host"
		s.AllowedEntitlements = append(s.AllowedEntitlements, entitlements.EntitlementNetworkHost.String())
	case "none":
		a["force-network-mode"] = "none"
	default:
		return flagErrorf("network", r.Network, "is not default, host or none")
	}
	for _, e := range r.Allow {
		if e == "" || e == allowLocalDelete {
			continue
		}
		if _, _, err := entitlements.Parse(e); err != nil {
			return flagErrorf("allow", e, "is not network.host, security.insecure, device or %s", allowLocalDelete)
		}
		s.AllowedEntitlements = append(s.AllowedEntitlements, e)
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
		if n > 0 {
			a["shm-size"] = strconv.FormatInt(n, 10)
		}
	}
	limits, err := ulimits(r.Ulimits)
	if err != nil {
		return err
	}
	if limits != "" {
		a["ulimit"] = limits
	}
	return resources(r.Resources, a)
}

// ulimits turns --ulimit values into the frontend's list; of two for one limit, the last counts.
func ulimits(flags []string) (string, error) {
	byName := map[string]string{}
	for _, u := range flags {
		l, err := units.ParseUlimit(u)
		if err != nil {
			return "", flagErrorf("ulimit", u, "is not TYPE=SOFT[:HARD]: %w", err)
		}
		byName[l.Name] = l.String()
	}
	return strings.Join(slices.Sorted(maps.Values(byName)), ","), nil
}

// resources sets the frontend's limits for each step from KEY=VALUE flags.
func resources(flags []string, a map[string]string) error {
	for _, flag := range flags {
		k, v, ok := strings.Cut(flag, "=")
		if !ok {
			return flagErrorf("resource", flag, "is not KEY=VALUE")
		}
		v = strings.TrimSpace(v)
		switch k = strings.TrimSpace(k); k {
		case "memory", "memory-swap":
			n, err := units.RAMInBytes(v)
			if k == "memory-swap" && v == "-1" {
				n, err = -1, nil
			}
			if err != nil || n < -1 {
				return flagErrorf("resource", flag, "is not a size such as 2g")
			}
			if n != 0 {
				a[map[string]string{"memory": "memory", "memory-swap": "memswap"}[k]] = strconv.FormatInt(n, 10)
			}
		case "cpu-shares", "cpu-period", "cpu-quota":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return flagErrorf("resource", flag, "is not a number")
			}
			if n > 0 {
				a[strings.ReplaceAll(k, "-", "")] = v
			}
		case "cpuset-cpus", "cpuset-mems":
			a[strings.ReplaceAll(k, "-", "")] = v
		default:
			return flagErrorf("resource", flag, "is not memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems")
		}
	}
	return nil
}
