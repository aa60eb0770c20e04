package request

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
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
	return r.ssh(s)
}

// agentRemedy ends a sentence about an SSH agent that is not there.
const agentRemedy = "start one (eval $(ssh-agent); ssh-add), or name a key: --ssh default=FILE"

// ssh offers the agents and keys of --ssh; a context that is fetched over SSH needs the default one.
func (r *Request) ssh(s *Solve) error {
	specs := nonEmpty(r.SSH)
	if len(specs) == 0 && r.gitOverSSH() {
		if os.Getenv("SSH_AUTH_SOCK") == "" {
			return &InputError{Path: r.Context, Err: errNoAgent, Hint: agentRemedy}
		}
		specs = []string{"default"}
	}
	if len(specs) == 0 {
		return nil
	}
	value := strings.Join(specs, " ")
	agents, err := build.ParseSSH(specs)
	if err != nil {
		return flagErrorf("ssh", value, "%w", err)
	}
	for _, a := range agents {
		if len(a.Paths) == 0 && os.Getenv("SSH_AUTH_SOCK") == "" {
			return flagErrorf("ssh", value, "no SSH agent is known, SSH_AUTH_SOCK is not set; %s", agentRemedy)
		}
	}
	a, err := sshprovider.NewSSHAgentProvider(agents)
	if err != nil {
		return flagErrorf("ssh", value, "%s", converting.ReplaceAllString(err.Error(), ""))
	}
	s.Session = append(s.Session, a)
	s.SSH = true
	return nil
}

// errNoAgent is about a context.
var errNoAgent = errors.New("is fetched over SSH, and no agent is known: SSH_AUTH_SOCK is not set")

// converting is what BuildKit puts in front of an agent's error.
var converting = regexp.MustCompile(`failed to convert agent config (?:for ID: "[^"]*"|\{.*?\}): `)

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
