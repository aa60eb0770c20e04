package request

import (
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/tonistiigi/go-csvvalue"
)

// extraHosts turns --add-host values, HOST:IP or HOST=IP or several of them with commas, into the frontend's list. As in a
// flag of docker, a host with several addresses is quoted: "HOST=IP,IP".
func extraHosts(flags []string) (string, error) {
	var out []string
	for _, flag := range flags {
		if flag == "" {
			continue
		}
		fields, err := csvvalue.Fields(flag, nil)
		if err != nil {
			return "", flagErrorf("add-host", flag, "%w", err)
		}
		for _, h := range fields {
			host, ip, ok := strings.Cut(h, "=")
			if !ok {
				host, ip, ok = strings.Cut(h, ":")
			}
			if !ok || host == "" {
				return "", flagErrorf("add-host", flag, "is not HOST:IP or HOST=IP")
			}
			if ip == "host-gateway" {
				// Steps share the host's network unless a bridge was configured: the gateway is the host itself.
				ip = "127.0.0.1"
			}
			for one := range strings.SplitSeq(ip, ",") {
				one = strings.TrimSuffix(strings.TrimPrefix(one, "["), "]")
				if net.ParseIP(one) == nil {
					return "", flagErrorf("add-host", flag, "%q is not an IP address", one)
				}
				out = append(out, host+"="+one)
			}
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

// question fills in --call.
func (r *Request) question(s *Solve) error {
	call, err := parseCall(r.Call)
	if err != nil || call == nil {
		return err
	}
	s.Call, s.Internal = call, true
	s.FrontendAttrs["requestid"] = call.requestID()
	return nil
}

func parseCall(flag string) (*Call, error) {
	if flag == "" || flag == "build" {
		return nil, nil
	}
	fields, err := csvvalue.Fields(flag, nil)
	if err != nil {
		return nil, flagErrorf("call", flag, "%w", err)
	}
	c := &Call{}
	for _, f := range fields {
		k, v, valued := strings.Cut(f, "=")
		switch {
		case !valued && c.Method == "":
			c.Method = f
		case k == "format" && v == "json":
			c.JSON = true
		case k == "format" && (v == "text" || v == "txt"):
		case k == "ignorestatus":
			if c.IgnoreStatus, err = strconv.ParseBool(v); err != nil {
				return nil, flagErrorf("call", flag, "ignorestatus is true or false")
			}
		default:
			return nil, flagErrorf("call", flag, "unknown option %q (format=json, ignorestatus=true)", f)
		}
	}
	switch c.Method {
	case "build":
		return nil, nil
	case "check":
		c.Method = "lint"
	case "lint", "outline", "targets", "subrequests.describe":
	default:
		return nil, flagErrorf("call", flag, "is not build, check, outline or targets")
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

// annotationType is one element before the colon of --annotation: manifest, index-descriptor, manifest[linux/amd64], ...
var annotationType = regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`)

// annotationAttrs turns an --annotation value into the exporter's attributes.
func annotationAttrs(flag string) (map[string]string, error) {
	keys, v, err := ParseAnnotation(flag)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, k := range keys {
		out[k.String()] = v
	}
	return out, nil
}

// ParseAnnotation reads an --annotation value, [TYPE[PLATFORM][,TYPE]:]KEY=VALUE: one key for each type, one without if none is given.
func ParseAnnotation(flag string) (keys []exptypes.AnnotationKey, value string, err error) {
	k, v, ok := strings.Cut(flag, "=")
	if !ok {
		return nil, "", flagErrorf("annotation", flag, "is not [TYPE:]KEY=VALUE")
	}
	types, key, typed := strings.Cut(k, ":")
	if !typed {
		return []exptypes.AnnotationKey{{Key: k}}, v, nil
	}
	for t := range strings.SplitSeq(types, ",") {
		m := annotationType.FindStringSubmatch(t)
		if m == nil {
			return nil, "", flagErrorf("annotation", flag, "%q is not TYPE or TYPE[PLATFORM]", t)
		}
		a := exptypes.AnnotationKey{Type: m[1], Key: key}
		switch a.Type {
		case exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor, exptypes.AnnotationManifest, exptypes.AnnotationManifestDescriptor:
		default:
			return nil, "", flagErrorf("annotation", flag, "type %q is not manifest, index, manifest-descriptor or index-descriptor", a.Type)
		}
		if m[2] != "" {
			p, err := platforms.Parse(m[2])
			if err != nil {
				return nil, "", flagErrorf("annotation", flag, "%w", err)
			}
			a.Platform = &p
		}
		keys = append(keys, a)
	}
	return keys, v, nil
}

func environ(list []string) map[string]string {
	m := map[string]string{}
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}
