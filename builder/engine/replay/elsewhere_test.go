package replay

import (
	"testing"
)

// A portable key names layers by what they mean everywhere; what has no such name has no key.
func TestPortableKey(t *testing.T) {
	parts := []carried{{name: "exec", value: "sha256:1"}, {name: "a COPY", value: "watched"}, {name: "a RUN", depth: 2}, {name: "base", depth: 3}}
	nobody := func(string) string { return "" }
	key := func(parts []carried, chains []string, id func(string) string) string {
		sum, ok := portableKey(parts, chains, id)
		if !ok {
			return ""
		}
		return string(sum[:])
	}
	plain := key(parts, []string{"top", "run", "base"}, nobody)
	if plain == "" {
		t.Fatal("there is no key")
	}
	if key(parts, []string{"another", "run", "base"}, nobody) != plain {
		t.Error("the chain of a watched layer is in the key")
	}
	for name, other := range map[string]string{
		"another base":                 key(parts, []string{"top", "run", "base2"}, nobody),
		"another RUN":                  key(parts, []string{"top", "run2", "base"}, nobody),
		"a stored layer":               key(parts, []string{"top", "run", "base"}, func(c string) string { return map[string]string{"run": "id"}[c] }),
		"nothing for a base":           key(parts, []string{"top", "run"}, nobody),
		"another command":              key(append([]carried{{name: "exec", value: "sha256:2"}}, parts[1:]...), []string{"top", "run", "base"}, nobody),
		"the COPY watched, or a value": key(append([]carried{parts[0], {name: "a COPY", value: "files 00"}}, parts[2:]...), []string{"top", "run", "base"}, nobody),
	} {
		if other == plain || other == "" {
			t.Errorf("%s: the key is %x", name, other)
		}
	}
	stored := func(c string) string { return map[string]string{"run": "id", "run of another build": "id"}[c] }
	if key(parts, []string{"top", "run", "base"}, stored) != key(parts, []string{"top", "run of another build", "base"}, stored) {
		t.Error("a stored layer has two names")
	}
	if key(parts, []string{"top", "", "base"}, nobody) != "" {
		t.Error("a layer without a chain id has a name")
	}
	if key(nil, nil, nobody) != "" {
		t.Error("nothing has a key")
	}
}
