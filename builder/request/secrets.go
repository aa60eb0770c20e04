package request

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/tonistiigi/go-csvvalue"
)

// secrets offers --secret and --ssh to the build's session.
func (r *Request) secrets(s *Solve) error {
	if specs := nonEmpty(r.Secrets); len(specs) > 0 {
		for _, spec := range specs {
			if err := checkSecret(spec); err != nil {
				return err
			}
		}
		a, err := build.ParseSecret(specs)
		if err != nil {
			return flagErrorf("secret", strings.Join(specs, " "), "%w", err)
		}
		s.Session = append(s.Session, a)
	}
	ssh := nonEmpty(r.SSH)
	if len(ssh) == 0 && r.gitOverSSH() {
		ssh = []string{"default"}
	}
	if len(ssh) > 0 {
		agents, err := build.ParseSSH(ssh)
		if err != nil {
			return flagErrorf("ssh", strings.Join(ssh, " "), "%w", err)
		}
		a, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return flagErrorf("ssh", strings.Join(ssh, " "), "%w", err)
		}
		s.Session = append(s.Session, a)
	}
	return nil
}

// checkSecret looks at one --secret alone, so that an error names it; BuildKit's own parser then reads them all. Without src
// and env the secret is the environment variable or else the file that has the id's name.
func checkSecret(spec string) error {
	fields, err := csvvalue.Fields(spec, nil)
	if err != nil {
		return flagErrorf("secret", spec, "%w", err)
	}
	var id bool
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		id = id || strings.EqualFold(k, "id") && v != ""
	}
	if !id {
		return flagErrorf("secret", spec, "needs an id: id=NAME[,src=FILE|,env=VARIABLE]")
	}
	_, err = build.ParseSecret([]string{spec})
	var pe *fs.PathError
	switch {
	case errors.As(err, &pe) && errors.Is(err, fs.ErrNotExist):
		return flagErrorf("secret", spec, "file %s does not exist", pe.Path)
	case errors.As(err, &pe):
		return flagErrorf("secret", spec, "file %s: %w", pe.Path, pe.Err)
	case err != nil:
		return flagErrorf("secret", spec, "%w", err)
	}
	return nil
}

func (r *Request) gitOverSSH() bool {
	if isDir(r.Context) {
		return false
	}
	u, err := gitutil.ParseURL(r.Context)
	return err == nil && u.Scheme == gitutil.SSHProtocol
}

func nonEmpty(list []string) (out []string) {
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
