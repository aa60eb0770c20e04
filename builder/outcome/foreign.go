package outcome

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// AttrStrict is the attribute of an export that makes an image with a program of another platform an error.
const AttrStrict = "optbuild.strict"

// ForeignKey is where a list of ForeignPrograms stands, as JSON in base64, in the response of a solve.
const ForeignKey = "optbuild.foreign"

// ForeignProgram is a program that an image starts and that its platform can't run; or, if Paths are there, some that a step of it made.
type ForeignProgram struct {
	Platform     string   `json:"platform"` // the image's
	Path         string   `json:"path,omitempty"`
	Architecture string   `json:"architecture"` // the program's
	Paths        []string `json:"paths,omitempty"`
	More         int      `json:"more,omitempty"` // how many there are besides Paths
	Step         string   `json:"step,omitempty"` // the instruction; "" if it is not known
}

func (f ForeignProgram) String() string {
	if len(f.Paths) > 0 {
		text := fmt.Sprintf("the image for %s has programs for %s: %s", f.Platform, f.Architecture, strings.Join(f.Paths, ", "))
		if f.More > 0 {
			text += fmt.Sprintf(" and %d more", f.More)
		}
		if f.Step != "" {
			text += ", made by " + f.Step
		}
		return text
	}
	return fmt.Sprintf("the image for %s starts %s, which is a program for %s", f.Platform, f.Path, f.Architecture)
}

// ReadForeign finds them in a solve's response.
func ReadForeign(response map[string]string) (list []ForeignProgram) {
	b, err := base64.StdEncoding.DecodeString(response[ForeignKey])
	if err != nil || json.Unmarshal(b, &list) != nil {
		return nil
	}
	return list
}
