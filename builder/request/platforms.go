package request

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/util/suggest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// ParsePlatform reads a platform as docker does (os/arch[/variant], an architecture alone, "local"), and refuses what no machine is: BuildKit takes every
// word for an operating system or an architecture if there is a slash, and would make an image that nothing runs.
func ParsePlatform(s string) (ocispecs.Platform, error) {
	if strings.EqualFold(s, "local") {
		return platforms.Normalize(platforms.DefaultSpec()), nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		if near := nearPlatform(s); near != "" {
			return p, fmt.Errorf("is no platform; did you mean %s?", near)
		}
		return p, fmt.Errorf("is not os/arch[/variant]: %w", err)
	}
	p = platforms.Normalize(p)
	variants, known := architectures[p.Architecture]
	if known && slices.Contains(systems, p.OS) && (p.Variant == "" || variants != nil && variants.MatchString(p.Variant)) {
		return p, nil
	}
	name := platforms.FormatAll(p)
	if near := nearPlatform(name); near != "" {
		return p, fmt.Errorf("is no platform; did you mean %s?", near)
	}
	return p, fmt.Errorf("is no platform: the most common are %s", strings.Join(common[:8], ", "))
}

// systems are Go's (go tool dist list), which images are labelled with, and those of WebAssembly runtimes.
var systems = []string{
	"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd", "plan9", "solaris", "wasi", "wasip1", "windows", "zos",
}

// architectures are Go's, each with its variants after normalisation: GOAMD64, GOARM, GOARM64, GORISCV64. Nil: it has none.
var architectures = map[string]*regexp.Regexp{
	"386":      nil,
	"amd64":    regexp.MustCompile(`^v[1-4]$`),
	"arm":      regexp.MustCompile(`^v[5-8]$`),
	"arm64":    regexp.MustCompile(`^v(8|9)(\.[0-9])?$`),
	"loong64":  nil,
	"mips":     regexp.MustCompile(`^(hardfloat|softfloat)$`),
	"mipsle":   regexp.MustCompile(`^(hardfloat|softfloat)$`),
	"mips64":   regexp.MustCompile(`^(hardfloat|softfloat)$`),
	"mips64le": regexp.MustCompile(`^(hardfloat|softfloat)$`),
	"ppc64":    regexp.MustCompile(`^power[0-9]+$`),
	"ppc64le":  regexp.MustCompile(`^power[0-9]+$`),
	"riscv64":  regexp.MustCompile(`^rva[0-9]+u64$`),
	"s390x":    nil,
	"wasm":     nil,
}

// common are the platforms that official images are made for, the most used ones first.
var common = []string{
	"linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386", "linux/ppc64le", "linux/s390x", "linux/riscv64", "linux/arm/v5", "linux/loong64",
	"linux/mips64le", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4", "windows/amd64", "windows/arm64", "darwin/amd64", "darwin/arm64", "freebsd/amd64", "freebsd/arm64", "wasip1/wasm",
}

// nearPlatform is the platform that was most likely meant, "" if none is near. A variant that does not exist is a mistake in the variant.
func nearPlatform(s string) string {
	s = strings.ToLower(s)
	if near, ok := suggest.Search(s, common, true); ok {
		return near
	}
	if near, ok := suggest.Search("linux/"+s, common, true); ok {
		return near
	}
	if parts := strings.Split(s, "/"); len(parts) == 3 && slices.Contains(common, parts[0]+"/"+parts[1]) {
		return parts[0] + "/" + parts[1]
	}
	return ""
}
