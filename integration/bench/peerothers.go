package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// buildahPeer is Debian's buildah. It has no daemon: a command builds, another one pushes.
type buildahPeer struct {
	*bench
	config string // registries.conf
}

func (p *buildahPeer) start(context.Context) error {
	if _, err := exec.LookPath("buildah"); err != nil {
		return skipped("it is not installed")
	}
	p.config = filepath.Join(p.Dir, "config", "registries.conf")
	text := "unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"disabled\"\n"
	for _, prefix := range []string{"docker.io", p.registry} {
		text += fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n", prefix, p.registry)
	}
	if err := os.WriteFile(p.config, []byte(text), 0o644); err != nil {
		return err
	}
	p.undo = append(p.undo, p.leave)
	return os.WriteFile(p.policy(), []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o644)
}

func (p *buildahPeer) policy() string { return filepath.Join(filepath.Dir(p.config), "policy.json") }

// empty asks buildah to unmount and remove what only it knows how to.
func (p *buildahPeer) empty(ctx context.Context, state string) error {
	root := p.stateRoot("buildah", state)
	if _, err := os.Stat(root); err != nil {
		return nil
	}
	if err := execute(p.buildah(state, "rm", "--all")); err != nil {
		return err
	}
	// It binds a directory to itself, and leaves it so, and steps that failed leave their file systems.
	if err := mount.UnmountRecursive(root, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount buildah's storage: %w", err)
	}
	return p.discard(ctx, root)
}

// leave empties all states.
func (p *buildahPeer) leave() {
	states, _ := os.ReadDir(p.stateRoot("buildah", ""))
	for _, s := range states {
		if err := p.empty(context.Background(), s.Name()); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

func (p *buildahPeer) buildah(state string, args ...string) *exec.Cmd {
	c := exec.Command("sh", append([]string{"-c", buildahIn + `in_state "$@"`, "sh", p.stateRoot("buildah", state)}, args...)...)
	c.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+p.config)
	return c
}

// buildahIn begins scripts whose first argument is where buildah keeps its state.
const buildahIn = `
root=$1; shift
in_state() { buildah --root "$root/storage" --runroot "$root/run" --storage-driver overlay "$@"; }
`

// buildahTwice builds with the arguments after the image's name, and pushes.
const buildahTwice = buildahIn + `
image=$1 policy=$2 runc=$3; shift 3
in_state build --runtime "$runc" --signature-policy "$policy" -t "$image" "$@" && in_state push --signature-policy "$policy" --tls-verify=false "$image" "docker://$image"
`

func (p *buildahPeer) command(j job) (*exec.Cmd, error) {
	if j.platforms != "" {
		return nil, skipped("it pushes several platforms by other commands than one")
	}
	args := []string{"-c", buildahTwice, "sh", p.stateRoot("buildah", j.state), j.image, p.policy(),
		filepath.Join(p.Dir, "path", "runc"), "--layers", "--network=host", "-f", j.file}
	for _, a := range j.args {
		args = append(args, "--build-arg", a)
	}
	c := exec.Command("sh", append(args, j.dir)...)
	c.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+p.config)
	return c, nil
}

func (p *buildahPeer) steps(_ job, log []byte) (Steps, error) { return buildahSteps(log), nil }

func (p *buildahPeer) daemons() []int { return nil }

// dockerPeer is the Docker that runs here. Its caches are somebody's: they are not emptied, and cold builds are left out.
type dockerPeer struct {
	*bench
	pids []int
}

func (p *dockerPeer) start(ctx context.Context) error {
	if _, err := exec.LookPath("docker"); err != nil {
		return skipped("it is not installed")
	}
	if err := exec.CommandContext(ctx, "docker", "version").Run(); err != nil {
		return skipped("`docker version` fails: no daemon answers")
	}
	for _, name := range []string{"dockerd", "containerd"} {
		out, _ := exec.Command("pidof", name).Output() // it may run elsewhere: its processor time is not known then
		for word := range strings.FieldsSeq(string(out)) {
			var pid int
			if _, err := fmt.Sscan(word, &pid); err == nil {
				p.pids = append(p.pids, pid)
			}
		}
	}
	return nil
}

func (p *dockerPeer) empty(context.Context, string) error {
	return skipped("its caches are not emptied: they may be somebody's")
}

var fromLine = regexp.MustCompile(`(?m)^FROM ([a-z]+:[^\s]+|[a-z]+)(\s|$)`)

// command builds from a copy of the Dockerfile that names the registry, for which dockerd has no mirror.
func (p *dockerPeer) command(j job) (*exec.Cmd, error) {
	text, err := os.ReadFile(j.file)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(p.Dir, p.next("docker-"))
	text = fromLine.ReplaceAllFunc(text, func(line []byte) []byte {
		if strings.HasPrefix(string(line), "FROM scratch") {
			return line
		}
		return []byte("FROM " + p.registry + "/library/" + strings.TrimPrefix(string(line), "FROM "))
	})
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, err
	}
	args := []string{"-c", `image=$1; shift; docker build --progress=plain --network=host -t "$image" "$@" && docker push -q "$image"`, "sh", j.image, "-f", file}
	for _, a := range j.args {
		args = append(args, "--build-arg", a)
	}
	if j.platforms != "" {
		args = append(args, "--platform", j.platforms)
	}
	c := exec.Command("sh", append(args, j.dir)...)
	c.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	return c, nil
}

func (p *dockerPeer) steps(_ job, log []byte) (Steps, error) { return plainSteps(log), nil }

func (p *dockerPeer) daemons() []int { return p.pids }

// kanikoPeer is only here to say why it is not.
type kanikoPeer struct{}

func (kanikoPeer) start(context.Context) error {
	if _, err := exec.LookPath("kaniko"); err != nil {
		return skipped("it is not installed")
	}
	return skipped("it unpacks images over the root file system of the machine that it runs on; measure it in a container")
}

func (kanikoPeer) empty(context.Context, string) error    { return nil }
func (kanikoPeer) command(job) (*exec.Cmd, error)         { return nil, skipped("it is not run") }
func (kanikoPeer) steps(job, []byte) (s Steps, err error) { return s, nil }
func (kanikoPeer) daemons() []int                         { return nil }
