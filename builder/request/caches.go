package request

import (
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/tonistiigi/go-csvvalue"

	"github.com/optbuild/optbuild/builder/backend"
)

// caches fills in --cache-from and --cache-to.
func (r *Request) caches(s *Solve) error {
	var err error
	env := environ(r.Environ)
	if s.CacheImports, err = cacheEntries("cache-from", r.CacheFrom, []string{"registry", "local", "gha", "s3", "azblob"}, env, s); err != nil {
		return masked(err)
	}
	if s.CacheExports, err = cacheEntries("cache-to", r.CacheTo, []string{"registry", "inline", "local", "gha", "s3", "azblob"}, env, s); err != nil {
		return masked(err)
	}
	inline, _ := strconv.ParseBool(s.FrontendAttrs["build-arg:BUILDKIT_INLINE_CACHE"])
	for _, e := range s.CacheExports {
		inline = inline && e.Type != "inline"
	}
	if inline {
		s.CacheExports = append(s.CacheExports, client.CacheOptionsEntry{Type: "inline", Attrs: map[string]string{}})
	}
	return nil
}

// cacheEntries reads "type=...,key=value,..." values; a value without "=" is a list of references in registries.
func cacheEntries(flag string, values, known []string, env map[string]string, s *Solve) (list []client.CacheOptionsEntry, err error) {
	for _, v := range nonEmpty(values) {
		if !strings.Contains(v, "=") {
			refs, err := csvvalue.Fields(v, nil)
			if err != nil {
				return nil, flagErrorf(flag, v, "%w", err)
			}
			for _, ref := range nonEmpty(refs) {
				if _, err := reference.ParseNormalizedNamed(ref); err != nil {
					attr := map[string]string{"cache-from": "src", "cache-to": "dest"}[flag]
					return nil, flagErrorf(flag, v, "%w; for a directory: type=local,%s=%s", err, attr, ref)
				}
				list = append(list, client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
			}
			continue
		}
		e := client.CacheOptionsEntry{}
		if e.Type, e.Attrs, err = attributes(flag, v); err != nil {
			return nil, err
		}
		switch {
		case !slices.Contains(known, e.Type):
			return nil, flagErrorf(flag, v, "type %q is not one of %s", e.Type, strings.Join(known, ", "))
		case slices.Contains(backend.Optional, e.Type) && !backend.Has(e.Type):
			return nil, flagErrorf(flag, v, "this binary was built without %s: make build BACKENDS=%s makes one with it", e.Type, e.Type)
		}
		if err := cloud(e, env); err != nil {
			return nil, flagErrorf(flag, v, "%w", err)
		}
		if e.Type == "gha" {
			// BuildKit's own parser knows how GitHub's runner tells about its cache service.
			parse := map[string]func([]string) ([]client.CacheOptionsEntry, error){"cache-from": build.ParseImportCache, "cache-to": build.ParseExportCache}[flag]
			found, err := parse([]string{v})
			if err != nil {
				s.Warnings = append(s.Warnings, "--"+flag+" "+withoutSecrets(v)+": ignored, this is not a GitHub Actions runner: "+err.Error())
				continue
			}
			e = found[0]
		}
		need := map[string]string{"registry": "ref", "local": map[string]string{"cache-from": "src", "cache-to": "dest"}[flag]}[e.Type]
		if need != "" && e.Attrs[need] == "" {
			return nil, flagErrorf(flag, v, "%s=… is missing", need)
		}
		if src := e.Attrs["src"]; e.Type == "local" && flag == "cache-from" && !isDir(src) { // BuildKit's client would make it
			s.Warnings = append(s.Warnings, "--"+flag+" "+v+": ignored, there is no directory "+src)
			continue
		}
		if m := e.Attrs["mode"]; flag == "cache-to" && m != "" && m != "min" && m != "max" {
			return nil, flagErrorf(flag, v, "mode is min or max")
		}
		list = append(list, e)
	}
	return list, nil
}
