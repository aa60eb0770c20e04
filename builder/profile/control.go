package profile

import (
	"slices"
	"strings"
	"time"
)

// A container of BuildKit's gateway is watched when its first process has a mark in its environment. A second "process" with the same mark is none: it tells the engine the
// conditions of the end as its only argument, in JSON, and its standard output is a stream of events, in JSON. Neither ends with an error: that would end the container, and with it the
// other one.

const markVariable = "OPTBUILD_PROFILE"

// Mark is the entry of an environment that asks for a container's files to be watched; token is a text that nobody else has.
func Mark(token string) string { return markVariable + "=" + token }

// TakeMark returns the token of a marked environment, "" if it has none, and the environment without it.
func TakeMark(env []string) (token string, rest []string) {
	rest = slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		value, ok := strings.CutPrefix(e, markVariable+"=")
		if ok {
			token = value
		}
		return ok
	})
	return token, rest
}

// Conditions are what the engine looks for while the program runs. The zero value looks for nothing.
type Conditions struct {
	// Port is a TCP port that the program listens on, in its own network; 0 for none.
	Port int `json:"port,omitempty"`
	// Health is a command that succeeds when the program is ready.
	Health *Health `json:"health,omitempty"`
}

// Health is a command that is run in the container again and again.
type Health struct {
	Args []string `json:"args"`
	// Timeout is for each run.
	Timeout time.Duration `json:"timeout"`
}

// Event is something that the engine tells. Exactly one field is set.
type Event struct {
	// Held is the condition that holds now, in words.
	Held string `json:"held,omitempty"`
	// Refused says why a condition can't be looked for.
	Refused string `json:"refused,omitempty"`
	// End is the last event.
	End *End `json:"end,omitempty"`
}

// End says that the program has ended.
type End struct {
	// Code is the program's exit code; -1 if it never ran.
	Code int `json:"code"`
	// Error says why it did not run, or why it is not known what it looked at.
	Error string `json:"error,omitempty"`
	// Layers is how many layers the files are in.
	Layers int    `json:"layers,omitempty"`
	Files  []File `json:"files,omitempty"`
}
