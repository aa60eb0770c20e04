package lint

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/optbuild/optbuild/frontend/plan"
)

// tokens are forms that a secret has and hardly anything else: the issuers gave them prefixes so that scanners find them.
var tokens = []struct {
	what string
	form func() *regexp.Regexp
}{
	{"an AWS access key", lazily(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`)},
	{"a GitHub token", lazily(`\b(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{60,})\b`)},
	{"a GitLab token", lazily(`\bglpat-[0-9A-Za-z_-]{20,}\b`)},
	{"a Slack token", lazily(`\bxox[abprs]-[0-9A-Za-z-]{20,}\b`)},
	{"a Stripe key", lazily(`\b[rs]k_live_[0-9A-Za-z]{20,}\b`)},
	{"a Google API key", lazily(`\bAIza[0-9A-Za-z_-]{35}\b`)},
	{"an npm token", lazily(`\bnpm_[0-9A-Za-z]{36}\b`)},
	{"a PyPI token", lazily(`\bpypi-AgEI[0-9A-Za-z_-]{50,}`)},
	{"a Docker Hub token", lazily(`\bdckr_pat_[0-9A-Za-z_-]{27}\b`)},
	{"a private key", lazily(`-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----`)},
	{"an npm registry's password", lazily(`:_(?:authToken|password)=["']?[0-9A-Za-z+/_=-]{8,}`)},
}

// address is a URL with a user and a password in it.
var address = lazily(`\b(?:git\+)?https?://([^/\s:@"'$]*):([^/\s:@"'${}<>]{4,})@`)

func secretValue(c *check) {
	look := func(s *plan.Step) {
		for _, t := range tokens {
			for _, found := range t.form().FindAllString(s.Text, -1) {
				c.report(s, found, secretFinding(t.what))
			}
		}
		for _, m := range address().FindAllStringSubmatch(s.Text, -1) {
			if !strings.EqualFold(m[1], m[2]) && !strings.EqualFold(m[2], "password") {
				c.report(s, m[0], secretFinding("an address with a password"))
			}
		}
	}
	for _, s := range c.p.Args {
		look(s)
	}
	c.everyStep(func(_ *plan.Stage, _ int, s *plan.Step) { look(s) })
}

func secretFinding(what string) Finding {
	return Finding{
		Message: "what looks like " + what + " is in the Dockerfile: the image, its history and the cache carry it",
		Remedy:  "withdraw it, and mount its successor for the step that needs it: RUN --mount=type=secret,id=…",
		secret:  true,
	}
}

// secretFiles are files that hold a secret, by base name in lower case: what they are, and, if the name alone does not say so, what is in them.
var secretFiles = []struct {
	names    []string // patterns
	what     string
	content  func() *regexp.Regexp // nil: the name is enough
	severity Severity
}{
	{[]string{"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"}, "an SSH key", nil, Error},
	{[]string{"*.p12", "*.pfx"}, "a key store", nil, Error},
	{[]string{"*.pem", "*.key", "*.ppk"}, "a private key", lazily(`PRIVATE KEY-----|PuTTY-User-Key-File`), Error},
	{[]string{".npmrc"}, "an npm token", lazily(`(?m)^[^#;\n]*_(?:authToken|password|auth)\s*=\s*[^$\s{][^\n]{7,}`), Error},
	{[]string{".pypirc", ".netrc", "_netrc"}, "a password", lazily(`(?m)^[^#;\n]*password\s*[:=\s]\s*[^$\s{]`), Error},
	{[]string{".git-credentials"}, "a git password", nil, Error},
	{[]string{".htpasswd"}, "hashed passwords", nil, Warning},
	{[]string{".env", ".env.*", "*.env"}, "passwords or tokens", lazily(`(?mi)^\s*(?:export\s+)?[A-Z0-9_]*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_KEY|CREDENTIALS?)[A-Z0-9_]*\s*=\s*["']?[^\s"'$<#]`), Warning},
	{[]string{"credentials"}, "AWS keys", lazily(`aws_secret_access_key\s*=\s*\S`), Error},
	{[]string{"config.json", ".dockercfg"}, "a registry's password", lazily(`"auth"\s*:\s*"[^"]+"`), Error},
	{[]string{"*service-account*.json", "*serviceaccount*.json", "*credentials*.json", "*adminsdk*.json", "*-key.json", "key.json"}, "a service account's key", lazily(`"private_key"\s*:\s*"-----BEGIN`), Error},
	{[]string{"kubeconfig", "config"}, "a cluster's credentials", lazily(`client-key-data:\s*\S|(?m)^\s+token:\s*\S`), Error},
}

// samples are files that show what a secret file looks like.
var samples = lazily(`(?i)(?:example|sample|template|dist|defaults?|schema|test)(?:\.|$)`)

// forTests are directories whose keys open nothing: those of tests and examples, and of installed packages.
var forTests = lazily(`(?i)(?:^|/)(?:[^/]*(?:test|fixture|example|sample|mock)[^/]*|node_modules|vendor|site-packages|docs?|spec)/`)

// mayBeSecret reports whether the name is that of a file with secrets, whatever is in it.
func mayBeSecret(name string) bool {
	for _, k := range secretFiles {
		if matchesBase(k.names, name) {
			return true
		}
	}
	return false
}

func matchesBase(patterns []string, name string) bool {
	base := strings.ToLower(path.Base(name))
	for _, p := range patterns {
		if ok, _ := path.Match(p, base); ok {
			return !samples().MatchString(base)
		}
	}
	return false
}

// secretIn tells what secret a file has; data is nil if that is not known.
func secretIn(name string, data []byte) (what string, severity Severity) {
	for _, k := range secretFiles {
		if matchesBase(k.names, name) && (k.content == nil || data != nil && k.content().Match(data)) {
			return k.what, k.severity
		}
	}
	return "", 0
}

func secretFile(c *check) {
	files := filesNamed(c.f.Context, mayBeSecret)
	for _, st := range c.p.Stages {
		for _, cc := range c.copies(st) {
			where := "the image"
			if !c.inTarget(st) {
				where = "the build cache"
			}
			seen := map[string]bool{}
			report := func(file string, text string, data []byte) {
				what, severity := secretIn(file, data)
				if what == "" || seen[file] {
					return
				}
				seen[file] = true
				if !c.inTarget(st) {
					severity = min(severity, Warning)
				}
				c.report(cc.step, text, Finding{
					Severity: severity,
					Message:  fmt.Sprintf("%s, with %s in it, is copied into %s", file, what, where),
					Remedy:   fmt.Sprintf("list it in .dockerignore; a step that needs it gets it by RUN --mount=type=secret,id=%s", strings.Trim(path.Base(file), ".")),
				})
			}
			for _, f := range files {
				if cc.takes(f) && (cc.names(f) || !forTests().MatchString(f)) {
					report(f, sourceOf(cc, f), c.f.Context.Paths[f].Data)
				}
			}
			for _, src := range cc.sources { // the context may not be known
				if p, known := c.f.Context.Lookup(src); !known || p.Exists {
					report(src, src, p.Data)
				}
			}
		}
	}
}

// sourceOf is how the step's text names a file that it takes, "" if it is by a directory above it.
func sourceOf(cc contextCopy, file string) string {
	for _, src := range cc.sources {
		if src == file {
			return src
		}
	}
	return ""
}

// lazily compiles a pattern when it is first asked for: most commands have no use for it, and every one would pay, the engine's process too.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
