package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/optbuild/optbuild/integration/bases"
)

// kept is a path in the cache directory, for what a bench makes once.
func (b *bench) kept(name string) (string, error) {
	cache, err := bases.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "bench-downloads")
	return filepath.Join(dir, name), os.MkdirAll(dir, 0o755)
}

// extras are small packages of Debian, of which one at a time is installed by W2; at first the first one, and never again.
var extras = []string{"less", "tree", "bc", "patch", "file", "zip", "unzip", "rsync", "psmisc", "ed", "time", "lsof", "jq", "cpio", "dc", "pv"}

// sixRunsProject installs Debian's packages one by one, and makes a page of what was copied.
func sixRunsProject(_ context.Context, b *bench) (*project, error) {
	files := docs(450)
	maps.Copy(files, map[string]string{"src/menu.txt": "soup " + marked + "\n",
		"build.sh": "set -e\nmkdir -p /srv/www\npython3 -c 'import yaml, sys; print(yaml.dump(sys.stdin.read()))' < src/menu.txt > /srv/www/index.html\n"})
	const top, page = "FROM debian:12\nWORKDIR /app\n", "RUN sh build.sh\n"
	p, err := b.newProject("six-runs", files, map[string]string{
		"naive": top + "COPY . .\nRUN apt-get update\nRUN " + aptInstall + "python3\nRUN " + aptInstall + "python3-yaml\nRUN " + aptInstall + "curl\n" +
			"RUN " + aptInstall + "less\n" + page,
		"by-hand": top + "RUN apt-get update && " + aptInstall + "python3 python3-yaml curl less" + tidied + "\nCOPY . .\n" + page,
	})
	if err == nil {
		p.edit = "src/menu.txt"
	}
	return p, err
}

var extra = regexp.MustCompile(`\b(` + strings.Join(extras, "|") + `)( && apt-get clean|\n)`)

// sixRunsManifest installs another package in place of the last one: the list is in the Dockerfiles.
func sixRunsManifest(p *project, serial int) error {
	for _, path := range []string{p.naive, p.byHand} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !extra.Match(text) {
			return fmt.Errorf("%s installs none of %v", path, extras)
		}
		text = extra.ReplaceAll(text, []byte(extras[1+serial%(len(extras)-1)]+"$2"))
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// serverModules are what W3 requires; with what these require it is some 30 modules.
var serverModules = []struct{ path, version, use string }{
	{"github.com/gin-gonic/gin", "v1.10.0", "gin.SetMode(gin.ReleaseMode)"},
	{"github.com/go-chi/chi/v5", "v5.1.0", "_ = chi.NewRouter()"},
	{"github.com/prometheus/client_golang", "v1.20.5", "_ = prometheus.NewRegistry()"},
	{"github.com/spf13/pflag", "v1.0.5", "pflag.Parse()"},
	{"go.uber.org/zap", "v1.27.0", "_ = zap.NewNop()"},
	{"gopkg.in/yaml.v3", "v3.0.1", "_, _ = yaml.Marshal(1)"},
	{"github.com/google/uuid", "v1.6.0", "_ = uuid.New()"},
}

// serverProject is a web server with 30 packages of its own. Its modules come from Go's proxy, through a mirror.
func serverProject(ctx context.Context, b *bench) (*project, error) {
	image, err := golang.push(ctx, b)
	if err != nil {
		return nil, err
	}
	proxies, err := output("go", "env", "GOPROXY")
	origin := strings.FieldsFunc(proxies, func(r rune) bool { return r == ',' || r == '|' })
	if err != nil || len(origin) == 0 || !strings.HasPrefix(origin[0], "http") {
		return nil, skipped(fmt.Sprintf("go has no proxy to mirror: GOPROXY is %q", proxies))
	}
	address, err := b.mirrorOf("go", origin[0])
	if err != nil {
		return nil, err
	}
	files := docs(450)
	mod, imports, uses := "module example.test/server\n\ngo 1.21\n\n", "", ""
	for i, m := range serverModules {
		mod += "require " + m.path + " " + m.version + "\n"
		path := m.path
		if strings.HasSuffix(path, "client_golang") {
			path += "/prometheus"
		}
		if i < len(serverModules)-1 {
			imports, uses = imports+"\t\""+path+"\"\n", uses+"\t"+m.use+"\n"
		}
	}
	for i := range 30 {
		path := fmt.Sprintf("internal/p%d", i)
		for k := range 5 {
			files[fmt.Sprintf("%s/f%d.go", path, k)] = fmt.Sprintf("package p%d\n\n%s\nfunc F%d(n int) int { return n + %d }\n", i, source(path, 1<<10), k, k)
		}
		imports += fmt.Sprintf("\t%q\n", "example.test/server/"+path)
		uses += fmt.Sprintf("\tn += p%d.F%d(n)\n", i, i%5)
	}
	last := serverModules[len(serverModules)-1] // in a file of its own, which can go
	maps.Copy(files, map[string]string{"go.mod": mod,
		"main.go": "package main\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n\n" + imports + ")\n\nfunc main() {\n\tn := 0\n" + uses +
			"\tfmt.Println(n, \"" + marked + "\")\n\t_ = http.ListenAndServe(\":8080\", nil)\n}\n",
		"extra.go": "package main\n\nimport \"" + last.path + "\"\n\nfunc init() { " + last.use + " }\n",
	})
	top := fmt.Sprintf("FROM %s AS build\nENV GOPROXY=%s GONOSUMDB=* GONOSUMCHECK=1 GOFLAGS=-mod=readonly GOSUMDB=off\nWORKDIR /src\n", image, address)
	const compile = "CGO_ENABLED=0 go build -o /usr/local/bin/server .\n"
	const end = "FROM scratch\nCOPY --from=build /usr/local/bin/server /server\nCMD [\"/server\"]\n"
	p, err := b.newProject("server", files, map[string]string{
		"naive": top + "COPY . .\nRUN go mod download\nRUN " + compile + end,
		"by-hand": top + "COPY go.mod go.sum ./\nRUN --mount=type=cache,target=/go/pkg/mod go mod download\nCOPY . .\n" +
			"RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build " + compile + end,
	})
	if err != nil {
		return nil, err
	}
	p.edit = "main.go"
	tidy := exec.CommandContext(ctx, "go", "mod", "tidy")
	tidy.Dir = p.dir
	tidy.Env = append(os.Environ(), "GOPROXY="+address, "GOSUMDB=off", "GOFLAGS=-mod=mod -modcacherw", "GOWORK=off", "GOMODCACHE="+filepath.Join(b.Dir, "server-modules"))
	if err := execute(tidy); err != nil {
		return nil, skipped(fmt.Sprintf("its modules can't be had: %v", err))
	}
	mods, err := os.ReadFile(filepath.Join(p.dir, "go.mod"))
	if err != nil {
		return nil, err
	}
	return p, writeFiles(filepath.Dir(p.dir), map[string]string{"go.mod": string(mods), "extra.go": files["extra.go"]})
}

// serverManifest drops and adds the last module.
func serverManifest(p *project, serial int) error {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(p.dir), "go.mod"))
	if err != nil {
		return err
	}
	extra, err := os.ReadFile(filepath.Join(filepath.Dir(p.dir), "extra.go"))
	if err != nil {
		return err
	}
	mod, last := string(text), serverModules[len(serverModules)-1]
	if serial%2 == 1 {
		mod = strings.ReplaceAll(mod, "\t"+last.path+" "+last.version+"\n", "")
		extra = []byte("package main\n")
	}
	return writeFiles(p.dir, map[string]string{"go.mod": fmt.Sprintf("%s\n// %d\n", mod, serial), "extra.go": string(extra)})
}

// libraryProject compiles a library of 60 files of C and a program that uses it.
func libraryProject(ctx context.Context, b *bench) (*project, error) {
	image, err := gcc.push(ctx, b)
	if err != nil {
		return nil, err
	}
	files := docs(450)
	uses := cFunctions(files, "lib")
	files["src/main.c"] = "#include <stdio.h>\n#include \"../lib/all.h\"\nint main(void) {\n\tint n = 0;\n" + uses + "\tputs(\"" + marked + "\");\n\treturn n == 0;\n}\n"
	files["Makefile"] = "app: src/main.c lib.a\n\t$(CC) -O1 -o $@ $^\n" +
		"lib.a: $(patsubst %.c,%.o,$(wildcard lib/*.c))\n\t$(AR) rcs $@ $^\nlib/%.o: lib/%.c lib/all.h\n\t$(CC) -O1 -c -o $@ $<\n"
	top := fmt.Sprintf("FROM %s AS build\nWORKDIR /app\n", image)
	const end = "FROM debian:12\nCOPY --from=build /app/app /usr/local/bin/app\n"
	p, err := b.newProject("library", files, map[string]string{
		"naive":   top + "COPY . .\nRUN make\n" + end,
		"by-hand": top + "COPY Makefile ./\nCOPY lib lib\nRUN make lib.a\nCOPY src src\nRUN make\n" + end,
	})
	if err == nil {
		p.edit = "src/main.c"
	}
	return p, err
}
