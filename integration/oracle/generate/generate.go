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
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), given: map[string]bool{}}
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
	scripts, deps := "", ""
	if g.chance(15) {
		scripts = `  "scripts": { "postinstall": "` + pick(g, "cat src/* > generated", "true", "echo $VERSION > v", "ls > listing") + "\" },\n"
	}
	if g.chance(10) {
		deps = "    \"own\": \"file:libs/own\",\n"
		g.file("libs/own/package.json", "{ \"name\": \"own\" }\n")
	}
	g.file("package.json", "{\n  \"name\": \"app\",\n  \"version\": \"1.0.0\",\n"+scripts+"  \"dependencies\": {\n"+deps+"    \"left-pad\": \"1.3.0\"\n  },\n  \"devDependencies\": {\n    \"jest\": \"29.0.0\"\n  }\n}\n")
	g.file("package-lock.json", "{ \"lockfileVersion\": 3, \"packages\": {\n  \"node_modules/left-pad\": \"1.3.0\",\n  \"node_modules/own\": \"file:libs/own\"\n} }\n")
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
	g.file("run.sh", pick(g, "echo run\n", "env | sort > /tmp/env-of-script\n", "echo ${VERSION:-none} > /tmp/v\n", "pip install scripted==1\n", "ls -a \"$HOME\" > /tmp/home\n"))
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
		g.file(".dockerignore", pick(g, "*.md\n", "node_modules\nsetup.py\n", "*\n!src\n!package*.json\n!run.sh\n!conf\n!requirements.txt\n", "src/sub\n!**/b\n", "package-lock.json\n"))
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
	case r < 24:
		g.options = append(g.options, [2]string{"network", "none"})
	}
}

func (g *generator) stage(i int, last bool) {
	g.base, g.inStage = images[g.IntN(len(images))], nil
	from := g.base
	if i > 0 && g.chance(35) {
		from = g.stages[g.IntN(i)]
	}
	platform := ""
	if g.chance(5) {
		platform = "--platform=$BUILDPLATFORM "
	}
	name := fmt.Sprintf("s%d", i)
	g.line("%s %s%s %s %s", pick(g, "FROM", "FROM", "from"), platform, from, pick(g, "AS", "as"), name)
	budget := 2 + g.IntN(6)
	for budget > 0 {
		budget -= g.phrase(i)
	}
	if last && i > 0 && g.chance(50) {
		g.line("COPY --from=%s %s %s", pick(g, g.stages...), pick(g, "/out", "/opt", "/usr/share", "/root", "/tmp"), pick(g, "/from/", "/srv/link/", "/from"))
	}
	g.stages = append(g.stages, name)
}

// phrase writes some instructions, and returns how many.
func (g *generator) phrase(stage int) int {
	before := strings.Count(g.text.String(), "\n")
	switch r := g.IntN(100); {
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
		g.line("RUN printf '{\\n\"dependencies\": {\\n\"left-pad\": \"1\"\\n}\\n}\\n' > package.json")
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
	if g.chance(70) {
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
	g.line("COPY %s", pick(g, ". .", ". .", "go.mod go.sum main.go ./", "go.mod go.sum *.go libs* ./"))
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
	return pick(g, "./", ".", "/app/", "/app", "/opt/x/", "/opt/x/y", "/tmp/t", "/tmp/d/", "/root/r", "/srv/link/", "/srv/real/", "/srv/file", "/srv/new/", "/data/", "dest", "sub/dir/", "/usr/local/bin/tool", "/etc/conf")
}

func (g *generator) copy(stage int) {
	command := pick(g, "COPY", "COPY", "COPY", "ADD", "copy")
	flags := pick(g, "", "", "", "", "--chown=1000:1000 ", "--chmod=755 ", "--link ", "--chown=5 --chmod=640 ", "--chown=nobody ")
	switch r := g.IntN(10); {
	case r < 2 && stage > 0:
		g.line("COPY %s--from=%s %s %s", flags, pick(g, g.stages...), pick(g, "/etc/passwd", "/out", "/opt", "/usr/share", "/tmp", "/root/.", "/app"), g.destination())
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
		g.line("RUN %s", pick(g, "cat /srv/link/* > /all 2>/dev/null; true", "find . | sort > /here", "sh run.sh || true", "test -e conf && echo yes > /yes; true", "stat -c '%a %u:%g %F' /tmp /srv /root /opt 2>/dev/null > /modes; true"))
	}
}

// metadata writes a COPY and a step that changes modes or owners.
func (g *generator) metadata() {
	to := pick(g, "/opt/tool", "/app/run.sh", "/srv/real/tool", "/usr/local/bin/run", "tool")
	from := pick(g, "run.sh", "run.sh", "conf", "src")
	flags := pick(g, "", "", "", "--chown=1:1 ", "--chmod=600 ", "--link ")
	g.line("COPY %s%s %s", flags, from, to)
	if g.chance(15) {
		g.one()
	}
	g.line("RUN %s %s%s", pick(g, "chmod 755", "chmod 755", "chmod +x", "chmod -R 750", "chmod u=rwx,go=", "chown 1000:1000", "chown -R 1000:1000", "chown nobody", "chown -R 5", "chmod 4755", "chgrp 7", "chmod 0644", "chown -R nobody:nogroup"), to,
		pick(g, "", "", "", "", "/", "/sub", " && ls "+to+" > /ls", " /etc/passwd", "; true"))
}

func (g *generator) config() {
	g.line("%s", pick(g,
		"WORKDIR /work", "WORKDIR deeper", "WORKDIR /tmp/$"+g.read(), "USER root", "USER 1000", "USER 1000:1000", "USER nobody", "LABEL a=1 b=$"+g.read(), "LABEL version=2",
		"CMD [\"sh\"]", "CMD echo $"+g.read(), "ENTRYPOINT [\"/bin/sh\"]", "EXPOSE 80", "VOLUME /data", "VOLUME /vol", "STOPSIGNAL SIGINT", "HEALTHCHECK CMD true", "HEALTHCHECK NONE",
		"SHELL [\"/bin/sh\", \"-ec\"]", "SHELL [\"/bin/sh\", \"-o\", \"pipefail\", \"-c\"]", "ONBUILD RUN echo triggered > /triggered", "ONBUILD COPY conf /onbuild", "RUN useradd -m -u 1234 app && id app > /dev/null; true"))
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

// command is a cheap one.
func (g *generator) command() string {
	v := g.read()
	d := pick(g, "/a", "/opt/d", "/tmp/w", "/srv/real", "local", "/root/z")
	f := pick(g, "/f", "/tmp/f", "here", "/a/f", "/srv/file", "/srv/link/f", "/etc/conf", "/opt/d/f")
	return pick(g,
		"mkdir -p "+d, "mkdir -p "+d, "mkdir -m 700 -p "+d+"/priv", "echo text > "+f, "echo text > "+f, "echo more >> "+f, "touch "+f, "rm -f "+f, "rm -rf "+d, "chmod 600 "+f, "chmod 755 "+d,
		"ln -s "+d+" /link"+fmt.Sprint(g.IntN(3)), "ln -sf "+f+" "+d+"/l", "ln "+f+" /hard"+fmt.Sprint(g.IntN(3)), "cp "+f+" /copy", "mv "+f+" /moved", "cat "+f+" > /cat", "chown 3:4 "+f,
		"echo \"$"+v+"\" > /var-"+v, "echo ${"+v+":-unset} > /var2", "printenv "+v+" > /penv", "env | sort > /tmp/env", "echo '$"+v+"' > /quoted", "sh -c 'echo $"+v+"' > /sub",
		"cd "+d, "cd /tmp", "x=1", "export y="+v, "echo $x$y > /xy", "set -e", "set +e", "set -u", "umask 077", "true", "false", ":", "pwd > /pwd", "id -u > /tmp/uid", "ls / > /ls-root", "ls -a . > /tmp/ls-here",
		"echo $0 $# > /zero", "test -e "+f, "test -d "+d, "[ -n \"$"+v+"\" ]", "find "+d+" | sort > /found-d", "stat -c '%h %a' "+f+" > /stat", "readlink /link0 > /rl", "exit 0", "(cd / && ls > /tmp/ls2)", "sleep 0 &", "echo *", "git --version; true",
		"cat /proc/self/mountinfo | cut -d' ' -f5 | grep -v '^/proc\\|^/sys\\|^/dev' > /mounts", "ls -a ~ > /tmp/home-list", "mkfifo /pipe", "hostname > /h", "cat /etc/hosts > /hosts-copy", "sh /app/run.sh")
}

func (g *generator) run() {
	n := pick(g, 1, 1, 1, 2, 2, 3)
	var cmds []string
	for range n {
		cmds = append(cmds, g.command())
	}
	joined := cmds[0]
	for _, c := range cmds[1:] {
		joined += pick(g, " && ", " && ", " && ", "; ", " || ", " && \\\n    ", " | ") + c
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
