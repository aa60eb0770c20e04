package registry

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/distribution/reference"
)

// Explain says in a sentence what an error about a registry means, and what can be done about it; both are "" for an error
// that is not about a registry.
//
// It works on text, because that is all that is left of an error that has come out of the engine over gRPC: BuildKit has no
// typed detail for containerd's registry errors. The registry's own words are in the text (see readableErrors), and so is
// the reference or the address.
func Explain(err error) (message, hint string) {
	if err == nil {
		return "", ""
	}
	e, ok := parse(err.Error())
	if !ok || strings.Contains(e.text, "did not complete successfully") { // a step's command is in the text
		return "", ""
	}
	if strings.HasPrefix(e.reason, "/") { // a FileError
		return e.subject() + e.reason, "correct this file: it says how registries are talked to"
	}
	for _, r := range rules {
		if m := r.match().FindStringSubmatch(e.text); m != nil {
			message, hint = r.explain(e, m)
			return e.subject() + message, hint
		}
	}
	if e.verb == "push" {
		return e.subject() + "registry " + e.host + " says: " + e.reason, pushAgain
	}
	return "", ""
}

const pushAgain = "nothing that was built is lost: the same command, given again, has only the push left to do"

// problem is the text of an error about a registry.
type problem struct {
	text   string
	verb   string // "push", "pull" or ""
	ref    string // what was pushed or pulled, or ""
	host   string // as people write it: "docker.io", not "registry-1.docker.io"
	reason string // the text without what is said in the other fields
}

var (
	pushed    = lazily(`\b(?:failed to )?push (\S+): `)
	pulled    = lazily(`\b(?:failed to resolve source metadata for|pull) (\S+): `)
	addressed = lazily(`(?:fetch token for|(?:get|store|remove) credentials for|log in to) (\S+): `)
	requested = lazily(`(?:[Rr]equest to |failed to do request: [A-Z][a-z]+ "|(?:Head|Get|Post|Put|Patch) ")(https?://[^\s"]+)`)
	// wrapping is what BuildKit and containerd put before the reason.
	wrapping = lazily(`^(?:resolve: |failed to do request: |failed to authorize: |failed to fetch (?:oauth|anonymous) token: |(?:Head|Get|Post|Put|Patch) "[^"]*": )+`)
	// suggestion is BuildKit's, for names of stages and of well-known images; it is wide of the mark unless a name is unknown.
	suggestion = lazily(` \(did you mean \S+\?\)`)
)

// parse finds out which registry a text is about, and false when it is about none.
func parse(text string) (e problem, ok bool) {
	e.text, e.reason = text, text
	if m := pushed().FindStringSubmatchIndex(text); m != nil {
		e.verb, e.ref, e.reason = "push", text[m[2]:m[3]], text[m[1]:]
	} else if m := pulled().FindStringSubmatchIndex(text); m != nil {
		e.verb, e.ref, e.reason = "pull", text[m[2]:m[3]], text[m[1]:]
	}
	named, err := reference.ParseNormalizedNamed(e.ref)
	if err == nil {
		e.host = reference.Domain(named)
	}
	if m := addressed().FindStringSubmatchIndex(text); m != nil && e.host == "" {
		e.host, e.reason = text[m[2]:m[3]], text[m[1]:]
	}
	if m := requested().FindStringSubmatch(text); m != nil && e.host == "" {
		u, err := url.Parse(m[1])
		if err != nil {
			return e, false
		}
		e.host = Host(u.Host)
	}
	e.reason = wrapping().ReplaceAllString(e.reason, "")
	e.reason = strings.TrimPrefix(e.reason, e.ref+": ")
	e.reason = strings.Join(strings.FieldsFunc(e.reason, func(r rune) bool { return r == '\n' }), ": ")
	if !notFound().MatchString(text) {
		e.reason = suggestion().ReplaceAllString(e.reason, "")
	}
	return e, e.host != ""
}

func (e problem) subject() string {
	if e.verb == "" || e.ref == "" {
		return ""
	}
	return e.verb + " " + e.ref + ": "
}

var notFound = lazily(`: not found\b|\bmanifest unknown\b|\bname unknown\b|404 Not Found`)

// rules are tried in order: what the connection says comes before what the registry says, and the precise before the vague.
var rules = []struct {
	match   func() *regexp.Regexp
	explain func(e problem, m []string) (message, hint string)
}{
	{lazily(`exec: "(docker-credential-\S+)": executable file not found`), func(e problem, m []string) (string, string) {
		return fmt.Sprintf("get credentials for %s: %s is not installed", e.host, m[1]),
			"install it, or take its name (\"credsStore\", \"credHelpers\") out of docker's config.json and log in again: " + login(e.host)
	}},
	{lazily(`x509: certificate has expired or is not yet valid[^\n]*`), func(e problem, m []string) (string, string) {
		return "registry " + e.host + ": " + m[0], "have the registry's certificate renewed, or check this machine's clock"
	}},
	{lazily(`x509: (?:certificate is valid for|cannot validate certificate for)[^\n]*`), func(e problem, m []string) (string, string) {
		return "registry " + e.host + ": " + m[0], "use a name that the registry's certificate is for, or do without the check: --insecure-registry " + e.host
	}},
	{lazily(`x509: [^\n]*`), func(e problem, m []string) (string, string) {
		return "registry " + e.host + ": its certificate is not trusted: " + m[0], fmt.Sprintf(
			"put the certificate of its authority into ~/.docker/certs.d/%[1]s/ca.crt or /etc/docker/certs.d/%[1]s/ca.crt,\nor do without the check: --insecure-registry %[1]s", e.host)
	}},
	{lazily(`server gave HTTP response to HTTPS client`), func(e problem, m []string) (string, string) {
		return "registry " + e.host + " speaks plain http", "if that is as it should be: --insecure-registry " + e.host
	}},
	{lazily(`proxyconnect tcp: ([^\n]*)`), func(e problem, m []string) (string, string) {
		return "registry " + e.host + ": the proxy can't be reached: " + m[1], "check HTTPS_PROXY and HTTP_PROXY; NO_PROXY=" + e.host + " goes around it"
	}},
	{lazily(`dial tcp (\S+): connect: connection refused`), func(e problem, m []string) (string, string) {
		return fmt.Sprintf("registry %s: nothing listens at %s (connection refused)", e.host, m[1]), "check the name and the port, and that the registry is running"
	}},
	{lazily(`lookup (\S+?)(?: on \S+)?: no such host`), func(e problem, m []string) (string, string) {
		return fmt.Sprintf("registry %s: no such host: %s", e.host, m[1]), "check the spelling and this machine's DNS; behind a proxy, set HTTPS_PROXY"
	}},
	{lazily(`no route to host|network is unreachable|i/o timeout|TLS handshake timeout|server misbehaving|context deadline exceeded|connection reset by peer`), func(e problem, m []string) (string, string) {
		return "registry " + e.host + " can't be reached: " + m[0], "check the network and that the registry is running; behind a proxy, set HTTPS_PROXY"
	}},
	{lazily(`(?i)toomanyrequests|too ?many ?requests`), func(e problem, m []string) (string, string) {
		return "registry " + e.host + ": too many requests: " + e.reason, "wait, or raise the limit by logging in: " + login(e.host)
	}},
	{lazily(`401 Unauthorized|\bunauthorized\b|(?:pull|push) access denied|authorization failed|no basic auth credentials|missing username or secret|fetch token for|failed to fetch oauth token|(?i:incorrect username or password)`), func(e problem, m []string) (string, string) {
		return "registry " + e.host + ": unauthorized: " + e.reason,
			"log in: " + login(e.host) + "\n(some registries answer the same when the repository does not exist)"
	}},
	{lazily(`403 Forbidden|\bdenied: `), func(e problem, m []string) (string, string) {
		hint := "log in as a user who may do this: " + login(e.host)
		if e.verb == "push" {
			hint += "\n" + pushAgain
		}
		return "registry " + e.host + " says: " + e.reason, hint
	}},
	{lazily(`5\d\d (?:Internal Server Error|Bad Gateway|Service Unavailable|Gateway Timeout)|\bunavailable: `), func(e problem, m []string) (string, string) {
		hint := "the registry has a problem of its own: try again later"
		if e.verb == "push" {
			hint += "; " + pushAgain
		}
		return "registry " + e.host + " says: " + e.reason, hint
	}},
	{notFound, func(e problem, m []string) (string, string) {
		hint := "check the spelling of the name and the tag; if the repository is private, log in: " + login(e.host)
		if e.host == hub {
			hint = "a name without a registry is one of Docker Hub: write HOST/NAME for another registry\n" + hint
		}
		message := "registry " + e.host + " has no such image"
		if e.reason != "not found" {
			message += ": " + e.reason
		}
		return message, hint
	}},
}

func login(host string) string {
	if host == hub {
		return "optbuild login"
	}
	return "optbuild login " + host
}

// lazily compiles a pattern when it is first asked for: most commands have no use for it, and every one would pay, the engine's process too.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
