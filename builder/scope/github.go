package scope

import (
	"encoding/json"
	"io"
	"os"
	"strings"
)

// event is what is read of the payload that started a workflow (https://docs.github.com/webhooks/webhook-events-and-payloads).
type event struct {
	Repository  repository `json:"repository"`
	PullRequest *struct {
		Head, Base struct {
			Ref  string      `json:"ref"`
			Repo *repository `json:"repo"` // null if it was deleted
		}
	} `json:"pull_request"`
	WorkflowRun *struct {
		Event          string      `json:"event"`
		HeadBranch     string      `json:"head_branch"`
		HeadRepository *repository `json:"head_repository"`
	} `json:"workflow_run"`
	Issue *struct {
		PullRequest *struct{} `json:"pull_request"`
	} `json:"issue"`
}

type repository struct {
	FullName      string `json:"full_name"`
	DefaultBranch string `json:"default_branch"`
}

// eventLimit bounds the payload; GitHub's are at most 25 MB.
const eventLimit = 32 << 20

// github: https://docs.github.com/actions/reference/workflows-and-actions/variables and .../events-that-trigger-workflows.
//
// GITHUB_REF alone would do harm. In workflows that run with the project's secrets for the sake of a stranger's pull request (pull_request_target, workflow_run, issue_comment) it
// is the default branch, while what they check out and build is the stranger's: the payload tells whose code it may be.
func github(env map[string]string) told {
	e, err := readEvent(env["GITHUB_EVENT_PATH"])
	t := ofRef(env["GITHUB_REF"])
	name := env["GITHUB_EVENT_NAME"]
	t.standard = e.Repository.DefaultBranch
	switch {
	case err != nil && (name == "workflow_run" || name == "issue_comment"):
		t.reason = "a workflow of which the payload can't be read"
	case e.PullRequest != nil:
		head, base := e.PullRequest.Head, e.PullRequest.Base
		t = told{pull: pullRequest, branch: head.Ref, target: base.Ref, standard: t.standard, fork: forkYes}
		if head.Repo != nil && base.Repo != nil {
			t.fork = differ(head.Repo.FullName, base.Repo.FullName)
		}
		if strings.HasPrefix(head.Ref, "refs/") { // Gitea: pushed for review by somebody who may only read, into no branch
			t.fork = forkYes
		}
	case strings.HasPrefix(name, "pull_request"):
		t = told{pull: pullRequest, branch: env["GITHUB_HEAD_REF"], target: env["GITHUB_BASE_REF"], standard: t.standard}
	case e.WorkflowRun != nil:
		t = workflowRun(e, t.standard)
	case e.Issue != nil && e.Issue.PullRequest != nil:
		t.reason = "a workflow that a comment on a pull request has started, which may build what a fork proposes"
	}
	return t
}

// workflowRun is of a workflow that another one has started by ending. It counts as that one, whose branch it usually builds: if it builds the default branch instead, no harm is done.
func workflowRun(e event, standard string) told {
	run := e.WorkflowRun
	t := told{branch: run.HeadBranch, standard: standard}
	if run.HeadRepository != nil {
		t.fork = differ(run.HeadRepository.FullName, e.Repository.FullName)
	}
	switch {
	case t.fork == forkYes:
		t.pull = pullRequest
	case t.fork == forkUnknown:
		t.reason = "a workflow that was started by another one, whose repository is not told"
	case run.Event == "workflow_run" || run.Event == "issue_comment" || run.Event == "pull_request_target": // their branch is the default one, whatever they build
		t.fork, t.reason = forkUnknown, "a workflow that was started by another one, which was started by "+show(run.Event)
	}
	return t
}

func readEvent(path string) (e event, err error) {
	f, err := os.Open(path)
	if err != nil {
		return e, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, eventLimit)).Decode(&e); err != nil {
		return event{}, err
	}
	return e, nil
}
