package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// peer is a builder that is compared. A new one is a type in a file of its own and a row in peers.
type peer interface {
	// start gets ready, once. A skipped error is why this builder can't be measured here.
	start(ctx context.Context) error
	// empty makes it forget all that it knows from builds with this state.
	empty(ctx context.Context, state string) error
	// command builds and pushes.
	command(j job) (*exec.Cmd, error)
	// steps counts the steps of a build that it has made: log is what the command printed.
	steps(j job, log []byte) (Steps, error)
	// daemons are processes that work for its commands without being their descendants.
	daemons() []int
}

// job is a build. Builders other than optbuild take from it what they have a word for.
type job struct {
	state       string // name of the place where what is cached lies; builders with a daemon have one for all
	dir, file   string // context and Dockerfile
	image       string // to push
	args        []string
	platforms   string // separated by commas; "" is this machine's
	native      bool   // no step runs a program of another platform, though there may be several
	stepsLogged string // where optbuild logs its steps; "": nowhere
	changed     string // the file of the context that was changed since the last build; "": none
}

// namedPeer is a row of the table of builders.
type namedPeer struct {
	name string
	peer
	// optional builders are left out of a comparison, with the reason, when they fail to build something.
	optional bool
}

// peerNames is the order of columns.
var peerNames = []string{"optbuild", "optbuild-user", "optbuild-off", "stock", "stock-once", "buildah", "docker", "kaniko", "floor"}

// peers are the builders that are compared. The first is what the others are compared with.
func (b *bench) peers() []namedPeer {
	return []namedPeer{
		{"optbuild", &optbuildPeer{bench: b, name: "optbuild"}, false},
		{"optbuild-user", &optbuildPeer{bench: b, name: "optbuild-user", unprivileged: true}, true},
		{"optbuild-off", &optbuildPeer{bench: b, name: "optbuild-off", flags: []string{"--optimize=off"}}, false},
		{"stock", &stockPeer{b}, false},
		{"stock-once", &oncePeer{bench: b}, true},
		{"buildah", &buildahPeer{bench: b}, true},
		{"docker", &dockerPeer{bench: b}, true},
		{"kaniko", kanikoPeer{}, true},
	}
}

func (b *bench) stateRoot(peer, state string) string {
	return filepath.Join(b.Dir, "states", peer, state)
}

// optbuildPeer is optbuild, as root or as an ordinary user.
type optbuildPeer struct {
	*bench
	name         string
	unprivileged bool
	flags        []string

	uid, gid int // of the user
}

func (p *optbuildPeer) start(context.Context) error {
	if !p.unprivileged {
		return nil
	}
	if p.User == "" {
		return skipped("-user names no ordinary user")
	}
	u, err := user.Lookup(p.User)
	if err != nil {
		return skipped(err.Error())
	}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return skipped("there is no newuidmap")
	}
	if p.uid, err = strconv.Atoi(u.Uid); err != nil {
		return err
	}
	if p.gid, err = strconv.Atoi(u.Gid); err != nil {
		return err
	}
	if i, err := os.Stat("/dev/fuse"); err != nil || i.Mode()&0o002 == 0 {
		fmt.Fprintf(os.Stderr, "  %s: %s may not open /dev/fuse: its steps are not watched, and not replayed\n", p.name, p.User)
	}
	return nil
}

func (p *optbuildPeer) empty(ctx context.Context, state string) error {
	return p.discard(ctx, p.stateRoot(p.name, state))
}

// own makes the state directory, whose parent is root's.
func (p *optbuildPeer) own(root string) error {
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chown(root, p.uid, p.gid)
}

func (p *optbuildPeer) command(j job) (*exec.Cmd, error) {
	root := p.stateRoot(p.name, j.state)
	if err := p.own(root); err != nil {
		return nil, err
	}
	args := append([]string{"--root", root, "build", "--progress=plain", "--push", "-t", j.image, "-f", j.file}, p.flags...)
	for _, a := range j.args {
		args = append(args, "--build-arg", a)
	}
	if j.platforms != "" {
		args = append(args, "--platform", j.platforms)
	}
	c := exec.Command(p.Optbuild, append(args, j.dir)...)
	config := "XDG_CONFIG_HOME=" + filepath.Dir(filepath.Dir(p.config))
	if p.unprivileged {
		c.Dir = "/"
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + root, config}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.gid)}}
	} else {
		c.Env = append(os.Environ(), config)
	}
	if j.stepsLogged == "" {
		return c, nil
	}
	c.Env = append(c.Env, "OPTBUILD_STEPS_LOG="+j.stepsLogged)
	if err := os.WriteFile(j.stepsLogged, nil, 0o600); err != nil {
		return nil, err
	}
	return c, os.Chown(j.stepsLogged, p.uid, p.gid)
}

func (p *optbuildPeer) steps(j job, _ []byte) (Steps, error) {
	log, err := os.ReadFile(j.stepsLogged)
	if errors.Is(err, fs.ErrNotExist) {
		return Steps{}, nil
	}
	if err != nil {
		return Steps{}, err
	}
	return loggedSteps(log)
}

func (p *optbuildPeer) daemons() []int { return nil }
