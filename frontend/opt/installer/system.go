package installer

import (
	"path"
	"slices"
	"strings"

	"github.com/optbuild/optbuild/frontend/script"
)

// systemInstallers install the distribution's packages. They read and write what belongs to the system, and no COPY that moves copies to there; so they need no manifests.
var systemInstallers = []installer{
	{name: "apt-get install", calls: []string{"apt-get install", "apt-get -y install", "apt install", "apt-get -qq install", "apt-get -qqy install", "apt-get -qq -y install", "apt-get -yqq install"}, variables: aptVariables, examine: systemPackages},
	{calls: []string{"apt-get update", "apt update", "apt-get -y update", "apt-get -qq update", "apt-get clean", "apt-get autoremove", "apt-get upgrade", "apt-get -y upgrade", "apt-get autoclean"}, variables: aptVariables, examine: systemPackages},
	{name: "apk add", calls: []string{"apk add", "apk --no-cache add", "apk -U add"}, examine: systemPackages},
	{calls: []string{"apk update", "apk upgrade"}, examine: systemPackages},
	{name: "dnf install", calls: []string{"dnf install", "dnf -y install", "microdnf install", "yum install", "yum -y install"}, examine: systemPackages},
	{calls: []string{"dnf clean", "microdnf clean", "yum clean", "dnf -y clean", "dnf update", "dnf -y update"}, examine: systemPackages},
}

var aptVariables = []string{"APT_*", "DPKG_*"}

// systemFlags have a value that is no file.
var systemFlags = []string{
	"-y", "--yes", "--assume-yes", "-q", "-qq", "-qqy", "-yqq", "-yq", "-qy", "--quiet", "--no-install-recommends", "--no-install-suggests", "--no-cache", "-U", "--update", "--update-cache", "--fix-missing",
	"-f", "--allow-downgrades", "--allow-change-held-packages", "--only-upgrade", "--reinstall", "--purge", "--nodocs", "--setopt", "--enablerepo", "--disablerepo", "--auto-remove", "--virtual", "-t", "--latest",
}

func systemPackages(p *project) {
	args := p.command.Args()
	if i := slices.IndexFunc(args, func(a script.Word) bool { return a.Raw == "-t" }); i >= 0 {
		args = slices.Delete(args, i, min(i+2, len(args)))
	}
	for _, a := range args {
		name, _, _ := strings.Cut(a.Value, "=")
		switch {
		case !a.Literal:
			p.refuse("unknown-argument", "the value of %s is not known", a.Raw)
		case strings.HasPrefix(a.Value, "-") && !slices.Contains(systemFlags, name):
			p.refuse("unknown-flag", "%s %s is not known to leave other files alone", p.words[0], a.Value)
		case strings.Contains(a.Value, "/") && !strings.HasPrefix(a.Value, "-"), slices.Contains([]string{".deb", ".apk", ".rpm"}, path.Ext(a.Value)):
			p.refuse("local-dependency", "%s may be one of the copied files", a.Value)
		}
	}
}
