package diagnose

import (
	"regexp"
	"strings"
	"sync"
)

// noise is what BuildKit's layers put in front of the fact.
var noise = lazily(`^(?:failed to solve: |failed to read downloaded context: |failed to read dockerfile: failed to load cache key: |failed to compute cache key: |failed to load cache key: |failed to process "[^"]*": |failed to parse stage name "[^"]*": |dockerfile\.v0: |rpc error: code = \w+ desc = |Unknown: |NotFound: |Unavailable: )`)

var (
	exited   = lazily(`(?s)process ".*" did not complete successfully: (.*)`)
	resolved = lazily(`^\S+: failed to resolve source metadata for (\S+): `)
	git      = lazily(`(?s)git stderr:\s*(.*?)\s*: exit status \d+`)
	rpc      = lazily(`rpc error: code = \w+ desc = `)
	code     = lazily(`^exit code: (\d+)`)
)

// Clean takes out of an error's text what tells about the engine and not about the build.
func Clean(text string) string {
	text = strings.TrimSpace(text)
	for {
		m := noise().FindString(text)
		if m == "" {
			break
		}
		text = text[len(m):]
	}
	text = rpc().ReplaceAllString(text, "")
	text = git().ReplaceAllString(text, "$1")
	if m := exited().FindStringSubmatch(text); m != nil {
		text = code().ReplaceAllString(m[1], "exit code $1")
	}
	if m := resolved().FindStringSubmatch(text); m != nil {
		name := m[1]
		text = strings.TrimPrefix(text[len(m[0]):], name+": ")
		text = name + ": " + strings.TrimPrefix(text, "failed to do request: ")
	}
	return text
}

var parsing = lazily(`^dockerfile parse error on line \d+: `)

// trimParseError takes the position out of a parser's message; false if it is none.
func trimParseError(text string) (string, bool) {
	m := parsing().FindString(text)
	return text[len(m):], m != ""
}

// trimRepeated takes out of a message a name in front that the instruction has said already.
func trimRepeated(text, instruction string) string {
	name, rest, ok := strings.Cut(text, ": ")
	if !ok || strings.ContainsAny(name, " \t") {
		return text
	}
	for _, word := range strings.Fields(instruction) {
		if word == name || strings.HasSuffix(word, "="+name) {
			return rest
		}
	}
	return text
}

// lazily compiles a pattern when it is first asked for: most commands have no use for it, and every one would pay, the engine's process too.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
