package request

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/tonistiigi/go-csvvalue"
)

// extraHosts turns --add-host values into the frontend's list: host=ip,host=ip.
func extraHosts(flags []string) (string, error) {
	var out []string
	for _, h := range flags {
		host, ip, ok := strings.Cut(h, "=")
		if !ok {
			host, ip, ok = strings.Cut(h, ":")
		}
		if !ok || host == "" {
			return "", flagErrorf("add-host", h, "is not HOST:IP or HOST=IP")
		}
		if ip == "host-gateway" {
			// Steps share the host's network unless a bridge was configured: the gateway is the host itself.
			ip = "127.0.0.1"
		}
		for one := range strings.SplitSeq(ip, ",") {
			one = strings.TrimSuffix(strings.TrimPrefix(one, "["), "]")
			if net.ParseIP(one) == nil {
				return "", flagErrorf("add-host", h, "%q is not an IP address", one)
			}
			out = append(out, host+"="+one)
		}
	}
	return strings.Join(out, ","), nil
}

// Call is a question to the frontend instead of a build.
type Call struct {
	// Method is "lint", "outline", "targets" or "subrequests.describe".
	Method string
	// JSON asks for the result as the frontend gave it.
	JSON bool
	// IgnoreStatus makes findings of "lint" not an error.
	IgnoreStatus bool
}

func (c *Call) requestID() string { return "frontend." + c.Method }

func parseCall(flag string) (*Call, error) {
	if flag == "" || flag == "build" {
		return nil, nil
	}
	fields, err := csvvalue.Fields(flag, nil)
	if err != nil {
		return nil, flagErrorf("call", flag, "%w", err)
	}
	c := &Call{Method: strings.TrimPrefix(fields[0], "frontend.")}
	if c.Method == "check" {
		c.Method = "lint"
	}
	if !slices.Contains([]string{"lint", "outline", "targets", "subrequests.describe"}, c.Method) {
		return nil, flagErrorf("call", flag, "is not build, check, outline or targets")
	}
	for _, f := range fields[1:] {
		k, v, _ := strings.Cut(f, "=")
		switch {
		case k == "format" && v == "json":
			c.JSON = true
		case k == "format" && (v == "text" || v == "txt"):
		case k == "ignorestatus":
			on, err := strconv.ParseBool(v)
			if err != nil && v != "" {
				return nil, flagErrorf("call", flag, "ignorestatus is true or false")
			}
			c.IgnoreStatus = on || v == ""
		default:
			return nil, flagErrorf("call", flag, "unknown option %q (format=json, ignorestatus=true)", f)
		}
	}
	return c, nil
}

// attributes reads a list such as "type=registry,ref=x,mode=max".
func attributes(flag, value string) (typ string, attrs map[string]string, err error) {
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return "", nil, flagErrorf(flag, value, "%w", err)
	}
	attrs = map[string]string{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return "", nil, flagErrorf(flag, value, "%q is not KEY=VALUE", f)
		}
		if k = strings.ToLower(strings.TrimSpace(k)); k == "type" {
			typ = v
		} else {
			attrs[k] = v
		}
	}
	if typ == "" {
		return "", nil, flagErrorf(flag, value, "type=… is missing")
	}
	return typ, attrs, nil
}

// caches fills in --cache-from and --cache-to. A bare reference means a registry.
func (r *Request) caches(s *Solve) error {
	entry := func(flag, value string, known []string) (client.CacheOptionsEntry, bool, error) {
		e := client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": value}}
		if strings.Contains(value, "=") {
			var err error
			if e.Type, e.Attrs, err = attributes(flag, value); err != nil {
				return e, false, err
			}
		}
		if !slices.Contains(known, e.Type) {
			return e, false, flagErrorf(flag, value, "type %q is not one of %s", e.Type, strings.Join(known, ", "))
		}
		if e.Type == "gha" {
			// BuildKit's own parser knows how GitHub's runner tells about its cache service.
			parse := map[string]func([]string) ([]client.CacheOptionsEntry, error){"cache-from": build.ParseImportCache, "cache-to": build.ParseExportCache}[flag]
			list, err := parse([]string{value})
			if err != nil {
				s.Warnings = append(s.Warnings, "--"+flag+" "+value+": ignored, this is not a GitHub Actions runner: "+err.Error())
				return e, false, nil
			}
			e = list[0]
		}
		need := map[string]string{"registry": "ref", "local": map[string]string{"cache-from": "src", "cache-to": "dest"}[flag]}[e.Type]
		if need != "" && e.Attrs[need] == "" {
			return e, false, flagErrorf(flag, value, "%s=… is missing", need)
		}
		return e, true, nil
	}
	for _, v := range r.CacheFrom {
		e, ok, err := entry("cache-from", v, []string{"registry", "local", "gha"})
		if err != nil {
			return err
		}
		if ok {
			s.CacheImports = append(s.CacheImports, e)
		}
	}
	inline, _ := strconv.ParseBool(s.FrontendAttrs["build-arg:BUILDKIT_INLINE_CACHE"])
	for _, v := range r.CacheTo {
		e, ok, err := entry("cache-to", v, []string{"registry", "inline", "local", "gha"})
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if e.Attrs["mode"] == "" {
			e.Attrs["mode"] = "min"
		}
		if m := e.Attrs["mode"]; m != "min" && m != "max" {
			return flagErrorf("cache-to", v, "mode is min or max")
		}
		inline = inline && e.Type != "inline"
		s.CacheExports = append(s.CacheExports, e)
	}
	if inline {
		s.CacheExports = append(s.CacheExports, client.CacheOptionsEntry{Type: "inline", Attrs: map[string]string{}})
	}
	return nil
}

// attestations fills in --attest, --provenance and --sbom. None is the default: attestations turn the pushed image into an
// index with an entry for the platform unknown/unknown, which many tools can't read.
func (r *Request) attestations(s *Solve) error {
	list := slices.Clone(r.Attest)
	for _, short := range []struct{ typ, value string }{{"provenance", r.Provenance}, {"sbom", r.SBOM}} {
		switch on, err := strconv.ParseBool(short.value); {
		case short.value == "":
		case err == nil:
			list = append(list, "type="+short.typ+",disabled="+strconv.FormatBool(!on))
		default:
			list = append(list, "type="+short.typ+","+short.value)
		}
	}
	for _, v := range list {
		typ, attrs, err := attributes("attest", v)
		if err != nil {
			return err
		}
		if typ != "provenance" && typ != "sbom" {
			return flagErrorf("attest", v, "type is provenance or sbom")
		}
		off, err := strconv.ParseBool(attrs["disabled"])
		if attrs["disabled"] != "" && err != nil {
			return flagErrorf("attest", v, "disabled is true or false")
		}
		delete(attrs, "disabled")
		if off {
			delete(s.FrontendAttrs, "attest:"+typ)
			continue
		}
		var fields []string
		for k, val := range attrs {
			fields = append(fields, k+"="+val)
		}
		slices.Sort(fields)
		s.FrontendAttrs["attest:"+typ] = strings.Join(fields, ",")
	}
	return nil
}

// annotationAttr turns an --annotation value, [TYPE[,TYPE]:]KEY=VALUE, into the exporter's attributes.
func annotationAttrs(flag string) (map[string]string, error) {
	k, v, ok := strings.Cut(flag, "=")
	if !ok {
		return nil, flagErrorf("annotation", flag, "is not [TYPE:]KEY=VALUE")
	}
	types, key, typed := strings.Cut(k, ":")
	if !typed {
		return map[string]string{exptypes.AnnotationManifestKey(nil, k): v}, nil
	}
	out := map[string]string{}
	for t := range strings.SplitSeq(types, ",") {
		platform := ""
		if i := strings.IndexByte(t, '['); i >= 0 && strings.HasSuffix(t, "]") {
			t, platform = t[:i], t[i:]
		}
		switch t {
		case exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor, exptypes.AnnotationManifest, exptypes.AnnotationManifestDescriptor:
		default:
			return nil, flagErrorf("annotation", flag, "type %q is not manifest, index, manifest-descriptor or index-descriptor", t)
		}
		out["annotation-"+t+platform+"."+key] = v
	}
	return out, nil
}

func environ(list []string) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}
