package compress

import (
	"encoding/json"
	"strconv"
)

// AttrExport is a frontend's attribute that says, of a build whose result leaves as an image, with which attributes its exporter is called. The engine then makes layers
// while steps run. Frontends do nothing with it.
const AttrExport = "optbuild-export"

// FormatExport returns the value of AttrExport: those of the exporter's attributes that layers depend on, and of a push where they go.
func FormatExport(attrs map[string]string) (string, error) {
	some := map[string]string{}
	keys := []string{"compression", "compression-level", "force-compression", "optbuild-squash", "optbuild-strip", "optbuild-kept", "optbuild-prioritized", AttrChunked}
	// With other times all layers become others in the end.
	if is(attrs["push"]) && !is(attrs["rewrite-timestamp"]) {
		keys = append(keys, "push", "name", "registry.insecure")
	}
	for _, k := range keys {
		if v, ok := attrs[k]; ok {
			some[k] = v
		}
	}
	b, err := json.Marshal(some)
	return string(b), err
}

// ParseExport reads AttrExport; ok is false if it is not among a frontend's attributes, or not as it should be.
func ParseExport(opts map[string]string) (attrs map[string]string, ok bool) {
	v, ok := opts[AttrExport]
	if !ok || json.Unmarshal([]byte(v), &attrs) != nil {
		return nil, false
	}
	return attrs, true
}

func is(value string) bool {
	on, err := strconv.ParseBool(value)
	return err == nil && on
}
