package frontend

import (
	"encoding/json"
	"fmt"

	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/optbuild/optbuild/frontend/opt"
	"github.com/optbuild/optbuild/frontend/plan"
)

// ReportKey is where a build's Report stands, as JSON, in the result's metadata and in the solve response.
const ReportKey = "frontend.optbuild.report"

// Report is what the compiler tells of one build.
type Report struct {
	Version int // 1
	Level   opt.Level
	File    string // the Dockerfile's name
	Source  string // the user's Dockerfile
	Passes  []PassText
	Remarks []opt.Remark
	Steps   map[string]plan.Lines // the user's lines of each vertex of the LLB, by digest
	Aside   string                // why the optimiser stood aside, "" if it did not
	Broken  string                // what was wrong with the rewritten Dockerfile, if the build went on with the user's
}

// PassText is the Dockerfile after a pass that changed it.
type PassText struct{ Pass, Text string }

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
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the compiler's report: %w", err)
	}
	res.AddMeta(ReportKey, b)
	return nil
}
