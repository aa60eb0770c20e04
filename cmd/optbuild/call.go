package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/subrequests"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/pb"

	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/frontend/explain"
)

// errFindings says that --check found something.
var errFindings = errors.New("the check has findings")

// printCall prints the frontend's answer to --call on w, the command's result.
func printCall(w io.Writer, s *request.Solve, answer map[string]string) error {
	result := []byte(answer["result.json"])
	if s.Call.JSON {
		if len(result) == 0 {
			return errors.New("the frontend gave no JSON result")
		}
		_, err := fmt.Fprintln(w, strings.TrimSpace(string(result)))
		if err == nil && !s.Call.IgnoreStatus && failedStatus(answer) {
			err = errFindings
		}
		return err
	}
	var err error
	switch s.Call.Method {
	case "outline":
		err = outline.PrintOutline(result, w)
	case "targets":
		err = targets.PrintTargets(result, w)
	case "subrequests.describe":
		err = subrequests.PrintDescribe(result, w)
	default:
		err = printLint(w, s, result)
	}
	if err == nil && !s.Call.IgnoreStatus && failedStatus(answer) {
		err = errFindings
	}
	return err
}

func failedStatus(answer map[string]string) bool {
	code := answer["result.statuscode"]
	return code != "" && code != "0"
}

func printLint(w io.Writer, s *request.Solve, result []byte) error {
	var r lint.LintResults
	if err := json.Unmarshal(result, &r); err != nil {
		return fmt.Errorf("read the frontend's findings: %w", err)
	}
	name := func(i *pb.SourceInfo) *pb.SourceInfo {
		if i != nil && s.Dockerfile != "" {
			i = i.CloneVT()
			i.Filename = s.Dockerfile
		}
		return i
	}
	defer annotate(os.Stderr, lintAnnotations(s.Dockerfile, r)...)
	switch n := len(r.Warnings); {
	case r.Error == nil && n == 0:
		fmt.Fprintln(w, "Check complete, no warnings found.")
		return nil
	case n == 1:
		fmt.Fprintln(w, "Check complete, 1 warning has been found!")
	case n > 1:
		fmt.Fprintf(w, "Check complete, %d warnings have been found!\n", n)
	}
	if err := r.PrintTo(w, name); err != nil {
		return err
	}
	if r.Error != nil {
		r.PrintErrorTo(w, name)
		return errFindings
	}
	return nil
}

// metadata decodes what the exporters said for --metadata-file: values that are JSON in base64 become JSON. In place of the compiler's
// report stand its remarks.
func (b *build) metadata(resp map[string]string, a *explain.Account) map[string]any {
	out := map[string]any{}
	if ran := b.steps.ran(); ran != nil {
		out["optbuild.ran"] = ran
	}
	if a != nil {
		out["optbuild.remarks"] = metadataRemarks(a)
	}
	for k, v := range resp {
		if strings.HasPrefix(k, "frontend.optbuild.") {
			continue
		}
		out[k] = v
		raw, err := base64.StdEncoding.DecodeString(v)
		if err != nil || len(raw) == 0 || (raw[0] != '{' && raw[0] != '[') {
			continue
		}
		if json.Valid(raw) {
			out[k] = json.RawMessage(raw)
		}
	}
	return out
}
