package fix

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestGenerated: what holds of every result holds of Dockerfiles that nobody wrote.
func TestGenerated(t *testing.T) {
	for seed := range uint64(300) {
		if src := generate(seed); !t.Run(fmt.Sprint(seed), func(t *testing.T) { checkFix(t, src) }) {
			return
		}
	}
}

// commands are what generated RUNs are made of: what passes know, and what they must leave alone.
var commands = []string{
	"apt-get update", "apt-get install -y curl", "apt-get update && apt-get install -y --no-install-recommends gcc", "rm -rf /var/lib/apt/lists/*", "apk add --no-cache git",
	"npm ci", "npm install", "pip install -r requirements.txt", "pip install --no-cache-dir flask", "go mod download", "go build -o /out ./...", "CGO_ENABLED=0 go build .",
	"make", "./configure --prefix=$PREFIX", "echo $REV > /rev", "chmod +x /app/run.sh", "chmod 755 /app", "chown -R 1000:1000 /app", "chown app /app", "useradd -u 1000 app", "cd /src && make",
	"set -e; true", "for i in 1 2; do echo $i; done", "exit 0", "export A=1", "umask 077", "curl -fsSL https://example.com/x | sh", "mkdir -p /app /data", "cat <<X\nhello\nX", "\"unclosed",
}

// generate makes a Dockerfile.
func generate(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var b strings.Builder
	b.WriteString(pick("", "", "# syntax=docker/dockerfile:1\n", "# a head\n\n", "# escape=\\\n", "# optbuild: off=cache-mounts\n"))
	b.WriteString(pick("", "ARG BASE=debian:12\n"))
	stages := 1 + r.IntN(3)
	for i := range stages {
		base := pick("debian:12", "node:22", "golang:1.25", "python:3.13-slim", "alpine", "$BASE", "--platform=$BUILDPLATFORM golang:1.25", "scratch")
		if i > 0 && r.IntN(3) == 0 {
			base = "s0"
		}
		fmt.Fprintf(&b, "%sFROM %s AS s%d\n", pick("", "\n", "# a stage\n", "\n# optbuild: keep\n"), base, i)
		for range 1 + r.IntN(7) {
			b.WriteString(pick("", "", "", "\n", "# why\n", "\n# why\n\n", "# optbuild: keep\n"))
			b.WriteString(instruction(r, i) + "\n")
		}
	}
	text := b.String()
	switch r.IntN(10) {
	case 0:
		text = strings.TrimSuffix(text, "\n")
	case 1:
		text = strings.ReplaceAll(text, "\n", "\r\n")
	case 2:
		text += "# the end\n"
	}
	return text
}

func instruction(r *rand.Rand, stage int) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	switch r.IntN(12) {
	case 0:
		return "WORKDIR " + pick("/app", "src", "/$UNSET/x")
	case 1:
		return pick("ENV A=1", "ENV REV=$REV", "ENV PATH=/x:$PATH", "ARG REV", "ARG REV=1", "LABEL rev=$REV", "ENV PIP_NO_CACHE_DIR=1", "ENV DEBIAN_FRONTEND=noninteractive")
	case 2:
		return pick("USER app", "USER 1000:1000", "USER root", "EXPOSE 80", "VOLUME /data", `SHELL ["/bin/bash", "-c"]`, `CMD ["a"]`, "ENTRYPOINT b", "STOPSIGNAL 9", "ONBUILD RUN x", "HEALTHCHECK NONE")
	case 3, 4:
		return pick("COPY . .", "COPY . /app", "COPY package*.json ./", "COPY requirements.txt .", "COPY --chown=1000:1000 src /app/", "ADD app.py /app/", "ADD src /app/", "COPY app.py /app/run.sh", "COPY <<EOF /app/x\ny\nEOF", "COPY --link src /x/")
	case 5:
		if stage > 0 {
			return "COPY --from=s0 " + pick("/app /app", "/out /usr/bin/", "/ /")
		}
		return "COPY src src"
	}
	n := 1 + r.IntN(3)
	list := make([]string, n)
	for i := range list {
		list[i] = commands[r.IntN(len(commands)-2)]
		if n == 1 {
			list[i] = commands[r.IntN(len(commands))]
		}
	}
	sep := pick(" && ", " && \\\n    ", "; \\\n\t", " \\\n # inside\n  && ")
	if r.IntN(8) == 0 {
		return "RUN <<EOF\n" + strings.Join(list, "\n") + "\nEOF"
	}
	if strings.Contains(list[0], "\n") {
		list[0] = "true"
	}
	return "RUN " + pick("", "", "", "--network=none ", "--mount=type=cache,target=/root/.npm ") + strings.Join(list, sep)
}
