package profile

import (
	"encoding/json"
	"fmt"
)

// AttrPrioritized is the attribute of an image's output with what [Profile.Prioritized] returns, for outputs whose layers are eStargz. BuildKit's exporters don't know it: it is taken out before they see it.
const AttrPrioritized = "optbuild-prioritized"

// FormatPrioritized returns the attribute's value.
func FormatPrioritized(names []string) (string, error) {
	b, err := json.Marshal(names)
	if err != nil {
		return "", fmt.Errorf("write list of prioritized files: %w", err)
	}
	return string(b), nil
}

// TakePrioritized takes the attribute out of others, and returns the names; nil if there is none.
func TakePrioritized(attrs map[string]string) (names []string, err error) {
	v, ok := attrs[AttrPrioritized]
	if !ok {
		return nil, nil
	}
	delete(attrs, AttrPrioritized)
	if err := json.Unmarshal([]byte(v), &names); err != nil {
		return nil, fmt.Errorf("read list of prioritized files: %w", err)
	}
	return names, nil
}
