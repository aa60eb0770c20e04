package request

import (
	"slices"
	"testing"

	"github.com/containerd/platforms"
)

func TestParsePlatform(t *testing.T) {
	local := platforms.FormatAll(platforms.Normalize(platforms.DefaultSpec()))
	for s, want := range map[string]string{
		"local": local, "LOCAL": local,
		"linux/amd64": "linux/amd64", "x86_64": "linux/amd64", "amd64": "linux/amd64", "linux/x86_64": "linux/amd64",
		"linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3",
		"aarch64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "linux/arm64/v9": "linux/arm64/v9", "linux/arm64/v8.2": "linux/arm64/v8.2",
		"arm": "linux/arm/v7", "armhf": "linux/arm/v7", "armel": "linux/arm/v6", "linux/arm/v7": "linux/arm/v7", "linux/arm/v5": "linux/arm/v5",
		"386": "linux/386", "i386": "linux/386", "riscv64": "linux/riscv64", "linux/s390x": "linux/s390x", "linux/loong64": "linux/loong64", "linux/mips64le": "linux/mips64le",
		"windows/amd64": "windows/amd64", "windows(10.0.17763)/amd64": "windows(10.0.17763)/amd64", "darwin/arm64": "darwin/arm64", "wasip1/wasm": "wasip1/wasm",
	} {
		p, err := ParsePlatform(s)
		if got := platforms.FormatAll(p); err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", s, got, err, want)
		}
	}
	for s, want := range map[string]string{
		"linux/amd46":    "is no platform; did you mean linux/amd64?",
		"linux/arm46":    "is no platform; did you mean linux/arm64?",
		"linuks/amd64":   "is no platform; did you mean linux/amd64?",
		"windos/amd64":   "is no platform; did you mean windows/amd64?",
		"amd46":          "is no platform; did you mean linux/amd64?",
		"aarch46":        "is not os/arch[/variant]: \"aarch46\": unknown operating system or architecture: invalid argument",
		"linux/amd64/v9": "is no platform; did you mean linux/amd64/v2?",
		"linux/arm/v9":   "is no platform; did you mean linux/arm/v7?",
		"linux/386/v2":   "is no platform; did you mean linux/386?",
		"linux/vax":      "is no platform: the most common are linux/amd64, linux/arm64, linux/arm/v7, linux/arm/v6, linux/386, linux/ppc64le, linux/s390x, linux/riscv64",
	} {
		if _, err := ParsePlatform(s); err == nil || err.Error() != want {
			t.Errorf("%s: got %v\nwant %s", s, err, want)
		}
	}
	for _, s := range common {
		if _, err := ParsePlatform(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if !slices.IsSorted(systems) {
		t.Error("systems are not sorted")
	}
}
