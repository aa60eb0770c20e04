// Package generate makes small Dockerfiles with contexts, for the equivalence tests to build: one to three stages of a few
// instructions, out of what Dockerfiles do that a compiler has to be careful with.
//
// What comes in is a seed; what goes out is a case, always the same for the same seed. Most cases build; what stock BuildKit refuses
// is a test, too. The vocabulary is that of package fakes and of the corpus: installers and what they leave behind, COPY in all
// forms, variables that steps read, or don't, and the ways in which steps look at each other's files. Whole phrases (copy everything,
// then install) are mixed with single instructions, so that passes find something to do and something in their way.
//
// What a step prints has to be a function of its inputs: no times, no sizes of directories, no inode numbers.
package generate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/optbuild/optbuild/integration/oracle/cases"
)

// Case makes the case of a seed.
func Case(seed uint64) *cases.Case {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), given: map[string]bool{}, outputs: map[string][]string{}}
	g.context()
	g.dockerfile()
	c := &cases.Case{Name: fmt.Sprintf("seed-%d", seed), About: fmt.Sprintf("Generated from the seed %d.", seed), Options: g.options, Second: g.second}
	c.Files = append([]txtar.File{{Name: "Dockerfile", Data: []byte(g.text.String())}}, g.files...)
	return c
}

type generator struct {
	*rand.Rand
	text    strings.Builder
	files   []txtar.File
	options [][2]string
	second  [][2]string
	given   map[string]bool // build arguments

	stages  []string // names of the stages that are finished
	base    string   // image of this stage
	inStage []string // variables that are declared
	root    bool     // the user is
	have    []string // files
	dirs    []string
	outputs map[string][]string // what finished stages have
}

// chance is true in n of 100 cases.
func (g *generator) chance(n int) bool { return g.IntN(100) < n }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

func (g *generator) line(format string, args ...any) { fmt.Fprintf(&g.text, format+"\n", args...) }

func (g *generator) file(name, content string) {
	g.files = append(g.files, txtar.File{Name: name, Data: []byte(content)})
}

// context makes the files of the context, and what changes in them.
func (g *generator) context() {
	scripts, deps, own := "", "", ""
	if g.chance(15) {
		scripts = `  "scripts": { "postinstall": "` + pick(g, "cat src/* > generated", "true", "echo $VERSION > v", "ls > listing") + "\" },\n"
	}
	if g.chance(10) {
		deps = "    \"own\": \"file:libs/own\",\n"
		own = ",\n  \"libs/own\": {},\n  \"node_modules/own\": { \"resolved\": \"libs/own\", \"link\": true }"
		g.file("libs/own/package.json", "{ \"name\": \"own\" }\n")
	}
	g.file("package.json", "{\n  \"name\": \"app\",\n  \"version\": \"1.0.0\",\n"+scripts+"  \"dependencies\": {\n"+deps+"    \"left-pad\": \"1.3.0\"\n  },\n  \"devDependencies\": {\n    \"jest\": \"29.0.0\"\n  }\n}\n")
	g.file("package-lock.json", "{ \"lockfileVersion\": 3, \"packages\": {\n  \"node_modules/left-pad\": { \"version\": \"1.3.0\" },\n  \"node_modules/jest\": { \"version\": \"29.0.0\", \"dev\": true }"+own+"\n} }\n")
	g.file("requirements.txt", pick(g, "flask==3.0.0\n", "flask==3.0.0\n-e .\n", "-r more.txt\n", "sdist-numpy==1.0\n"))
	g.file("more.txt", "gunicorn==22.0.0\n")
	g.file("setup.py", "name='mine'\nversion='1'\n")
	replace := ""
	if g.chance(15) {
		replace = "\nreplace example.com/dep => ./libs/dep\n"
		g.file("libs/dep/go.mod", "module example.com/dep\n")
		g.file("libs/dep/dep.go", "package dep\n")
	}
	g.file("go.mod", "module example.com/app\n\nrequire example.com/dep v1.0.0\n"+replace)
	g.file("go.sum", "example.com/dep v1.0.0 h1:x\n")
	g.file("main.go", "package main\n")
	g.file("src/a.js", "a\n")
	g.file("src/sub/b", "b\n")
	g.file("run.sh", pick(g, "echo run\n", "env | grep -v ^TRACEPARENT | sort > /tmp/env-of-script\n", "echo ${VERSION:-none} > /tmp/v\n", "pip install scripted==1\n", "ls -a \"$HOME\" > /tmp/home\n"))
	g.file("conf", "key=value\n")
	setup := ""
	if g.chance(10) {
		g.file("src/link -> a.js", "")
	}
	if g.chance(8) {
		setup += "tar cf conf.tar --owner=3 --group=4 --mtime=@0 conf\n"
	}
	if g.chance(8) {
		setup += "chmod " + pick(g, "755", "600", "4711") + " run.sh\nchmod 700 src\n"
	}
	if setup != "" {
		g.file("setup.sh", setup)
	}
	if g.chance(15) {
		g.file(".dockerignore", pick(g, "*.md\n", "node_modules\nsetup.py\n", "*\n!src\n!package*.json\n!run.sh\n!conf\n!*.txt\n!go.*\n!*.go\n!libs\n!setup.py\n", "src/sub\n!**/b\n"))
	}
	if g.chance(5) {
		g.file("node_modules/left-pad/index.js", "from the context\n")
	}
	if g.chance(50) {
		switch g.IntN(6) {
		case 0:
			g.file("second/src/a.js", "changed\n")
		case 1:
			g.file("second/main.go", "package main // changed\n")
		case 2:
			g.file("second/requirements.txt", "flask==3.0.1\n")
		case 3:
			g.file("second/conf", "key=changed\n")
		case 4:
			g.file("second/more.txt", "gunicorn==23.0.0\n")
		case 5:
			g.file("second/package.json", "{\n  \"name\": \"app\",\n  \"dependencies\": {\n    \"left-pad\": \"1.4.0\"\n  }\n}\n")
		}
	}
}

var images = []string{"debian:12", "debian:12", "test/keeps", "test/cleans", "alpine:3.20", "node:20", "node:20", "python:3.12", "python:3.12", "golang:1.23", "golang:1.23", "busybox:1",
	"test/user", "test/env", "test/shell", "test/workdir", "test/links", "test/links", "test/lists", "test/labels", "test/volume"}

func (g *generator) dockerfile() {
	if g.chance(5) {
		g.line("%s", pick(g, "# syntax=docker/dockerfile:1", "# escape=\\", "# check=skip=all"))
	}
	if g.chance(10) {
		g.line("ARG GLOBAL=%s", pick(g, "one", "two"))
	}
	n := pick(g, 1, 1, 1, 2, 2, 2, 3)
	for i := range n {
		g.stage(i, i == n-1)
	}
	switch r := g.IntN(100); {
	case r < 8:
		g.options = append(g.options, [2]string{"platform", "linux/arm64"})
	case r < 12:
		g.options = append(g.options, [2]string{"platform", "linux/amd64,linux/arm64"})
	case r < 20 && len(g.stages) > 1:
		g.options = append(g.options, [2]string{"target", g.stages[g.IntN(len(g.stages))]})
	case r < 21:
		g.options = append(g.options, [2]string{"network", "none"})
	}
}

func (g *generator) stage(i int, last bool) {
	g.base, g.inStage, g.have, g.dirs = images[g.IntN(len(images))], nil, nil, nil
	from := g.base
	if i > 0 && g.chance(35) {
		from = g.stages[g.IntN(i)]
		g.base, g.have = "", slices.Clone(g.outputs[from])
	}
	g.root = g.base != "test/user" && g.base != ""
	platform := ""
	if g.chance(5) {
		platform = "--platform=$BUILDPLATFORM "
	}
	name := fmt.Sprintf("s%d", i)
	g.line("%s %s%s %s %s", pick(g, "FROM", "FROM", "from"), platform, from, pick(g, "AS", "as"), name)
	if !g.root && g.chance(75) {
		g.line("USER root")
		g.root = true
	}
	budget := 2 + g.IntN(6)
	for budget > 0 {
		budget -= g.phrase(i)
	}
	if last && i > 0 && g.chance(50) {
		from := pick(g, g.stages...)
		g.line("COPY --from=%s %s %s", from, pick(g, append(g.outputs[from], "/root", "/tmp", "/etc/group")...), pick(g, "/from/", "/srv/link/", "/from"))
	}
	g.outputs[name] = slices.DeleteFunc(slices.Clone(g.have), func(f string) bool { return !strings.HasPrefix(f, "/") })
	g.stages = append(g.stages, name)
}

// phrase writes some instructions, and returns how many.
func (g *generator) phrase(stage int) int {
	before := strings.Count(g.text.String(), "\n")
	switch r := g.IntN(100); {
	case r < 38 && !g.root:
		g.run()
	case r < 9:
		g.apt()
	case r < 19:
		g.node()
	case r < 28:
		g.python()
	case r < 36:
		g.golang()
	case r < 38:
		g.line("RUN %s", pick(g, "apk add curl", "apk update", "apk add --no-cache git", "dnf install -y vim && dnf clean all", "dnf install -y --setopt=keepcache=1 vim"))
	case r < 50:
		g.variable()
	case r < 66:
		g.copy(stage)
	case r < 72:
		g.metadata()
	case r < 80:
		g.config()
	default:
		g.run()
	}
	if g.chance(6) {
		g.line("%s", pick(g, "# a comment", "", "# optbuild: keep"))
	}
	return max(1, strings.Count(g.text.String(), "\n")-before)
}

func (g *generator) declared(name string) { g.inStage = append(g.inStage, name) }

// give passes a build argument, another one to the second build perhaps.
func (g *generator) give(name string, values ...string) {
	if g.given[name] {
		return
	}
	g.given[name] = true
	v := g.IntN(len(values))
	g.options = append(g.options, [2]string{"build-arg", name + "=" + values[v]})
	if g.chance(60) {
		g.second = append(g.second, [2]string{"build-arg", name + "=" + values[(v+1)%len(values)]})
	}
}

// read is a variable to read.
func (g *generator) read() string {
	if len(g.inStage) > 0 && g.chance(85) {
		return g.inStage[g.IntN(len(g.inStage))]
	}
	return pick(g, "VERSION", "GIT_SHA", "HOME", "PATH", "GREETING", "TARGETARCH")
}

func (g *generator) variable() {
	name := pick(g, "GIT_SHA", "GIT_SHA", "BUILD_DATE", "VERSION", "VERSION", "CFLAGS", "NODE_ENV", "PIP_CACHE_DIR", "npm_config_cache", "TZ", "GREETING", "DIR", "GOFLAGS",
		"TARGETARCH", "BUILDPLATFORM", "GLOBAL", "HOME", "GOCACHE", "DEBIAN_FRONTEND", "http_proxy")
	values := map[string][]string{"GIT_SHA": {"1111111", "2222222"}, "BUILD_DATE": {"2026-01-01", "2026-01-02"}, "VERSION": {"1.0", "1.1"}, "CFLAGS": {"-O1", "-O2"},
		"NODE_ENV": {"production", "development"}, "PIP_CACHE_DIR": {"/var/pip", "/tmp/pip"}, "npm_config_cache": {"/var/npm"}, "TZ": {"Europe/Berlin", "UTC"},
		"DIR": {"/app", "/srv/app"}, "GOFLAGS": {"-trimpath"}, "HOME": {"/home/other"}, "GOCACHE": {"/var/gocache"}, "DEBIAN_FRONTEND": {"noninteractive"},
		"http_proxy": {"http://127.0.0.1:1"}}[name]
	switch r := g.IntN(10); {
	case r < 5 || values == nil:
		if values != nil && g.chance(70) {
			g.give(name, values...)
		}
		if g.chance(35) && values != nil {
			g.line("ARG %s=%s", name, pick(g, values...))
		} else {
			g.line("ARG %s", name)
		}
		if g.chance(35) {
			g.line("%s", pick(g, "ENV "+name+"=$"+name, "LABEL "+strings.ToLower(name)+"=$"+name, "ENV COPIED=x${"+name+":-none}"))
		}
	case r < 8:
		g.line("ENV %s=%s", name, pick(g, append(values, "$"+g.read())...))
	default:
		g.line("ENV %s=%s OTHER=\"two words\"", name, pick(g, values...))
	}
	g.declared(name)
}

func (g *generator) apt() {
	install := "apt-get install -y " + pick(g, "", "--no-install-recommends ") + pick(g, "curl", "git curl", "tzdata", "curl=7")
	clean := pick(g, "", "", " && rm -rf /var/lib/apt/lists/*", " && rm -rf /var/lib/apt/lists/*", " && apt-get clean", " && rm -rf /var/cache/apt", " && rm -rf /var/cache/apt/archives/*")
	switch g.IntN(5) {
	case 0:
		g.line("RUN apt-get update")
		if g.chance(40) {
			g.run()
		}
		g.line("RUN %s%s", install, clean)
	case 1:
		g.line("RUN set -eux; apt-get update; %s%s", install, strings.ReplaceAll(clean, " && ", "; "))
	case 2:
		g.line("RUN apt-get update && \\\n    # needed\n    %s%s", install, clean)
	default:
		g.line("RUN apt-get update && %s%s", install, clean)
	}
	if g.chance(30) {
		g.line("RUN %s", pick(g, "apt-get install -y vim || true", "ls /var/cache/apt/archives > /archives", "ls /var/lib/apt/lists > /lists || true", "cat /etc/apt/apt.conf.d/* > /conf 2>/dev/null; true",
			"apt-get clean", "ls /var/cache/apt > /apt", "find /var/cache | sort > /found"))
	}
}

func (g *generator) node() {
	if g.chance(80) {
		g.line("WORKDIR %s", pick(g, "/app", "/app", "/srv/app", "/srv/link", "web"))
	}
	switch g.IntN(6) {
	case 0, 1:
		g.line("COPY %s", pick(g, ". .", ". ./", "--chown=1000:1000 . .", ". /app/"))
	case 2:
		g.line("COPY package.json package-lock.json ./")
	case 3:
		g.line("COPY package*.json src ./")
	case 4:
		g.line("COPY package*.json ./")
		g.line("COPY src src")
	case 5:
		g.line("RUN printf '{\\n\"dependencies\": {\\n\"left-pad\": \"1\"\\n}\\n}\\n' > package.json && touch package-lock.json && npm install")
	}
	if g.chance(20) {
		g.one()
	}
	g.line("RUN %s", pick(g, "npm ci", "npm ci", "npm ci", "npm install", "npm ci --omit=dev", "npm ci --ignore-scripts", "npm ci && npm cache clean --force", "npm ci && rm -rf /root/.npm", "npm install -g typescript@5",
		"npm ci && cat src/* > built", "npm ci --cache /tmp/npm", "npm install right-pad@2", "npm_config_cache=/tmp/c npm ci", "yarn install", "pnpm install", "[\"npm\", \"ci\"]"))
	if g.chance(40) {
		g.line("RUN %s", pick(g, "cat src/* > built || true", "ls -a ~ > /home-list", "ls -aR /root/.npm > /cache-list; true", "npm prune --production", "rm -rf ~/.npm", "node src/a.js > /out-node || true", "find / -xdev -name '*left-pad*' | sort > /found",
			"--network=none npm ci || echo failed > /failed", "cp -r ~/.npm /saved; true"))
	}
}

func (g *generator) python() {
	if g.chance(50) {
		g.line("WORKDIR %s", pick(g, "/app", "/srv/app", "/srv/real"))
	}
	if g.chance(92) {
		g.line("COPY %s", pick(g, ". .", "requirements.txt ./", "requirements.txt more.txt setup.py ./", "*.txt setup.py ./", ". /app"))
	}
	if g.chance(20) {
		g.one()
	}
	g.line("RUN %s", pick(g, "pip install -r requirements.txt", "pip install -r requirements.txt", "pip install flask==3.0.0", "pip install flask gunicorn", "pip install --no-cache-dir flask", "pip install sdist-numpy==1.0", "CFLAGS=-O3 pip install sdist-numpy",
		"pip install -e .", "pip install .", "pip install flask && rm -rf ~/.cache", "pip install flask && rm -rf /root/.cache/pip/*", "python -m pip install flask", "pip install --user flask", "pip install --cache-dir=/tmp/pip flask", "uv pip install flask",
		"pip config set global.cache-dir /srv/pip && pip install flask", "XDG_CACHE_HOME=/x pip install flask"))
	if g.chance(40) {
		g.line("RUN %s", pick(g, "ls -a /root > /home-list; true", "ls -R ~/.cache > /cache-list; true", "python setup.py > /out-python; true", "pip cache purge", "find / -xdev -name '*.whl' | sort > /found", "cp -r ~/.cache /saved; true", "pip install gunicorn", "mkdir -p ~/.cache && echo mine > ~/.cache/mine"))
	}
}

func (g *generator) golang() {
	g.line("WORKDIR %s", pick(g, "/src", "/src", "/go/src/app", "/app"))
	g.line("COPY %s", pick(g, ". .", ". .", "go.mod go.sum main.go ./", "go.mod go.sum *.go ./"))
	if g.chance(40) {
		g.line("RUN %s", pick(g, "go mod download", "go mod download && go mod verify", "go generate ./...", "go vet ."))
	}
	if g.chance(25) {
		g.line("%s", pick(g, "ENV CGO_ENABLED=0", "ENV GOARCH=arm64", "ENV GOCACHE=/gocache", "ARG TARGETARCH", "ENV GOFLAGS=-trimpath", "RUN cp /etc/fake-arch /out-arch"))
	}
	g.line("RUN %s", pick(g, "go build -o /out/app .", "CGO_ENABLED=0 go build -o /out/app .", "CGO_ENABLED=0 go build -ldflags \"-X main.v=$VERSION\" -o /out/app .", "GOOS=linux GOARCH=amd64 CGO_ENABLED=0 go build -o /out/app",
		"go install .", "go build . && ls ~/.cache > /out-cache; true", "CGO_ENABLED=0 go build -o /out/ . && go clean -cache", "CGO_ENABLED=0 GOARCH=$TARGETARCH go build -o /out/app .", "--network=none go build -o /out/app . || mkdir -p /out"))
	if g.chance(25) {
		g.line("RUN %s", pick(g, "go test ./...", "ls /go/pkg/mod > /mods; true", "--network=none CGO_ENABLED=0 go build -o /out/two .", "/out/app > /out/printed || true", "rm -rf /root/.cache/go-build", "find /root /go -type f 2>/dev/null | wc -l > /out-count"))
	}
}

func (g *generator) destination() string {
	return pick(g, "./", ".", "/app/", "/app/", "/opt/x/", "/opt/y", "/tmp/t", "/tmp/d/", "/root/r", "/srv/link/", "/srv/real/", "/srv/new", "/srv/new2/", "/data/", "dest/", "sub/dir/", "/usr/local/bin/tools/", "/etc/")
}

func (g *generator) copy(stage int) {
	command := pick(g, "COPY", "COPY", "COPY", "ADD", "copy")
	flags := pick(g, "", "", "", "", "--chown=1000:1000 ", "--chmod=755 ", "--link ", "--chown=5 --chmod=640 ", "--chown=nobody ")
	switch r := g.IntN(10); {
	case r < 2 && stage > 0:
		from := pick(g, g.stages...)
		g.line("COPY %s--from=%s %s %s", flags, from, pick(g, append(g.outputs[from], "/etc/passwd", "/tmp", "/root/.")...), g.destination())
	case r < 3:
		g.line("COPY --from=nginx:1 /usr/share/nginx/html %s", g.destination())
	case r < 4:
		g.line("%s <<EOT %s\ntext of $%s\nEOT", pick(g, "COPY", "ADD"), g.destination(), g.read())
	case r < 5:
		g.line("%s %s[\"conf\", \"%s\"]", command, flags, g.destination())
	default:
		g.line("%s %s%s %s", command, flags, pick(g, "conf", "conf", "run.sh", "src", "src/", "src/sub", ".", "conf run.sh", "*.tx?", "conf*", "src/*", "./conf", "/conf", "main.go"), g.destination())
	}
	if g.chance(20) {
		g.line("RUN %s", pick(g, "cat /srv/link/* > /all 2>/dev/null; true", "{ find . -xdev -not -path './proc*' -not -path './sys*' | sort; } > /here", "sh run.sh || true", "test -e conf && echo yes > /yes; true", "stat -c '%a %u:%g %F' /tmp /srv /root /opt 2>/dev/null > /modes; true"))
	}
}

// metadata writes a COPY and a step that changes modes or owners.
func (g *generator) metadata() {
	to := pick(g, "/opt/tool", "/app/run.sh", "/srv/real/tool", "/usr/local/bin/run", "tool")
	from := pick(g, "run.sh", "run.sh", "conf", "src")
	flags := pick(g, "", "", "", "--chown=1:1 ", "--chmod=600 ", "--link ")
	g.line("COPY %s%s %s", flags, from, to)
	if !g.root && g.chance(90) {
		return
	}
	if g.chance(15) {
		g.one()
	}
	g.line("RUN %s %s%s", pick(g, "chmod 755", "chmod 755", "chmod +x", "chmod -R 750", "chmod u=rwx,go=", "chown 1000:1000", "chown -R 1000:1000", "chown nobody", "chown -R 5", "chmod 4755", "chgrp 7", "chmod 0644", "chown -R nobody:nogroup"), to,
		pick(g, "", "", "", "", "", " && ls "+to+" > /ls", " /etc/passwd", "; true", "/* || true"))
}

func (g *generator) config() {
	c := pick(g,
		"WORKDIR /work", "WORKDIR deeper", "WORKDIR /tmp/$"+g.read(), "USER root", "USER 1000", "USER 1000:1000", "USER nobody", "LABEL a=1 b=$"+g.read(), "LABEL version=2",
		"CMD [\"sh\"]", "CMD echo $"+g.read(), "ENTRYPOINT [\"/bin/sh\"]", "EXPOSE 80", "VOLUME /data", "VOLUME /vol", "STOPSIGNAL SIGINT", "HEALTHCHECK CMD true", "HEALTHCHECK NONE",
		"SHELL [\"/bin/sh\", \"-ec\"]", "SHELL [\"/bin/sh\", \"-o\", \"pipefail\", \"-c\"]", "ONBUILD RUN echo triggered > /triggered", "ONBUILD COPY conf /onbuild", "RUN useradd -m -u 1234 app && id app > /dev/null; true")
	if user, ok := strings.CutPrefix(c, "USER "); ok {
		g.root = user == "root"
	}
	g.line("%s", c)
}

// one writes one instruction, to be in the way.
func (g *generator) one() {
	switch g.IntN(4) {
	case 0:
		g.config()
	case 1:
		g.variable()
	default:
		g.run()
	}
}

// existing is a file that is there, most of the time.
func (g *generator) existing() string {
	if len(g.have) > 0 && g.chance(75) {
		return g.have[g.IntN(len(g.have))]
	}
	if g.root {
		return pick(g, "/etc/passwd", "/etc/group", "/etc/fake-arch", "/usr/bin/pip", "/tmp")
	}
	return "/tmp"
}

// fresh is a place for a file in a directory that is there.
func (g *generator) fresh() string {
	f := "/tmp/" + pick(g, "f", "g", "h")
	switch {
	case !g.root:
	case len(g.dirs) > 0 && g.chance(40):
		f = pick(g, g.dirs...) + "/" + pick(g, "f", "g")
	case g.base == "test/links" && g.chance(60):
		f = pick(g, "/srv/file", "/srv/link/f", "/srv/real/file", "/opt/f")
	default:
		f = pick(g, "/f", "/g", "here", "/etc/conf", "/tmp/f")
	}
	if g.chance(80) && !strings.HasPrefix(f, "here") {
		g.have = append(g.have, f)
	}
	return f
}

// command is a cheap one; last says that it ends a list.
func (g *generator) command(last bool) string {
	v := g.read()
	if g.chance(3) {
		return pick(g, "false", "test -e /nowhere", "[ -n \"$"+v+"\" ]", "ls /nowhere", "rm /nowhere", "cat /nowhere/x > /tmp/f", "set -u", "cd /nowhere")
	}
	if last && g.chance(5) {
		return pick(g, "exit 0", "sleep 0 & wait", "exec touch /tmp/f")
	}
	switch g.IntN(5) {
	case 0: // makes something
		if !g.root {
			return "mkdir -p /tmp/" + pick(g, "w", "x/y")
		}
		d := pick(g, "/a", "/a", "/opt/d", "/tmp/w", "/root/z")
		if g.base == "test/links" && strings.HasPrefix(d, "/opt") {
			d = "/opt/sub"
		}
		g.dirs = append(g.dirs, d)
		return pick(g, "mkdir -p "+d, "mkdir -p "+d, "mkdir -p -m 700 "+d, "mkdir -p "+d+"/deeper", "install=1; mkdir -p "+d)
	case 1:
		f := g.fresh()
		return pick(g, "echo text > "+f, "echo text > "+f, "touch "+f, "echo more >> "+f, "printf 'a\\nb\\n' > "+f, "cp /etc/group "+f, "echo \"$"+v+"\" > "+f, "echo ${"+v+":-unset} > "+f, "echo '$"+v+"' > "+f, "sh -c 'echo $"+v+"' > "+f,
			"env | grep -v '^PWD\\|^HOSTNAME\\|^TRACEPARENT' | sort > "+f, "pwd > "+f, "id -u > "+f, "ls / > "+f, "ls -a . > "+f, "ls -a ~ > "+f, "echo $0 $# > "+f, "hostname > "+f, "umask > "+f, "cat /etc/hosts > "+f, "cut -d' ' -f5 /proc/self/mountinfo | grep -v '^/proc\\|^/sys\\|^/dev' | sort > "+f,
			"go env GOARCH > "+f, "eval echo \\$"+v+" > "+f, "git --version > "+f, "{ find / -xdev -path '*cache*' -type f | sort; } > "+f)
	case 2: // changes something
		f := g.existing()
		if !g.root {
			return pick(g, "test -e "+f, "cat "+f+" > /tmp/cat; true", "ls -d "+f)
		}
		return pick(g, "chmod 600 "+f, "chmod 755 "+f, "chmod a-w "+f, "chown 3:4 "+f, "chown nobody "+f, "rm -rf "+f, "mv "+f+" /moved", "cp -r "+f+" /copy", "cp -a "+f+" /copied", "echo more >> "+f+"; true", "sed -i s/text/other/ "+f+"; true",
			"ln -sf "+f+" /link"+fmt.Sprint(g.IntN(3)), "ln -f "+f+" /hard"+fmt.Sprint(g.IntN(3))+"; true", "tar cf - "+f+" | wc -c > /dev/null")
	case 3: // looks at something
		f := g.existing()
		out := pick(g, "/tmp/seen", "/tmp/seen2")
		return pick(g, "cat "+f+" > "+out+"; true", "{ find "+f+" | sort; } > "+out+"; true", "stat -c '%h %a %u' "+f+" > "+out+"; true", "test -e "+f+" && echo yes > "+out+" || true", "{ ls -l "+f+" | cut -c1-10; } > "+out, "readlink /link0 > "+out+"; true", "sha256sum "+f+" > "+out+"; true")
	default: // leaves something in the shell
		return pick(g, "cd /tmp", "x=1", "export y="+v, "echo $x$y > /tmp/xy", "set -e", "set +e", "umask 077", "true", ":", "(cd / && ls > /tmp/ls2)", "echo *", "x=$(pwd)", "for i in 1 2; do echo $i; done > /tmp/loop", "if [ -e /f ]; then echo f; fi > /tmp/if", "sh /app/run.sh || true",
			"f() { echo f; }", "trap 'echo bye > /tmp/bye' EXIT", "exec 2>&1", "alias ll=ls", "set -f", "mkfifo /tmp/pipe$$ && rm /tmp/pipe$$", "head -c 3 /dev/zero > /tmp/zeros")
	}
}

func (g *generator) run() {
	n := pick(g, 1, 1, 1, 2, 2, 3)
	var cmds []string
	for i := range n {
		cmds = append(cmds, g.command(i == n-1))
	}
	joined := cmds[0]
	for _, c := range cmds[1:] {
		joined += pick(g, " && ", " && ", " && ", "; ", " || ", " && \\\n    ", " && ", " | ") + c
	}
	flags := ""
	switch r := g.IntN(100); {
	case r < 4:
		flags = "--mount=type=cache,target=" + pick(g, "/cache", "/root/.cache/pip", "/tmp/w", "/root/.npm") + " "
	case r < 7:
		flags = "--mount=type=bind,target=/ctx" + pick(g, "", ",source=src") + " "
	case r < 9:
		flags = "--mount=type=tmpfs,target=" + pick(g, "/tmp", "/scratch") + " "
	case r < 12:
		flags = "--network=none "
	case r < 14 && len(g.stages) > 0:
		flags = "--mount=from=" + pick(g, g.stages...) + ",target=/stage "
	}
	switch r := g.IntN(100); {
	case r < 5:
		g.line("RUN %s<<EOT\n%s\nEOT", flags, strings.Join(cmds, "\n"))
	case r < 8 && !slices.ContainsFunc(cmds, func(c string) bool { return strings.ContainsAny(c, "\"\\") }):
		g.line("RUN %s[\"/bin/sh\", \"-c\", \"%s\"]", flags, strings.Join(cmds, " && "))
	case r < 11:
		g.line("RUN %s%s # says why", flags, joined)
	case r < 14:
		g.line("RUN %s\\\n  # comment\n  %s", flags, joined)
	default:
		g.line("RUN %s%s", flags, joined)
	}
}
