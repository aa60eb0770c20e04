package scope

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// vars reads NAME=VALUE pairs that are separated by spaces.
func vars(pairs string) map[string]string {
	m := map[string]string{}
	for _, p := range strings.Fields(pairs) {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return m
}

func unasked(t *testing.T) func() Git {
	return func() Git {
		t.Error("git was asked")
		return Git{}
	}
}

func nothing() Git { return Git{} }

// TestSystems has the variables of each system's documentation.
func TestSystems(t *testing.T) {
	for name, test := range map[string]struct{ env, want string }{
		"GitLab, branch":         {"GITLAB_CI=true CI_COMMIT_BRANCH=fix-1 CI_COMMIT_REF_NAME=fix-1 CI_DEFAULT_BRANCH=main", "writes fix-1; reads main (GitLab)"},
		"GitLab, default branch": {"GITLAB_CI=true CI_COMMIT_BRANCH=main CI_DEFAULT_BRANCH=main", "writes main (GitLab)"},
		"GitLab, tag":            {"GITLAB_CI=true CI_COMMIT_TAG=v1.0 CI_COMMIT_REF_NAME=v1.0 CI_DEFAULT_BRANCH=main", "writes tags; reads main (GitLab)"},
		"GitLab, merge request": {"GITLAB_CI=true CI_DEFAULT_BRANCH=main CI_MERGE_REQUEST_IID=1 CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=fix-1 CI_MERGE_REQUEST_TARGET_BRANCH_NAME=release-2 CI_MERGE_REQUEST_SOURCE_PROJECT_ID=7 CI_MERGE_REQUEST_PROJECT_ID=7",
			"writes fix-1; reads release-2, then main (GitLab)"},
		"GitLab, merge request from a fork": {"GITLAB_CI=true CI_DEFAULT_BRANCH=main CI_MERGE_REQUEST_IID=1 CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=main CI_MERGE_REQUEST_TARGET_BRANCH_NAME=main CI_MERGE_REQUEST_SOURCE_PROJECT_ID=8 CI_MERGE_REQUEST_PROJECT_ID=7",
			"read only, a merge request from a fork; reads main (GitLab)"},
		"GitLab, merge request of nobody knows whom": {"GITLAB_CI=true CI_DEFAULT_BRANCH=main CI_MERGE_REQUEST_IID=1 CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=fix-1",
			"read only, a merge request, and GitLab does not say whether it is from a fork; reads main (GitLab)"},
		"GitLab, pull request at GitHub": {"GITLAB_CI=true CI_DEFAULT_BRANCH=main CI_EXTERNAL_PULL_REQUEST_IID=3 CI_EXTERNAL_PULL_REQUEST_SOURCE_BRANCH_NAME=fix-1 CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME=main CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY=o/r CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY=o/r",
			"writes fix-1; reads main (GitLab)"},
		"GitLab, pull request at GitHub from a fork": {"GITLAB_CI=true CI_DEFAULT_BRANCH=main CI_EXTERNAL_PULL_REQUEST_IID=3 CI_EXTERNAL_PULL_REQUEST_SOURCE_BRANCH_NAME=fix-1 CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME=main CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY=x/r CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY=o/r",
			"read only, a pull request from a fork; reads main (GitLab)"},

		"Buildkite, branch": {"BUILDKITE=true BUILDKITE_BRANCH=fix-1 BUILDKITE_PULL_REQUEST=false BUILDKITE_PULL_REQUEST_BASE_BRANCH= BUILDKITE_PULL_REQUEST_REPO= BUILDKITE_PIPELINE_DEFAULT_BRANCH=main BUILDKITE_REPO=git@github.com:acme-inc/my-project.git",
			"writes fix-1; reads main (Buildkite)"},
		"Buildkite, tag": {"BUILDKITE=true BUILDKITE_BRANCH=v1 BUILDKITE_TAG=v1 BUILDKITE_PULL_REQUEST=false BUILDKITE_PIPELINE_DEFAULT_BRANCH=main", "writes tags; reads main (Buildkite)"},
		"Buildkite, pull request": {"BUILDKITE=true BUILDKITE_BRANCH=fix-1 BUILDKITE_PULL_REQUEST=123 BUILDKITE_PULL_REQUEST_BASE_BRANCH=next BUILDKITE_PULL_REQUEST_REPO=git://github.com/acme-inc/my-project.git BUILDKITE_PIPELINE_DEFAULT_BRANCH=main BUILDKITE_REPO=git@github.com:acme-inc/my-project.git",
			"writes fix-1; reads next, then main (Buildkite)"},
		"Buildkite, pull request from a fork": {"BUILDKITE=true BUILDKITE_BRANCH=eve:main BUILDKITE_PULL_REQUEST=123 BUILDKITE_PULL_REQUEST_BASE_BRANCH=main BUILDKITE_PULL_REQUEST_REPO=https://github.com/eve/my-project BUILDKITE_PIPELINE_DEFAULT_BRANCH=main BUILDKITE_REPO=git@github.com:acme-inc/my-project.git",
			"read only, a pull request from a fork; reads main (Buildkite)"},
		"Buildkite, merge queue": {"BUILDKITE=true BUILDKITE_BRANCH=gh-readonly-queue/main/pr-7-83a20ec0 BUILDKITE_PULL_REQUEST=false BUILDKITE_MERGE_QUEUE_BASE_BRANCH=main BUILDKITE_PIPELINE_DEFAULT_BRANCH=main",
			"writes gh-readonly-queue/main; reads main (Buildkite)"},

		"CircleCI, branch":                   {"CI=true CIRCLECI=true CIRCLE_BRANCH=fix-1 CIRCLE_PULL_REQUEST=https://github.com/a/b/pull/1", "writes fix-1; reads main, then master (CircleCI)"},
		"CircleCI, tag":                      {"CI=true CIRCLECI=true CIRCLE_TAG=v1", "writes tags; reads main, then master (CircleCI)"},
		"CircleCI, pull request from a fork": {"CI=true CIRCLECI=true CIRCLE_BRANCH=pull/12 CIRCLE_PR_NUMBER=12 CIRCLE_PR_USERNAME=eve CIRCLE_PR_REPONAME=b", "read only, a pull request from a fork; reads main, then master (CircleCI)"},

		"Woodpecker, branch": {"CI=woodpecker CI_COMMIT_BRANCH=fix-1 CI_PIPELINE_EVENT=push CI_REPO_DEFAULT_BRANCH=main", "writes fix-1; reads main (Woodpecker)"},
		"Woodpecker, tag":    {"CI=woodpecker CI_COMMIT_TAG=v1.10.3 CI_PIPELINE_EVENT=tag CI_REPO_DEFAULT_BRANCH=main", "writes tags; reads main (Woodpecker)"},
		"Woodpecker, pull request": {"CI=woodpecker CI_COMMIT_BRANCH=main CI_COMMIT_SOURCE_BRANCH=issue-branch CI_COMMIT_TARGET_BRANCH=next CI_PIPELINE_EVENT=pull_request CI_COMMIT_PULL_REQUEST=1 CI_REPO_DEFAULT_BRANCH=main",
			"read only, a pull request, and Woodpecker does not say whether it is from a fork; reads next, then main (Woodpecker)"},

		"Drone, branch": {"CI=true DRONE=true DRONE_BRANCH=fix-1 DRONE_BUILD_EVENT=push DRONE_REPO_BRANCH=master", "writes fix-1; reads master (Drone)"},
		"Drone, tag":    {"CI=true DRONE=true DRONE_BRANCH= DRONE_TAG=v1 DRONE_BUILD_EVENT=tag DRONE_REPO_BRANCH=master", "writes tags; reads master (Drone)"},
		"Drone, pull request": {"CI=true DRONE=true DRONE_BRANCH=master DRONE_SOURCE_BRANCH=feature/develop DRONE_TARGET_BRANCH=master DRONE_BUILD_EVENT=pull_request DRONE_PULL_REQUEST=4 DRONE_REPO_BRANCH=master",
			"read only, a pull request, and Drone does not say whether it is from a fork; reads master (Drone)"},

		"Azure, branch": {"TF_BUILD=True BUILD_SOURCEBRANCH=refs/heads/users/raisa/new-feature BUILD_REASON=IndividualCI SYSTEM_PULLREQUEST_ISFORK=False", "writes users/raisa/new-feature; reads main, then master (Azure Pipelines)"},
		"Azure, tag":    {"TF_BUILD=True BUILD_SOURCEBRANCH=refs/tags/v1 BUILD_REASON=IndividualCI", "writes tags; reads main, then master (Azure Pipelines)"},
		"Azure, pull request": {"TF_BUILD=True BUILD_SOURCEBRANCH=refs/pull/1/merge BUILD_REASON=PullRequest SYSTEM_PULLREQUEST_SOURCEBRANCH=refs/heads/users/raisa/new-feature SYSTEM_PULLREQUEST_TARGETBRANCH=refs/heads/main SYSTEM_PULLREQUEST_ISFORK=False",
			"writes users/raisa/new-feature; reads main, then master (Azure Pipelines)"},
		"Azure, pull request from a fork": {"TF_BUILD=True BUILD_SOURCEBRANCH=refs/pull/1/merge BUILD_REASON=PullRequest SYSTEM_PULLREQUEST_SOURCEBRANCH=main SYSTEM_PULLREQUEST_TARGETBRANCH=main SYSTEM_PULLREQUEST_ISFORK=True",
			"read only, a pull request from a fork; reads main, then master (Azure Pipelines)"},
		"Azure, pull request of no branch": {"TF_BUILD=True BUILD_SOURCEBRANCH=refs/pull/1/merge SYSTEM_PULLREQUEST_ISFORK=False",
			"read only, a pull request, and Azure Pipelines does not say of which branch; reads main, then master (Azure Pipelines)"},

		"Bitbucket, branch":       {"CI=true BITBUCKET_BUILD_NUMBER=7 BITBUCKET_BRANCH=fix-1", "writes fix-1; reads main, then master (Bitbucket Pipelines)"},
		"Bitbucket, tag":          {"CI=true BITBUCKET_BUILD_NUMBER=7 BITBUCKET_TAG=v1", "writes tags; reads main, then master (Bitbucket Pipelines)"},
		"Bitbucket, pull request": {"CI=true BITBUCKET_BUILD_NUMBER=7 BITBUCKET_BRANCH=fix-1 BITBUCKET_PR_ID=3 BITBUCKET_PR_DESTINATION_BRANCH=next", "writes fix-1; reads next, then main, then master (Bitbucket Pipelines)"},

		"Jenkins, branch":                      {"JENKINS_URL=https://ci/ BRANCH_NAME=fix-1", "writes fix-1; reads main, then master (Jenkins)"},
		"Jenkins, primary branch":              {"JENKINS_URL=https://ci/ BRANCH_NAME=trunk BRANCH_IS_PRIMARY=true", "writes trunk (Jenkins)"},
		"Jenkins, tag":                         {"JENKINS_URL=https://ci/ BRANCH_NAME=v1 TAG_NAME=v1", "writes tags; reads main, then master (Jenkins)"},
		"Jenkins, change":                      {"JENKINS_URL=https://ci/ BRANCH_NAME=PR-24 CHANGE_ID=24 CHANGE_BRANCH=feature/xxx CHANGE_TARGET=main", "writes feature/xxx; reads main, then master (Jenkins)"},
		"Jenkins, change from a fork":          {"JENKINS_URL=https://ci/ BRANCH_NAME=PR-24 CHANGE_ID=24 CHANGE_BRANCH=main CHANGE_TARGET=main CHANGE_FORK=eve", "read only, a pull request from a fork; reads main, then master (Jenkins)"},
		"Jenkins, change, plugins of old":      {"JENKINS_URL=https://ci/ BRANCH_NAME=PR-24 CHANGE_ID=24 CHANGE_TARGET=main", "read only, a pull request, and Jenkins does not say whether it is from a fork; reads main, then master (Jenkins)"},
		"Jenkins, project of one branch":       {"JENKINS_HOME=/var/lib/jenkins GIT_BRANCH=origin/fix-1", "writes fix-1; reads main, then master (Jenkins)"},
		"Jenkins, local branch":                {"JENKINS_HOME=/var/lib/jenkins GIT_BRANCH=origin/fix-1 GIT_LOCAL_BRANCH=fix-1", "writes fix-1; reads main, then master (Jenkins)"},
		"Jenkins, detached":                    {"JENKINS_HOME=/var/lib/jenkins GIT_BRANCH=detached", "writes default; reads main, then master (Jenkins)"},
		"Jenkins, builder of pull requests":    {"JENKINS_URL=https://ci/ GIT_BRANCH=origin/pr/3/merge ghprbPullId=3 ghprbSourceBranch=main ghprbTargetBranch=main", "read only, a pull request, and Jenkins does not say whether it is from a fork; reads main, then master (Jenkins)"},
		"none":                                 {"CI=true BRANCH_NAME=x CI_COMMIT_BRANCH=y", "writes default"},
		"a system's variable that is switched": {"BUILDKITE=false CIRCLECI=false", "writes default"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Decide(vars(test.env), nothing).String(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestGit: what the environment does not tell is asked of git, and only that.
func TestGit(t *testing.T) {
	const gitlabBranch = "GITLAB_CI=true CI_COMMIT_BRANCH=fix-1"
	for name, test := range map[string]struct {
		env  string
		git  Git
		want string
	}{
		"branch":                       {"", Git{"fix-1", "trunk"}, "writes fix-1; reads trunk (git)"},
		"default branch":               {"", Git{"main", "main"}, "writes main (git)"},
		"no default branch":            {"", Git{"fix-1", ""}, "writes fix-1 (git)"},
		"detached":                     {"", Git{"", "main"}, "writes default; reads main"},
		"no repository":                {"", Git{}, "writes default"},
		"default branch of a system":   {gitlabBranch, Git{"", "trunk"}, "writes fix-1; reads trunk (GitLab)"},
		"branch of a system's project": {"JENKINS_HOME=/j", Git{"fix-1", "trunk"}, "writes fix-1; reads trunk (Jenkins)"},
		// What is checked out for a pull request may be the branch that it goes into.
		"not the branch of a pull request": {"TF_BUILD=True BUILD_SOURCEBRANCH=refs/pull/1/merge SYSTEM_PULLREQUEST_ISFORK=False", Git{"main", "main"},
			"read only, a pull request, and Azure Pipelines does not say of which branch; reads main (Azure Pipelines)"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Decide(vars(test.env), func() Git { return test.git }).String(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	Decide(vars(gitlabBranch+" CI_DEFAULT_BRANCH=main"), unasked(t))
	calls := 0
	Decide(nil, func() Git { calls++; return Git{} })
	if calls != 1 {
		t.Errorf("git was asked %d times", calls)
	}
}

// TestHostileNames: a name of a branch that is odd is kept as it is, one that can't be a branch's is none, and neither is shown to a terminal as it is.
func TestHostileNames(t *testing.T) {
	long := strings.Repeat("ä", 2500)
	short := strings.Repeat("ä", 67) + "-" + fmt.Sprintf("%x", sha256.Sum256([]byte(long)))
	for _, test := range []struct{ branch, scope, shown string }{
		{"../../etc/passwd", "../../etc/passwd", "../../etc/passwd"},
		{"a,b", "a,b", `"a,b"`},
		{"a;b", "a;b", `"a;b"`},
		{"ä/ö", "ä/ö", "ä/ö"},
		{"a\u202eb", "a\u202eb", `"a\u202eb"`},
		{"\xff", "\ufffd", "\ufffd"},
		{"a\x1b[2Jb", "default", "default"},
		{"a\nb", "default", "default"},
		{"a\x00b", "default", "default"},
		{"refs/heads/a", "a", "a"},
		{long, short, short},
		{"gh-readonly-queue/", "gh-readonly-queue/", "gh-readonly-queue/"},
		{"gh-readonly-queue/pr-1", "gh-readonly-queue/pr-1", "gh-readonly-queue/pr-1"},
		{"gh-readonly-queue/a/pr-b/pr-7-8", "gh-readonly-queue/a/pr-b", "gh-readonly-queue/a/pr-b"},
	} {
		got := Decide(map[string]string{"GITLAB_CI": "true", "CI_COMMIT_BRANCH": test.branch, "CI_DEFAULT_BRANCH": "main"}, nothing)
		if got.Write != test.scope {
			t.Errorf("branch %.40q has scope %.40q, want %.40q", test.branch, got.Write, test.scope)
		}
		if line := got.String(); !strings.HasPrefix(line, "writes "+test.shown+"; reads ") {
			t.Errorf("branch %.40q is shown in %.80q", test.branch, line)
		}
	}
}

// TestAsked: what the user says of scope and mode.
func TestAsked(t *testing.T) {
	const (
		branch  = "GITLAB_CI=true CI_COMMIT_BRANCH=fix-1 CI_DEFAULT_BRANCH=main"
		fork    = "CIRCLECI=true CIRCLE_BRANCH=pull/1 CIRCLE_PR_NUMBER=1"
		unknown = "CI=woodpecker CI_COMMIT_SOURCE_BRANCH=fix-1 CI_COMMIT_TARGET_BRANCH=main CI_PIPELINE_EVENT=pull_request CI_REPO_DEFAULT_BRANCH=main"
	)
	for _, test := range []struct{ env, name, mode, want string }{
		{branch, "", "", "writes fix-1; reads main"},
		{branch, "", "rw", "writes fix-1; reads main"},
		{branch, "", "ro", "read only, as asked for; reads fix-1, then main"},
		{branch, "arm", "", "writes arm; reads fix-1, then main"},
		{branch, "main", "", "writes main; reads fix-1"},
		{branch, "arm", "ro", "read only, as asked for; reads arm, then fix-1, then main"},
		{fork, "", "rw", "read only, a pull request from a fork; reads main, then master"},
		{fork, "arm", "rw", "read only, a pull request from a fork; reads arm, then main, then master"},
		{fork, "", "ro", "read only, a pull request from a fork; reads main, then master"},
		{unknown, "", "ro", "read only, a pull request, and Woodpecker does not say whether it is from a fork; reads main"},
		{unknown, "", "rw", "writes fix-1; reads main"},
		{unknown, "arm", "rw", "writes arm; reads main"},
	} {
		s := Decide(vars(test.env), nothing)
		if test.name != "" {
			s = s.Named(test.name)
		}
		s = s.WithMode(test.mode)
		got, _, _ := strings.Cut(s.String(), " (")
		if got != test.want {
			t.Errorf("scope=%s mode=%s\ngot  %s\nwant %s", test.name, test.mode, got, test.want)
		}
		if (s.Write == "") != (s.ReadOnly != "") {
			t.Errorf("scope=%s mode=%s: Write %q and ReadOnly %q contradict each other", test.name, test.mode, s.Write, s.ReadOnly)
		}
	}
}

// TestStrangersNeverWrite: whatever else is told, a fork's branch is not written, nor is any scope.
func TestStrangersNeverWrite(t *testing.T) {
	forks := []string{
		"GITLAB_CI=true CI_MERGE_REQUEST_IID=1 CI_MERGE_REQUEST_SOURCE_PROJECT_ID=1 CI_MERGE_REQUEST_PROJECT_ID=2",
		"BUILDKITE=true BUILDKITE_PULL_REQUEST=1 BUILDKITE_PULL_REQUEST_REPO=git@h:x/y BUILDKITE_REPO=git@h:a/y",
		"JENKINS_URL=u CHANGE_ID=1 CHANGE_FORK=eve",
		"CIRCLECI=true CIRCLE_PR_USERNAME=eve",
		"TF_BUILD=True BUILD_REASON=PullRequest SYSTEM_PULLREQUEST_ISFORK=True",
	}
	more := "CI_COMMIT_BRANCH=main CI_COMMIT_TAG=v1 CI_DEFAULT_BRANCH=main BUILDKITE_BRANCH=main BUILDKITE_TAG=v1 BRANCH_NAME=main TAG_NAME=v1 BRANCH_IS_PRIMARY=true GIT_BRANCH=main CIRCLE_BRANCH=main CIRCLE_TAG=v1 " +
		"BUILD_SOURCEBRANCH=refs/heads/main BUILDKITE_MERGE_QUEUE_BASE_BRANCH=main CHANGE_BRANCH=main"
	for _, f := range forks {
		env := vars(f)
		for _, k := range slices.Sorted(maps.Keys(vars(more))) {
			if _, there := env[k]; !there {
				env[k] = vars(more)[k]
			}
		}
		s := Decide(env, func() Git { return Git{"main", "main"} })
		for _, s := range []Scopes{s, s.Named("x"), s.WithMode(ReadWrite), s.Named("x").WithMode(ReadWrite)} {
			if s.Write != "" || !s.Stranger || s.Unknown() {
				t.Errorf("%s: %+v", f, s)
			}
		}
	}
}

func TestRepositoryPath(t *testing.T) {
	for _, address := range []string{"git@github.com:acme/app.git", "https://github.com/acme/app", "https://user:token@github.com/acme/app.git", "git://github.com/acme/app.git", "ssh://git@mirror:2222/acme/app.git", "mirror:acme/app"} {
		if got := repositoryPath(address); got != "acme/app" {
			t.Errorf("%s: got %q", address, got)
		}
	}
	if got := fmt.Sprint(repositoryPath(""), differ(repositoryPath(""), "x")); got != fmt.Sprint("", forkUnknown) {
		t.Error(got)
	}
}
