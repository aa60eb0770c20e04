package installer

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

var phpInstallers = []installer{{
	name:      "composer install",
	matcher:   composerInstall,
	looks:     []string{"composer.json", "composer.lock", "auth.json", "vendor", ".git", ".hg", ".svn", ".env", "patches", "symfony.lock"},
	variables: []string{"COMPOSER_*", "PHP_*", "!COMPOSER_ALLOW_SUPERUSER", "!COMPOSER_AUTH", "!COMPOSER_MEMORY_LIMIT", "!COMPOSER_VERSION", "!PHP_VERSION", "!PHP_INI_DIR", "!PHP_CFLAGS", "!PHP_CPPFLAGS", "!PHP_LDFLAGS", "!PHP_URL", "!PHP_ASC_URL", "!PHP_SHA256", "!PHP_EXTRA_CONFIGURE_ARGS", "!PHP_EXTRA_BUILD_DEPS"},
	examine:   composer,
}}

// composerInstall matches flags before the word install, as some write them.
func composerInstall(words []string) bool {
	if len(words) < 2 || words[0] != "composer" && words[0] != "composer.phar" {
		return false
	}
	for _, w := range words[1:] {
		if !strings.HasPrefix(w, "-") {
			return w == "install"
		}
	}
	return false
}

// composer without --no-scripts runs the project's code, without --no-autoloader it looks for classes in it, and plugins may do anything. It also asks
// version control for the project's own version, which ends up in vendor/composer/installed.php.
func composer(p *project) {
	flags, operands := p.flags(1, "--no-scripts --no-autoloader --no-dev --dev --prefer-dist --prefer-source --no-interaction -n --no-progress --no-suggest --ignore-platform-reqs --no-plugins --no-ansi --ansi -q --quiet -v "+
		"--no-cache --no-security-blocking --audit", "--ignore-platform-req --prefer-install")
	if len(operands) != 1 {
		p.refuse("unknown-argument", "composer install takes no operands")
	}
	if !has(flags, "--no-scripts") {
		p.refuse("lifecycle-script", "it runs the scripts of composer.json; with --no-scripts it would not")
	}
	if !has(flags, "--no-autoloader") {
		p.refuse("autoloader", "it looks for classes in the sources; with --no-autoloader, and composer dump-autoload after it, it would not")
	}
	data := p.need("composer.json")
	if data == nil {
		return
	}
	var m struct {
		Version      string
		Repositories json.RawMessage
		Config       map[string]any
		Extra        map[string]any
		Bin          any
	}
	if err := json.Unmarshal(data, &m); err != nil {
		p.refuse("manifest-syntax", "composer.json does not parse: %v", err)
	}
	for _, kind := range []string{`"path"`, `"artifact"`} {
		if bytes.Contains(m.Repositories, []byte(kind)) {
			p.refuse("local-dependency", "composer.json has a repository of type %s", strings.Trim(kind, `"`))
		}
	}
	for _, key := range []string{"vendor-dir", "bin-dir", "data-dir", "cache-dir", "cafile", "capath"} {
		if m.Config[key] != nil {
			p.refuse("composer-config", "composer.json sets %s", key)
		}
	}
	lock := p.read("composer.lock")
	if !has(flags, "--no-plugins") {
		plugins, _ := m.Config["allow-plugins"].(map[string]any)
		for _, name := range sortedKeys(plugins) {
			if plugins[name] == true {
				p.refuse("plugins", "composer.json allows the plugin %s, which may read any file; with --no-plugins it would not run", name)
			}
		}
		if m.Config["allow-plugins"] == true || bytes.Contains(lock, []byte(`"composer-plugin"`)) || lock == nil {
			p.refuse("plugins", "plugins may run, which may read any file; with --no-plugins they would not")
		}
	}
	p.add("auth.json", "symfony.lock")
	if m.Version == "" {
		p.absent("version-control", "tells composer the version of the project; name it in .dockerignore", ".git", ".hg", ".svn")
		for _, dir := range p.above() {
			p.absent("version-control", "tells composer the version of the project; name it in .dockerignore", dir+"/.git")
		}
	}
	if slices.Contains(sortedKeys(m.Extra), "patches") {
		p.refuse("patch", "packages are patched with files of the project")
	}
	p.makes("vendor")
}
