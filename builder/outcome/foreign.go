package outcome

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// AttrStrict is the attribute of an export that makes an image with a program of another platform an error.
const AttrStrict = "optbuild.strict"

// ForeignKey is where a list of ForeignPrograms stands, as JSON in base64, in the response of a solve.
const ForeignKey = "optbuild.foreign"

// ForeignProgram is a program that an image starts, and that its platform can't run.
type ForeignProgram struct {
	Platform     string `json:"platform"` // the image's
	Path         string `json:"path"`
	Architecture string `json:"architecture"` // the program's
}

func (f ForeignProgram) String() string {
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
