package scope

import (
	"cmp"
	"net/url"
	"strings"
)

// system is one CI system.
type system struct {
	name string
	here func(env map[string]string) bool
	ask  func(env map[string]string) told
}

// systems are the CI systems that are known. The first that is there is asked: systems that set variables of another for compatibility come before it.
var systems = []system{
	{"GitHub Actions", has("GITHUB_ACTIONS"), github}, // also Gitea's and Forgejo's, which set the same
	{"GitLab", has("GITLAB_CI"), gitlab},
	{"Buildkite", has("BUILDKITE"), buildkite},
	{"CircleCI", has("CIRCLECI"), circle},
	{"Woodpecker", func(env map[string]string) bool { return env["CI"] == "woodpecker" }, woodpecker},
	{"Drone", has("DRONE"), drone},
	{"Azure Pipelines", has("TF_BUILD"), azure},
	{"Bitbucket Pipelines", has("BITBUCKET_BUILD_NUMBER"), bitbucket},
	{"Jenkins", func(env map[string]string) bool { return env["JENKINS_URL"] != "" || env["JENKINS_HOME"] != "" }, jenkins},
}

func has(name string) func(map[string]string) bool {
	return func(env map[string]string) bool { return env[name] != "" && env[name] != "false" }
}

const (
	pullRequest  = "pull request"
	mergeRequest = "merge request"
)

// gitlab: https://docs.gitlab.com/ci/variables/predefined_variables/. CI_COMMIT_BRANCH is not there in pipelines of merge requests and of tags. Pipelines for merge requests from
// forks run in the fork's project, or, if a member of the parent project starts them, in the parent's, with its variables and its runners.
func gitlab(env map[string]string) told {
	t := told{branch: env["CI_COMMIT_BRANCH"], standard: env["CI_DEFAULT_BRANCH"], tag: env["CI_COMMIT_TAG"] != ""}
	switch {
	case env["CI_MERGE_REQUEST_IID"] != "":
		t.pull, t.branch, t.target = mergeRequest, env["CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"], env["CI_MERGE_REQUEST_TARGET_BRANCH_NAME"]
		t.fork = differ(env["CI_MERGE_REQUEST_SOURCE_PROJECT_ID"], env["CI_MERGE_REQUEST_PROJECT_ID"])
	case env["CI_EXTERNAL_PULL_REQUEST_IID"] != "": // of a repository at GitHub that GitLab builds
		t.pull, t.branch, t.target = pullRequest, env["CI_EXTERNAL_PULL_REQUEST_SOURCE_BRANCH_NAME"], env["CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME"]
		t.fork = differ(env["CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY"], env["CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY"])
	}
	return t
}

// buildkite: https://buildkite.com/docs/pipelines/configure/environment-variables. For a tag, BUILDKITE_BRANCH is the tag.
func buildkite(env map[string]string) told {
	t := told{branch: env["BUILDKITE_BRANCH"], standard: env["BUILDKITE_PIPELINE_DEFAULT_BRANCH"], tag: env["BUILDKITE_TAG"] != ""}
	if n := env["BUILDKITE_PULL_REQUEST"]; n != "" && n != "false" {
		t.pull, t.target = pullRequest, env["BUILDKITE_PULL_REQUEST_BASE_BRANCH"]
		t.fork = differ(repositoryPath(env["BUILDKITE_PULL_REQUEST_REPO"]), repositoryPath(env["BUILDKITE_REPO"]))
	}
	return t
}

// circle: https://circleci.com/docs/reference/variables/. The default branch is in no variable. CIRCLE_PR_* are there for pull requests from forks alone, whose branch is called
// pull/NUMBER; others are builds of their branch.
func circle(env map[string]string) told {
	t := told{branch: env["CIRCLE_BRANCH"], tag: env["CIRCLE_TAG"] != ""}
	if env["CIRCLE_PR_NUMBER"] != "" || env["CIRCLE_PR_USERNAME"] != "" || env["CIRCLE_PR_REPONAME"] != "" || strings.HasPrefix(t.branch, "pull/") {
		t.pull, t.fork = pullRequest, forkYes
	}
	return t
}

// woodpecker: https://woodpecker-ci.org/docs/usage/environment. CI_COMMIT_BRANCH is the target of a pull request. Nothing tells of forks.
func woodpecker(env map[string]string) told {
	t := told{branch: env["CI_COMMIT_BRANCH"], standard: env["CI_REPO_DEFAULT_BRANCH"], tag: env["CI_COMMIT_TAG"] != ""}
	if strings.HasPrefix(env["CI_PIPELINE_EVENT"], "pull_request") || env["CI_COMMIT_PULL_REQUEST"] != "" {
		t.pull, t.branch, t.target = pullRequest, env["CI_COMMIT_SOURCE_BRANCH"], cmp.Or(env["CI_COMMIT_TARGET_BRANCH"], t.branch)
	}
	return t
}

// drone: https://docs.drone.io/pipeline/environment/reference/. DRONE_BRANCH is the target of a pull request. Nothing tells of forks.
func drone(env map[string]string) told {
	t := told{branch: env["DRONE_BRANCH"], standard: env["DRONE_REPO_BRANCH"], tag: env["DRONE_TAG"] != ""}
	if env["DRONE_BUILD_EVENT"] == "pull_request" || env["DRONE_PULL_REQUEST"] != "" {
		t.pull, t.branch, t.target = pullRequest, env["DRONE_SOURCE_BRANCH"], cmp.Or(env["DRONE_TARGET_BRANCH"], t.branch)
	}
	return t
}

// azure: https://learn.microsoft.com/azure/devops/pipelines/build/variables. The default branch is in no variable.
func azure(env map[string]string) told {
	t := ofRef(env["BUILD_SOURCEBRANCH"])
	if t.pull != "" || env["BUILD_REASON"] == "PullRequest" {
		t.pull, t.branch, t.target = pullRequest, env["SYSTEM_PULLREQUEST_SOURCEBRANCH"], env["SYSTEM_PULLREQUEST_TARGETBRANCH"]
		switch strings.ToLower(env["SYSTEM_PULLREQUEST_ISFORK"]) {
		case "true":
			t.fork = forkYes
		case "false":
			t.fork = forkNo
		}
	}
	return t
}

// bitbucket: https://support.atlassian.com/bitbucket-cloud/docs/variables-and-secrets/. The default branch is in no variable. A pull request from a fork starts no pipeline
// (https://support.atlassian.com/bitbucket-cloud/docs/pipeline-start-conditions/).
func bitbucket(env map[string]string) told {
	t := told{branch: env["BITBUCKET_BRANCH"], tag: env["BITBUCKET_TAG"] != ""}
	if env["BITBUCKET_PR_ID"] != "" {
		t.pull, t.fork, t.target = pullRequest, forkNo, env["BITBUCKET_PR_DESTINATION_BRANCH"]
	}
	return t
}

// jenkins: https://www.jenkins.io/doc/book/pipeline/multibranch/ and the list at pipeline-syntax/globals of each installation. Multibranch projects have BRANCH_NAME, which is
// something like PR-12 for a change; CHANGE_FORK is set if a change is from a fork. It came with CHANGE_BRANCH, so that without the latter its absence means nothing. In other
// projects the git plugin sets GIT_BRANCH (https://plugins.jenkins.io/git/), and the pull request builder ghprbPullId.
func jenkins(env map[string]string) told {
	t := told{branch: env["BRANCH_NAME"], tag: env["TAG_NAME"] != ""}
	switch {
	case env["CHANGE_ID"] != "" || env["CHANGE_TARGET"] != "":
		t.pull, t.branch, t.target = pullRequest, env["CHANGE_BRANCH"], env["CHANGE_TARGET"]
		switch {
		case env["CHANGE_FORK"] != "":
			t.fork = forkYes
		case t.branch != "":
			t.fork = forkNo
		}
	case env["ghprbPullId"] != "":
		t.pull, t.branch, t.target = pullRequest, env["ghprbSourceBranch"], env["ghprbTargetBranch"]
	case t.branch == "":
		t.branch = cmp.Or(env["GIT_LOCAL_BRANCH"], strings.TrimPrefix(env["GIT_BRANCH"], "origin/"))
		if t.branch == "detached" {
			t.branch = ""
		}
	}
	if env["BRANCH_IS_PRIMARY"] == "true" && t.pull == "" {
		t.standard = t.branch
	}
	return t
}

// ofRef is what a full name of git's says.
func ofRef(ref string) told {
	if name, ok := strings.CutPrefix(ref, "refs/heads/"); ok {
		return told{branch: name}
	}
	if strings.HasPrefix(ref, "refs/tags/") {
		return told{tag: true}
	}
	if strings.HasPrefix(ref, "refs/pull/") {
		return told{pull: pullRequest}
	}
	return told{}
}

// mergeQueue takes apart the branch that GitHub makes for a pull request that waits to be merged, gh-readonly-queue/BASE/pr-NUMBER-COMMIT. What waits has one scope for each
// base: nobody sees such a branch again.
func mergeQueue(branch string) (queue, base string, ok bool) {
	const prefix = "gh-readonly-queue/"
	i := strings.LastIndex(branch, "/pr-")
	if !strings.HasPrefix(branch, prefix) || i <= len(prefix) {
		return "", "", false
	}
	return branch[:i], branch[len(prefix):i], true
}

// differ compares two repositories, of which either may not be told.
func differ(one, other string) fork {
	switch {
	case one == "" || other == "":
		return forkUnknown
	case strings.EqualFold(one, other):
		return forkNo
	}
	return forkYes
}

// repositoryPath is what the address of a repository says whichever way it is fetched: git@github.com:acme/app.git and https://github.com/acme/app are acme/app. The
// host is left out, as it may be a mirror's.
func repositoryPath(address string) string {
	path := address
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		path = u.Path
	} else if _, after, ok := strings.Cut(address, ":"); ok {
		path = after
	}
	return strings.TrimSuffix(strings.Trim(path, "/"), ".git")
}
