package main

import (
	"context"
	"os/exec"
	"path/filepath"
)

// stockPeer is BuildKit with a daemon that is there before the build, and that has built before.
type stockPeer struct{ *bench }

func (p *stockPeer) start(context.Context) error { return nil }

// empty gives the daemon nothing to remember: of this state, and of all others.
func (p *stockPeer) empty(ctx context.Context, _ string) error { return p.emptyDaemon(ctx) }

func (p *stockPeer) command(j job) (*exec.Cmd, error) {
	if err := emulates(j); err != nil {
		return nil, err
	}
	return p.buildctl(buildctlArguments(j)...), nil
}

func (p *stockPeer) steps(_ job, log []byte) (Steps, error) { return plainSteps(log), nil }

func (p *stockPeer) daemons() []int { return []int{p.daemon.Process.Pid} }

// emulates is an error if stock BuildKit can't run what a job builds.
func emulates(j job) error {
	if j.platforms == "" || j.native {
		return nil
	}
	return registered()
}

func buildctlArguments(j job) []string {
	args := []string{"build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context=" + j.dir, "--local=dockerfile=" + filepath.Dir(j.file),
		"--opt=filename=" + filepath.Base(j.file), "--output=type=image,push=true,name=" + j.image}
	for _, a := range j.args {
		args = append(args, "--opt=build-arg:"+a)
	}
	if j.platforms != "" {
		args = append(args, "--opt=platform="+j.platforms)
	}
	return args
}

// oncePeer is BuildKit as it is used where there is no daemon: one is started for each build, on the state that the last one left, and stopped.
type oncePeer struct{ *bench }

func (p *oncePeer) start(context.Context) error { return nil }

func (p *oncePeer) empty(ctx context.Context, state string) error {
	return p.discard(ctx, p.stateRoot("stock-once", state))
}

// once asks the daemon until it answers, as often as that costs little.
const once = `
root=$1 config=$2 stock=$3; shift 3
mkdir -p "$root"
"$stock/buildkitd" --oci-worker=true --containerd-worker=false --oci-worker-net=host --config "$config" --root "$root/state" --addr "unix://$root/sock" >"$root/log" 2>&1 &
daemon=$!
until "$stock/buildctl" --addr "unix://$root/sock" debug workers >/dev/null 2>&1; do
  kill -0 $daemon || exit 1
  sleep 0.01
done
"$stock/buildctl" --addr "unix://$root/sock" "$@"
code=$?
kill $daemon
wait $daemon
exit $code
`

func (p *oncePeer) command(j job) (*exec.Cmd, error) {
	if err := emulates(j); err != nil {
		return nil, err
	}
	c := exec.Command("sh", append([]string{"-c", once, "sh", p.stateRoot("stock-once", j.state), p.config, p.Stock}, buildctlArguments(j)...)...)
	c.Env = p.stockEnvironment()
	return c, nil
}

func (p *oncePeer) steps(_ job, log []byte) (Steps, error) { return plainSteps(log), nil }

func (p *oncePeer) daemons() []int { return nil }
