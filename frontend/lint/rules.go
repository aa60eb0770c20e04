package lint

import "strings"

// pages is where the rules are described: this folder's README, whose headings are their names.
const pages = "https://github.com/optbuild/optbuild/blob/main/frontend/lint/README.md"

// Rules are our rules, in the order of the README. BuildKit's own come with their names, texts and addresses.
func Rules() []Rule {
	list := make([]Rule, len(rules))
	for i, r := range rules {
		r.URL = r.page()
		list[i] = r
	}
	return list
}

func (r *Rule) page() string { return pages + "#" + strings.ToLower(r.Name) }

// buildError is the rule's name for what BuildKit would refuse to build.
const buildError = "BuildError"

var rules = []Rule{
	{Name: buildError, Severity: Error, Summary: "BuildKit refuses to build the file"},
	{Name: "SecretValue", Severity: Error, Summary: "a key or token is written into the Dockerfile", run: secretValue},
	{Name: "SecretFile", Severity: Error, Summary: "a file with a key or token is copied", run: secretFile},
	{Name: "RootUser", Severity: Warning, Summary: "the image's command runs as root", run: rootUser},
	{Name: "UnpinnedBase", Severity: Warning, Summary: "an image is named without a tag, or by latest", run: unpinnedBase},
	{Name: "UndigestedBase", Severity: Info, Summary: "an image is named without a digest", run: undigestedBase},
	{Name: "NoDockerignore", Severity: Warning, Summary: "the whole context is copied and nothing is ignored", run: noDockerignore},
	{Name: "AptListsKept", Severity: Warning, Summary: "the lists of apt stay in the image", run: aptListsKept},
	{Name: "StaleAptLists", Severity: Warning, Summary: "packages are installed from lists that another step fetched", run: staleAptLists},
	{Name: "AssumeYesMissing", Severity: Warning, Summary: "a package manager would ask, and nobody answers", run: assumeYesMissing},
	{Name: "AddUrlWithoutChecksum", Severity: Warning, Summary: "ADD takes whatever a URL serves", run: addURLWithoutChecksum},
	{Name: "PipeToShell", Severity: Warning, Summary: "a download is run unseen", run: pipeToShell},
	{Name: "Sudo", Severity: Warning, Summary: "sudo in a RUN", run: sudo},
	{Name: "RunWithoutEffect", Severity: Warning, Summary: "a RUN changes nothing but its own shell", run: runWithoutEffect},
	{Name: "UnknownPragma", Severity: Warning, Summary: "a comment for optbuild names nothing that there is", run: unknownPragma},
}
