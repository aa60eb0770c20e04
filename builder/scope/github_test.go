package scope

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGitHub has, for each event that matters, the variables and the part of the payload that GitHub documents.
func TestGitHub(t *testing.T) {
	const (
		repo   = `"repository":{"full_name":"o/r","default_branch":"main"}`
		onMain = "GITHUB_REF=refs/heads/main GITHUB_REF_NAME=main GITHUB_REF_TYPE=branch GITHUB_REPOSITORY=o/r"
		merge  = "GITHUB_REF=refs/pull/5/merge GITHUB_REF_NAME=5/merge GITHUB_REF_TYPE=branch GITHUB_REPOSITORY=o/r"
	)
	pull := func(ref, head, base string) string {
		return `{` + repo + `,"pull_request":{"head":{"ref":"` + ref + `","repo":` + head + `},"base":{"ref":"` + base + `","repo":{"full_name":"o/r"}}}}`
	}
	const ours, theirs = `{"full_name":"O/r"}`, `{"full_name":"eve/r"}`
	for name, test := range map[string]struct{ env, event, want string }{
		"push":             {"GITHUB_EVENT_NAME=push GITHUB_REF=refs/heads/fix/1 GITHUB_REF_NAME=fix/1", `{` + repo + `}`, "writes fix/1; reads main"},
		"push to main":     {"GITHUB_EVENT_NAME=push " + onMain, `{` + repo + `}`, "writes main"},
		"tag":              {"GITHUB_EVENT_NAME=push GITHUB_REF=refs/tags/v1 GITHUB_REF_NAME=v1 GITHUB_REF_TYPE=tag", `{` + repo + `}`, "writes tags; reads main"},
		"release":          {"GITHUB_EVENT_NAME=release GITHUB_REF=refs/tags/v1", `{` + repo + `}`, "writes tags; reads main"},
		"schedule":         {"GITHUB_EVENT_NAME=schedule " + onMain, `{"schedule":"0 0 * * *",` + repo + `}`, "writes main"},
		"dispatch":         {"GITHUB_EVENT_NAME=workflow_dispatch GITHUB_REF=refs/heads/fix", `{` + repo + `}`, "writes fix; reads main"},
		"push, no payload": {"GITHUB_EVENT_NAME=push GITHUB_REF=refs/heads/fix", ``, "writes fix; reads main, then master"},

		"pull request":                       {"GITHUB_EVENT_NAME=pull_request GITHUB_HEAD_REF=fix GITHUB_BASE_REF=next " + merge, pull("fix", ours, "next"), "writes fix; reads next, then main"},
		"pull request from a fork":           {"GITHUB_EVENT_NAME=pull_request GITHUB_HEAD_REF=main GITHUB_BASE_REF=main " + merge, pull("main", theirs, "main"), "read only, a pull request from a fork; reads main"},
		"pull request from a deleted fork":   {"GITHUB_EVENT_NAME=pull_request GITHUB_HEAD_REF=fix GITHUB_BASE_REF=main " + merge, pull("fix", "null", "main"), "read only, a pull request from a fork; reads main"},
		"review of a pull request":           {"GITHUB_EVENT_NAME=pull_request_review " + merge, pull("fix", ours, "main"), "writes fix; reads main"},
		"review of a fork's":                 {"GITHUB_EVENT_NAME=pull_request_review " + merge, pull("fix", theirs, "main"), "read only, a pull request from a fork; reads main"},
		"pull request without a payload":     {"GITHUB_EVENT_NAME=pull_request GITHUB_HEAD_REF=fix GITHUB_BASE_REF=next " + merge, ``, "read only, a pull request, and GitHub Actions does not say whether it is from a fork; reads next, then main, then master"},
		"pull request with a broken payload": {"GITHUB_EVENT_NAME=pull_request GITHUB_HEAD_REF=fix GITHUB_BASE_REF=next " + merge, `{`, "read only, a pull request, and GitHub Actions does not say whether it is from a fork; reads next, then main, then master"},
		"a merge of unknown events":          {"GITHUB_EVENT_NAME=new_event " + merge, `{` + repo + `}`, "read only, a pull request, and GitHub Actions does not say whether it is from a fork; reads main"},
		"pushed for review, at Gitea":        {"GITHUB_EVENT_NAME=pull_request GITEA_ACTIONS=true GITHUB_REF=refs/pull/5/head", pull("refs/pull/5/head", ours, "main"), "read only, a pull request from a fork; reads main"},

		// The workflow and its secrets are the project's, and GITHUB_REF is the base.
		"target, own branch": {"GITHUB_EVENT_NAME=pull_request_target GITHUB_HEAD_REF=fix GITHUB_BASE_REF=main " + onMain, pull("fix", ours, "main"), "writes fix; reads main"},
		"target, fork":       {"GITHUB_EVENT_NAME=pull_request_target GITHUB_HEAD_REF=fix GITHUB_BASE_REF=main " + onMain, pull("fix", theirs, "main"), "read only, a pull request from a fork; reads main"},
		"target, no payload": {"GITHUB_EVENT_NAME=pull_request_target GITHUB_HEAD_REF=main GITHUB_BASE_REF=main " + onMain, ``, "read only, a pull request, and GitHub Actions does not say whether it is from a fork; reads main, then master"},

		"after a push":                 {"GITHUB_EVENT_NAME=workflow_run " + onMain, `{` + repo + `,"workflow_run":{"event":"push","head_branch":"fix","head_repository":` + ours + `}}`, "writes fix; reads main"},
		"after a pull request":         {"GITHUB_EVENT_NAME=workflow_run " + onMain, `{` + repo + `,"workflow_run":{"event":"pull_request","head_branch":"fix","head_repository":` + ours + `}}`, "writes fix; reads main"},
		"after a fork's pull request":  {"GITHUB_EVENT_NAME=workflow_run " + onMain, `{` + repo + `,"workflow_run":{"event":"pull_request","head_branch":"main","head_repository":` + theirs + `}}`, "read only, a pull request from a fork; reads main"},
		"after a run of nobody's":      {"GITHUB_EVENT_NAME=workflow_run " + onMain, `{` + repo + `,"workflow_run":{"event":"pull_request","head_branch":"main","head_repository":null}}`, "read only, a workflow that was started by another one, whose repository is not told; reads main"},
		"after a run after a run":      {"GITHUB_EVENT_NAME=workflow_run " + onMain, `{` + repo + `,"workflow_run":{"event":"workflow_run","head_branch":"main","head_repository":` + ours + `}}`, "read only, a workflow that was started by another one, which was started by workflow_run; reads main"},
		"after a target":               {"GITHUB_EVENT_NAME=workflow_run " + onMain, `{` + repo + `,"workflow_run":{"event":"pull_request_target","head_branch":"main","head_repository":` + ours + `}}`, "read only, a workflow that was started by another one, which was started by pull_request_target; reads main"},
		"after a run, no payload":      {"GITHUB_EVENT_NAME=workflow_run " + onMain, ``, "read only, a workflow of which the payload can't be read; reads main, then master"},
		"comment on a pull request":    {"GITHUB_EVENT_NAME=issue_comment " + onMain, `{` + repo + `,"issue":{"number":1,"pull_request":{"url":"u"}}}`, "read only, a workflow that a comment on a pull request has started, which may build what a fork proposes; reads main"},
		"comment on an issue":          {"GITHUB_EVENT_NAME=issue_comment " + onMain, `{` + repo + `,"issue":{"number":1}}`, "writes main"},
		"comment without a payload":    {"GITHUB_EVENT_NAME=issue_comment " + onMain, ``, "read only, a workflow of which the payload can't be read; reads main, then master"},
		"merge queue":                  {"GITHUB_EVENT_NAME=merge_group GITHUB_REF=refs/heads/gh-readonly-queue/main/pr-104-b5ff", `{` + repo + `,"merge_group":{"base_ref":"refs/heads/main"}}`, "writes gh-readonly-queue/main; reads main"},
		"merge queue of a release":     {"GITHUB_EVENT_NAME=merge_group GITHUB_REF=refs/heads/gh-readonly-queue/release/2/pr-104-b5ff", `{` + repo + `}`, "writes gh-readonly-queue/release/2; reads release/2, then main"},
		"payload of another structure": {"GITHUB_EVENT_NAME=push " + onMain, `[1,2]`, "writes main; reads master"},
	} {
		t.Run(name, func(t *testing.T) {
			env := vars("CI=true GITHUB_ACTIONS=true " + test.env)
			env["GITHUB_EVENT_PATH"] = filepath.Join(t.TempDir(), "event.json")
			if test.event != "" {
				if err := os.WriteFile(env["GITHUB_EVENT_PATH"], []byte(test.event), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := Decide(env, nothing).String(); got != test.want+" (GitHub Actions)" {
				t.Errorf("got  %s\nwant %s (GitHub Actions)", got, test.want)
			}
		})
	}
}
