package frontend

import (
	"encoding/json"
	"fmt"

	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/optbuild/optbuild/frontend/explain"
	"github.com/optbuild/optbuild/frontend/plan"
)

// ReportKey is where a build's Report stands, as JSON, in the result's metadata and in the solve response.
const ReportKey = "frontend.optbuild.report"

// reportLimit is the size of a report in bytes that the response of a solve has room for: one message of at most 16 MB.
const reportLimit = 2 << 20

// Report is what the compiler tells of one build.
type Report struct {
	Version int               // 1
	Account *explain.Account  `json:",omitempty"` // nil if the Dockerfile was not read, or not by this package
	Steps   map[string]Vertex // of the LLB, by digest
	Aside   string            `json:",omitempty"` // why the optimiser stood aside, "" if it did not
	Broken  string            `json:",omitempty"` // what was wrong with the rewritten Dockerfile, if the build went on with the user's
}

// Vertex says what a vertex of the LLB was made of.
type Vertex struct {
	Step   int        // ID of a step of the account's last version, 0 if it is of none
	Lines  plan.Lines // of the user's file
	Record string     `json:",omitempty"` // how the engine describes what a RUN leaves in its cache
	Images int        // of how many images it is a part: there is one for each platform
}

// ReadReport finds the report in a solve response; nil if there is none.
func ReadReport(response map[string]string) (*Report, error) {
	text, ok := response[ReportKey]
	if !ok {
		return nil, nil
	}
	r := &Report{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		return nil, fmt.Errorf("read the compiler's report: %w", err)
	}
	return r, nil
}

func (r *Report) attach(res *client.Result) error {
	if r.Account != nil {
		r.Account.Aside = r.Aside
		if r.Account.Error == "" { // else it names the pass
			r.Account.Error = r.Broken
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the compiler's report: %w", err)
	}
	if len(b) > reportLimit { // the Dockerfile is huge: without an account of it, the message is small
		small := *r
		small.Account = nil
		return small.attach(res)
	}
	res.AddMeta(ReportKey, b)
	return nil
}
