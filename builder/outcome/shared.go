package outcome

import (
	"encoding/json"
	"fmt"
	"strings"
)

// SharedKey is where the frontend says, in the result's metadata, what images have of stages that ran once for all platforms, as JSON: a list of SharedStage.
const SharedKey = "optbuild.shared"

// AttrSharedChecked is the frontend's attribute that says that images are looked through for what is at SharedKey. Whoever has no SharedCodeError must not say so.
const AttrSharedChecked = "share-checked"

// SharedStage is a stage that ran once, on the platform that builds, for the images of all platforms, though not all of what it ran is known.
type SharedStage struct {
	Stage  string   `json:"stage"`
	By     string   `json:"by"`     // "lock": a lock file says that nothing depends on the platform; "asked": the user does
	Copies []string `json:"copies"` // steps of the image that copy from it, as its history has them; "COPY" for one that is not known
}

// ReadShared reads what the frontend says.
func ReadShared(metadata []byte) (list []SharedStage, err error) {
	if len(metadata) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(metadata, &list); err != nil {
		return nil, fmt.Errorf("read which stages are shared: %w", err)
	}
	return list, nil
}

// Made reports whether a step of an image is one of the Copies.
func (s SharedStage) Made(step string) bool {
	for _, c := range s.Copies {
		if step == c || c == "COPY" && strings.HasPrefix(step, "COPY ") || step == "" {
			return true
		}
	}
	return false
}

// SharedCodeError is an image with machine code of a stage that ran once for all platforms.
type SharedCodeError struct {
	Program ForeignProgram
	Stage   SharedStage
}

func (e *SharedCodeError) Error() string {
	text := fmt.Sprintf("%s: stage %s ran once for all platforms, and what is copied from it is not the same for all", e.Program, e.Stage.Stage)
	if e.Stage.By == sharedByLock {
		return text + sharedCodeEnd
	}
	return text + ": build without --share-stage " + e.Stage.Stage
}

const sharedByLock = "lock"

// sharedCodeEnd is how the error of a stage ends that nobody asked to be shared. Errors reach commands as texts.
const sharedCodeEnd = ": build with --optimize-disable=share-stages"

// IsSharedCode reports whether an error is that of a stage that was shared because of its lock file: the build may be done again without.
func IsSharedCode(err error) bool {
	return err != nil && strings.HasSuffix(err.Error(), sharedCodeEnd)
}
