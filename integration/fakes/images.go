package fakes

import (
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// dockerClean is what Debian's and Ubuntu's official images have, in the form that the fake apt-get reads.
const dockerClean = `DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };

Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";
`

// clean is apt's configuration in these images.
var clean = map[string]string{
	"/etc/apt/apt.conf.d/docker-clean":               dockerClean,
	"/etc/apt/apt.conf.d/docker-autoremove-suggests": "Apt::AutoRemove::SuggestsImportant \"false\";\n",
	"/etc/apt/apt.conf.d/docker-gzip-indexes":        "Acquire::GzipIndexes \"true\";\n",
	"/etc/apt/apt.conf.d/docker-no-languages":        "Acquire::Languages \"none\";\n",
}

// and adds files.
func and(files, more map[string]string) map[string]string {
	out := maps.Clone(files)
	maps.Copy(out, more)
	return out
}

// Images are all base images: stand-ins for official ones with their configuration, and test/..., each of which has one thing
// that a Dockerfile inherits.
var Images = []Image{
	{Name: "debian:12", Config: v1.Config{Cmd: []string{"bash"}}, Files: clean},
	{Name: "debian:12-slim", Config: v1.Config{Cmd: []string{"bash"}}, Files: clean},
	{Name: "ubuntu:24.04", Config: v1.Config{Cmd: []string{"/bin/bash"}, Labels: map[string]string{"org.opencontainers.image.version": "24.04"}}, Files: clean},
	{Name: "alpine:3.20", Config: v1.Config{Cmd: []string{"/bin/sh"}}},
	{Name: "busybox:1", Config: v1.Config{Cmd: []string{"sh"}}},
	{Name: "fedora:40", Config: v1.Config{Cmd: []string{"/bin/bash"}}},
	{Name: "nginx:1", Config: v1.Config{Entrypoint: []string{"/docker-entrypoint.sh"}, Cmd: []string{"nginx"}, StopSignal: "SIGQUIT",
		ExposedPorts: map[string]struct{}{"80/tcp": {}}, Env: []string{path, "NGINX_VERSION=1.27"}},
		Files: map[string]string{"/usr/share/nginx/html/index.html": "welcome\n", "/docker-entrypoint.sh*": "#!/bin/sh\nexec \"$@\"\n"}},
	{Name: "node:20", Config: v1.Config{Env: []string{path, "NODE_VERSION=20.18.0", "YARN_VERSION=1.22.22"}, Entrypoint: []string{"docker-entrypoint.sh"},
		Cmd: []string{"node"}}, Files: and(clean, map[string]string{"/usr/local/bin/docker-entrypoint.sh*": "#!/bin/sh\nexec \"$@\"\n"})},
	{Name: "node:20-alpine", Config: v1.Config{Env: []string{path, "NODE_VERSION=20.18.0", "YARN_VERSION=1.22.22"}, Cmd: []string{"node"}}},
	{Name: "oven/bun:1", Config: v1.Config{Env: []string{path, "BUN_RUNTIME_TRANSPILER_CACHE_PATH=0"}, WorkingDir: "/home/bun/app", Cmd: []string{"/usr/local/bin/bun"}}},
	{Name: "python:3.12", Config: v1.Config{Env: []string{path, "LANG=C.UTF-8", "PYTHON_VERSION=3.12.6"}, Cmd: []string{"python3"}}, Files: clean},
	{Name: "python:3.12-slim", Config: v1.Config{Env: []string{path, "LANG=C.UTF-8", "PYTHON_VERSION=3.12.6"}, Cmd: []string{"python3"}}, Files: clean},
	{Name: "golang:1.23", Config: v1.Config{Env: []string{"PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"GOLANG_VERSION=1.23", "GOTOOLCHAIN=local", "GOPATH=/go"}, WorkingDir: "/go", Cmd: []string{"bash"}}, Files: and(clean, map[string]string{"/go/src/": "", "/go/bin/": ""})},
	{Name: "golang:1.23-alpine", Config: v1.Config{Env: []string{"PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"GOLANG_VERSION=1.23", "GOTOOLCHAIN=local", "GOPATH=/go"}, WorkingDir: "/go"}, Files: map[string]string{"/go/src/": "", "/go/bin/": ""}},
	{Name: "rust:1", Config: v1.Config{Env: []string{"PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"RUSTUP_HOME=/usr/local/rustup", "CARGO_HOME=/usr/local/cargo", "RUST_VERSION=1.82.0"}, Cmd: []string{"bash"}},
		Files: and(clean, map[string]string{"/usr/local/cargo/bin/": ""})},
	{Name: "ruby:3.3", Config: v1.Config{Env: []string{path, "LANG=C.UTF-8", "RUBY_VERSION=3.3.5", "GEM_HOME=/usr/local/bundle", "BUNDLE_SILENCE_ROOT_WARNING=1",
		"BUNDLE_APP_CONFIG=/usr/local/bundle"}, Cmd: []string{"irb"}}, Files: and(clean, map[string]string{"/usr/local/bundle/": ""})},
	{Name: "php:8", Config: v1.Config{Env: []string{path, "PHP_VERSION=8.3"}, Entrypoint: []string{"docker-php-entrypoint"}, Cmd: []string{"php", "-a"}}, Files: clean},
	{Name: "composer:2", Config: v1.Config{Env: []string{path, "COMPOSER_ALLOW_SUPERUSER=1", "COMPOSER_HOME=/tmp", "COMPOSER_CACHE_DIR=/tmp/cache"}, WorkingDir: "/app",
		Cmd: []string{"composer"}}},
	{Name: "maven:3", Config: v1.Config{Env: []string{path, "JAVA_HOME=/opt/java", "MAVEN_HOME=/usr/share/maven", "MAVEN_CONFIG=/root/.m2"}, Cmd: []string{"mvn"}}},
	{Name: "gradle:8", Config: v1.Config{Env: []string{path, "JAVA_HOME=/opt/java", "GRADLE_HOME=/opt/gradle"}, WorkingDir: "/home/gradle", Cmd: []string{"gradle"}}},
	{Name: "mcr.microsoft.com/dotnet/sdk:8.0", Config: v1.Config{Env: []string{path, "DOTNET_VERSION=8.0.10", "NUGET_XMLDOC_MODE=skip"}, Cmd: []string{"bash"}}, Files: clean},
	{Name: "mcr.microsoft.com/dotnet/aspnet:8.0", Config: v1.Config{Env: []string{path, "DOTNET_VERSION=8.0.10"}, Cmd: []string{"bash"}}, Files: clean},

	{Name: "test/cleans", Config: v1.Config{Cmd: []string{"bash"}}, Files: map[string]string{"/etc/apt/apt.conf.d/docker-clean": dockerClean}},
	{Name: "test/keeps", Config: v1.Config{Cmd: []string{"bash"}}}, // Debian without docker-clean
	{Name: "test/lists", Config: v1.Config{}, Files: map[string]string{"/var/lib/apt/lists/deb.debian.org_Packages": "old\n", "/var/cache/apt/archives/curl_1_all.deb": "curl of the base\n"}},
	{Name: "test/user", Config: v1.Config{User: "1000:1000", Env: []string{path, "HOME=/home/app"}, WorkingDir: "/home/app"},
		Files: map[string]string{"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n", "/etc/group": "root:x:0:\napp:x:1000:\n", "/home/app/": "1000"}},
	{Name: "test/env", Config: v1.Config{Env: []string{path, "npm_config_cache=/var/npm", "PIP_CACHE_DIR=/var/pip", "GOCACHE=/var/go", "GREETING=hello", "CGO_ENABLED=0"}}},
	{Name: "test/onbuild", Config: v1.Config{OnBuild: []string{"COPY package.json /onbuild/", "RUN echo triggered > /triggered"}}},
	{Name: "test/shell", Config: v1.Config{Shell: []string{"/bin/sh", "-o", "pipefail", "-c"}}},
	{Name: "test/workdir", Config: v1.Config{WorkingDir: "/srv/app"}, Files: map[string]string{"/srv/app/": ""}},
	{Name: "test/volume", Config: v1.Config{Volumes: map[string]struct{}{"/data": {}}}, Files: map[string]string{"/data/seed": "seed\n"}},
	{Name: "test/links", Config: v1.Config{}, Files: map[string]string{"/srv/real/file": "in the base\n", "/srv/link@": "real", "/opt@": "srv/real", "/srv/file": "old\n"}},
	{Name: "test/labels", Config: v1.Config{Labels: map[string]string{"a": "base", "version": "0"}, Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "true"}}}},
}
