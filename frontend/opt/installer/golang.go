package installer

import (
	"bytes"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

var goVariables = []string{
	"GO*", "CGO_*", "!GOLANG_VERSION", "!GOTOOLCHAIN", "!GOPROXY", "!GOPRIVATE", "!GONOSUMDB", "!GONOSUMCHECK", "!GONOPROXY", "!GOSUMDB", "!GOOS", "!GOARCH", "!GOARM", "!GOAMD64", "!GOINSECURE", "!GOVCS",
	"!CGO_CFLAGS", "!CGO_LDFLAGS", "!GO_VERSION",
}

var goFiles = []string{"go.mod", "go.sum", "go.work", "go.work.sum", "go.env", "vendor", ".tool-versions", "mise.toml", ".go-version"}

var goInstallers = []installer{
	{name: "go mod download", calls: []string{"go mod download"}, looks: goFiles, variables: goVariables, examine: goDownload},
	{name: "go mod verify", calls: []string{"go mod verify"}, looks: goFiles, variables: goVariables, examine: goDownload},
	{name: "go install", matcher: goInstallVersion, looks: goFiles, variables: goVariables, examine: goInstall},
	{calls: []string{"go env -w", "go version"}, looks: goFiles[:3], variables: goVariables, examine: func(p *project) {
		p.add("go.mod")
		p.absent("go-work", "may name other directories", "go.work")
		p.notAbove("go.work", "go.mod")
		noPaths(p)
	}},
}

// goDownload reads go.mod and go.sum. It may change them: go.sum, if a sum is missing, and the go line of very old files.
func goDownload(p *project) {
	_, operands := p.flags(3, "-x -json", "")
	if len(operands) > 0 {
		p.refuse("unknown-argument", "it may change go.sum for %s", operands[0])
	}
	data := p.need("go.mod")
	if data == nil {
		return
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		p.refuse("manifest-syntax", "%v", err)
		return
	}
	for _, r := range mod.Replace {
		if r.New.Version == "" {
			p.refuse("local-dependency", "go.mod replaces %s with the directory %s", r.Old.Path, r.New.Path)
		}
	}
	p.absent("go-work", "names other modules", "go.work")
	p.notAbove("go.work")
	p.absent("vendor", "holds the modules already", "vendor")
	p.add("go.sum", ".tool-versions", "mise.toml", ".go-version")
	if mod.Go == nil || semver.Compare("v"+mod.Go.Version, "v1.17") < 0 {
		p.refuse("go-sum", "go.mod is for Go before 1.17, which does not list all modules, so that go.sum may change")
		return
	}
	p.sums(mod)
}

// sums refuses a go.sum that lacks a sum: it would be added.
func (p *project) sums(mod *modfile.File) {
	have := map[string]bool{}
	for _, line := range strings.Split(string(p.read("go.sum")), "\n") {
		if f := strings.Fields(line); len(f) == 3 {
			have[f[0]+" "+f[1]] = true
		}
	}
	replaced := map[string][2]string{}
	for _, r := range mod.Replace {
		replaced[r.Old.Path+"@"+r.Old.Version] = [2]string{r.New.Path, r.New.Version}
	}
	for _, r := range mod.Require {
		name, version := r.Mod.Path, r.Mod.Version
		for _, key := range []string{name + "@" + version, name + "@"} {
			if to, ok := replaced[key]; ok {
				name, version = to[0], to[1]
				break
			}
		}
		if !have[name+" "+version+"/go.mod"] {
			p.refuse("go-sum", "go.sum lacks %s %s, and would be changed; run go mod tidy", name, version)
		}
	}
}

// goInstallVersion matches go install pkg@version, which takes no notice of the module around it but for the toolchain.
func goInstallVersion(words []string) bool {
	if len(words) < 3 || words[0] != "go" || words[1] != "install" {
		return false
	}
	for _, w := range words[2:] {
		if !strings.HasPrefix(w, "-") && !strings.Contains(w, "@") {
			return false
		}
	}
	return true
}

func goInstall(p *project) {
	_, operands := p.flags(2, "-v -x -trimpath", "-ldflags -tags")
	for _, o := range operands {
		if strings.HasPrefix(o, ".") || strings.HasPrefix(o, "/") {
			p.refuse("local-dependency", "%s is a directory of the project", o)
		}
	}
	p.add("go.mod", ".tool-versions", "mise.toml", ".go-version")
	if data := p.read("go.mod"); bytes.Contains(data, []byte("toolchain")) {
		p.add("go.sum")
	}
	p.absent("go-work", "names other modules", "go.work")
	p.notAbove("go.work", "go.mod")
}
