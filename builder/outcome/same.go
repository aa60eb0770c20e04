package outcome

import (
	"encoding/base64"
	"encoding/json"
)

// CompareKey is where the frontend says, in the result's metadata, which stages could run once for all platforms if what images take of them is the same, as JSON: a list of ComparedStage.
const CompareKey = "optbuild.compare"

// SameKey is where the names of those of which it was stand, as JSON in base64, in the response of a solve.
const SameKey = "optbuild.same"

// ComparedStage is a stage that ran for each platform.
type ComparedStage struct {
	Stage  string   `json:"stage"`
	Copies []string `json:"copies"` // all that an image takes of it: steps of the image, as its history has them
}

// ReadCompared reads what the frontend says; nil for what can't be read.
func ReadCompared(metadata []byte) (list []ComparedStage) {
	if len(metadata) == 0 || json.Unmarshal(metadata, &list) != nil {
		return nil
	}
	return list
}

// SetSame puts the names into a solve's response.
func SetSame(response map[string]string, stages []string) {
	b, err := json.Marshal(stages)
	if err != nil {
		panic(err) // strings can be marshalled
	}
	response[SameKey] = base64.StdEncoding.EncodeToString(b)
}

// ReadSame finds them there.
func ReadSame(response map[string]string) (stages []string) {
	b, err := base64.StdEncoding.DecodeString(response[SameKey])
	if err != nil || json.Unmarshal(b, &stages) != nil {
		return nil
	}
	return stages
}
