package world

import (
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/optbuild/optbuild/frontend/plan"
)

// defaultPath is the PATH of images that set none of their own.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// official is what is known by heart of the tags of an image.
//
// An entry of env without "=" is a variable that the image sets to a value that differs between tags. User and directory are what the image's
// Dockerfile ends with. All of it was taken from the images' own Dockerfiles, and only what is the same for all of their Linux tags but for those
// that a variant names, is here.
type official struct {
	env      string // separated by blanks
	user     string
	dir      string
	demotes  bool // its entrypoint starts as root on purpose and changes to a user of its own
	variants []variant
}

// variant is what tags that match have otherwise.
type variant struct {
	tag       *regexp.Regexp
	user, dir string
	unknown   bool // nothing is known of them
}

const (
	java      = "JAVA_HOME JAVA_VERSION PATH LANG LANGUAGE LC_ALL"
	dotnet    = "PATH=" + defaultPath + " APP_UID ASPNETCORE_HTTP_PORTS ASPNETCORE_URLS DOTNET_RUNNING_IN_CONTAINER DOTNET_VERSION DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"
	phpEnv    = "PATH=" + defaultPath + " PHPIZE_DEPS PHP_INI_DIR=/usr/local/etc/php PHP_CFLAGS PHP_CPPFLAGS PHP_LDFLAGS GPG_KEYS PHP_VERSION PHP_URL PHP_ASC_URL PHP_SHA256 PHP_MD5 PHP_EXTRA_CONFIGURE_ARGS PHP_EXTRA_BUILD_DEPS APACHE_CONFDIR APACHE_ENVVARS"
	plainPath = "PATH=" + defaultPath
)

var (
	chiseled = []variant{
		{tag: regexp.MustCompile(`chiseled|distroless`), unknown: true}, // the user was another one before .NET 8
		{tag: regexp.MustCompile(`^([89]|1[0-9])\.[0-9]+.*-chiseled`), user: "1654"},
	}
	nonroot = []variant{{tag: regexp.MustCompile(`^(debug-)?nonroot(-|$)`), user: "65532", dir: "/home/nonroot"}}
)

// officials are the images, by name without docker.io/library/.
var officials = map[string]official{
	"debian":          {env: plainPath},
	"ubuntu":          {env: plainPath},
	"alpine":          {env: plainPath},
	"busybox":         {env: plainPath},
	"node":            {env: plainPath + " NODE_VERSION YARN_VERSION"},
	"python":          {env: "PATH=/usr/local/bin:" + defaultPath + " LANG PYTHON_VERSION PYTHON_SHA256 GPG_KEY PYTHON_PIP_VERSION PYTHON_SETUPTOOLS_VERSION PYTHON_GET_PIP_URL PYTHON_GET_PIP_SHA256"},
	"golang":          {env: "PATH=/go/bin:/usr/local/go/bin:" + defaultPath + " GOLANG_VERSION GOTOOLCHAIN GOPATH=/go", dir: "/go"},
	"rust":            {env: "PATH=/usr/local/cargo/bin:" + defaultPath + " RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo RUST_VERSION"},
	"ruby":            {env: "PATH=/usr/local/bundle/bin:" + defaultPath + " LANG RUBY_MAJOR RUBY_VERSION RUBY_DOWNLOAD_URL RUBY_DOWNLOAD_SHA256 GEM_HOME=/usr/local/bundle BUNDLE_SILENCE_ROOT_WARNING BUNDLE_APP_CONFIG=/usr/local/bundle"},
	"php":             {env: phpEnv, variants: []variant{{tag: regexp.MustCompile(`apache|fpm`), dir: "/var/www/html"}}},
	"composer":        {env: phpEnv + " COMPOSER_ALLOW_SUPERUSER COMPOSER_HOME=/tmp COMPOSER_MIRROR_PATH_REPOS COMPOSER_VERSION", dir: "/app"},
	"openjdk":         {env: java},
	"eclipse-temurin": {env: java},
	"maven":           {env: java + " MAVEN_HOME MAVEN_VERSION MAVEN_CONFIG USER_HOME_DIR"},
	"gradle":          {env: java + " GRADLE_HOME=/opt/gradle GRADLE_VERSION GRAALVM_HOME JAVA17_HOME JAVA21_HOME JAVA25_HOME", user: "root", dir: "/home/gradle"},
	"nginx":           {env: plainPath + " NGINX_VERSION NJS_VERSION NJS_RELEASE PKG_RELEASE DYNPKG_RELEASE ACME_VERSION OTEL_VERSION", demotes: true},
	"httpd":           {env: "PATH=/usr/local/apache2/bin:" + defaultPath + " HTTPD_PREFIX=/usr/local/apache2 HTTPD_VERSION HTTPD_SHA256 HTTPD_PATCHES", dir: "/usr/local/apache2", demotes: true},
	"redis":           {env: plainPath + " GOSU_VERSION REDIS_VERSION REDIS_DOWNLOAD_URL REDIS_DOWNLOAD_SHA", dir: "/data", demotes: true},
	"postgres":        {env: "PATH GOSU_VERSION LANG PG_MAJOR PG_VERSION PG_SHA256 PGDATA DOCKER_PG_LLVM_DEPS", demotes: true},

	"mcr.microsoft.com/dotnet/sdk":          {env: dotnet + " ASPNET_VERSION DOTNET_SDK_VERSION DOTNET_GENERATE_ASPNET_CERTIFICATE DOTNET_NOLOGO DOTNET_USE_POLLING_FILE_WATCHER NUGET_XMLDOC_MODE POWERSHELL_DISTRIBUTION_CHANNEL"},
	"mcr.microsoft.com/dotnet/aspnet":       {env: dotnet + " ASPNET_VERSION", variants: chiseled},
	"mcr.microsoft.com/dotnet/runtime":      {env: dotnet, variants: chiseled},
	"mcr.microsoft.com/dotnet/runtime-deps": {env: dotnet, variants: chiseled},

	"gcr.io/distroless/static": {env: plainPath + " SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", user: "0", dir: "/", variants: nonroot},
	"gcr.io/distroless/base":   {env: plainPath + " SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", user: "0", dir: "/", variants: nonroot},
	"gcr.io/distroless/cc":     {env: plainPath + " SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", user: "0", dir: "/", variants: nonroot},
}

var (
	// foreign are tags of which nothing is known here: Windows, and the images with triggers of years ago.
	foreign = regexp.MustCompile(`windows|nanoserver|onbuild`)
	// release is the distroless images' Debian, which is part of their name.
	release = regexp.MustCompile(`-debian[0-9]+$`)
	// mirrors hold copies of Docker Hub's official images.
	mirrors = []string{"docker.io/library/", "public.ecr.aws/docker/library/", "mirror.gcr.io/library/"}
)

// Official is what is known by heart of an official image, by the name that FROM has for it.
func Official(name string) (plan.Image, bool) {
	o, tag, ok := find(name)
	if !ok {
		return plan.Image{}, false
	}
	img := plan.Image{Env: slices.Clone(strings.Fields(o.env)), User: o.user, WorkingDir: o.dir, Assumed: true}
	for _, v := range o.variants {
		if v.tag.MatchString(tag) {
			img.User, img.WorkingDir, ok = v.user, v.dir, !v.unknown
		}
	}
	return img, ok
}

// Demotes reports whether the image is known to start as root on purpose: its entrypoint, or its server, changes to a user of its own.
func Demotes(name string) bool {
	o, _, ok := find(name)
	return ok && o.demotes
}

func find(name string) (o official, tag string, ok bool) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return o, "", false
	}
	if t, ok := ref.(reference.Tagged); ok {
		tag = t.Tag()
	}
	if foreign.MatchString(tag) {
		return o, "", false
	}
	key := ref.Name()
	for _, m := range mirrors {
		key = strings.TrimPrefix(key, m)
	}
	if strings.HasPrefix(key, "gcr.io/distroless/") {
		key = release.ReplaceAllString(key, "")
	}
	o, ok = officials[key]
	if _, digest := ref.(reference.Digested); digest && tag == "" && len(o.variants) > 0 {
		ok = false // it may be any of them
	}
	return o, tag, ok
}
