package integration

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"
)

// commands are what scripts can say besides testscript's own commands; the README lists them.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"exitcode":        exitcode,
	"start":           start,
	"signal":          sendSignal,
	"finish":          finish,
	"await":           await,
	"await-blob":      awaitBlob,
	"await-log":       awaitLog,
	"release":         release,
	"remote-build":    remoteBuild,
	"remote-offers":   remoteOffers,
	"no-leftovers":    noLeftovers,
	"du-agrees":       duAgrees,
	"du-below":        duBelow,
	"damage":          damage,
	"small-disk":      smallDisk,
	"fill-disk":       fillDisk,
	"image-has":       imageHas,
	"image-lacks":     imageLacks,
	"image-stat":      imageStat,
	"image-formats":   imageFormats,
	"image-begins":    imageBegins,
	"image-config":    imageConfig,
	"image-machine":   imageMachine,
	"go-compile":      goCompile,
	"image-layers":    imageLayers,
	"image-exists":    imageExists,
	"images-same":     imagesSame,
	"images-share":    imagesShare,
	"image-differs":   imageDiffersBy,
	"same-image":      sameImage,
	"same-layers":     sameLayers,
	"registry-auth":   registryAuth,
	"registry-refuse": registryRefuse,
	"registry-hold":   registryHold,
	"registry-slow":   registrySlow,
	"registry-strict": registryStrict,
	"registry-fault":  registryFault,
	"registry-count":  registryCount,
	"registry-await":  registryAwait,
	"ssh-agent":       sshAgent,
	"docker-engine":   dockerEngine,
	"poison":          poison,
	"lying-caches":    lyingCaches,
	"actions-job":     actionsJob,
	"actions-evict":   actionsEvict,
	"actions-damage":  actionsDamage,
	"keeps-no-secret": keepsNoSecret,
}

// patience is how long a script waits for something that is certain to come; a test that waits so long has failed.
const patience = 2 * time.Minute

func usage(ts *testscript.TestScript, neg bool, ok bool, text string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", text)
	}
}

// exitcode N cmd...: runs the command, which has to exit with N; stdout and stderr can be looked at as after exec.
func exitcode(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "exitcode N cmd...")
	err := ts.Exec(args[1], args[2:]...)
	checkCode(ts, args[0], err)
}

func checkCode(ts *testscript.TestScript, want string, err error) {
	got := 0
	var e *exec.ExitError
	switch {
	case errors.As(err, &e):
		got = e.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d (%v), want %s", got, err, want)
	}
}

// background is a command that a script has started.
type background struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	done           chan struct{} // closed after the end; err is set then
	err            error
}

// start NAME cmd...: runs the command in the background.
func start(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "start NAME cmd...")
	path := args[1]
	if filepath.Base(path) == path {
		var err error
		// The script's PATH is ours with the binary under test in front.
		if path, err = exec.LookPath(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], path)); err != nil {
			path, err = exec.LookPath(args[1])
			ts.Check(err)
		}
	}
	b := &background{cmd: exec.Command(path, args[2:]...), done: make(chan struct{})}
	b.cmd.Dir = ts.MkAbs(".")
	b.cmd.Env = scriptEnv(ts)
	b.cmd.Stdout, b.cmd.Stderr = &b.stdout, &b.stderr
	ts.Check(b.cmd.Start())
	go func() {
		b.err = b.cmd.Wait()
		close(b.done)
	}()
	worldOf(ts).procs[args[0]] = b
}

// scriptEnv is the environment of commands that do not go through testscript.
func scriptEnv(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range append([]string{"HOME", "PATH", "TMPDIR", "OPTBUILD_ROOT", "REGISTRY", "HTTP", "BUILDKIT_PROGRESS",
		"SSH_AUTH_SOCK", "DOCKER_CONFIG"}, passedOn...) {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func proc(ts *testscript.TestScript, name string) *background {
	b := worldOf(ts).procs[name]
	if b == nil {
		ts.Fatalf("nothing was started under the name %s", name)
	}
	return b
}

func (w *world) killAll() {
	for _, b := range w.procs {
		_ = b.cmd.Process.Kill()
		<-b.done
	}
}

// signal NAME INT|TERM|KILL: sends a signal to a background command.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2 && unix.SignalNum("SIG"+args[1]) != 0, "signal NAME INT|TERM|KILL")
	ts.Check(proc(ts, args[0]).cmd.Process.Signal(unix.SignalNum("SIG" + args[1])))
}

// finish NAME CODE: waits for a background command, which has to exit with CODE (-1: killed by a signal). What it printed is in
// the files NAME.stdout and NAME.stderr then.
func finish(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "finish NAME CODE")
	b := proc(ts, args[0])
	select {
	case <-b.done:
	case <-time.After(patience):
		ts.Fatalf("%s has not ended\n%s", args[0], b.cmd)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".stdout"), b.stdout.Bytes(), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".stderr"), b.stderr.Bytes(), 0o644))
	ts.Logf("[%s stdout]\n%s\n[%s stderr]\n%s", args[0], b.stdout.String(), args[0], b.stderr.String())
	checkCode(ts, args[1], b.err)
}

// await POINT NAME: waits until a step of the build that was started as NAME fetches $HTTP/arrive/POINT or $HTTP/hold/POINT.
func await(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "await POINT NAME")
	p, b := worldOf(ts).server.point(args[0]), proc(ts, args[1])
	select {
	case <-p.arrived:
	case <-b.done:
		select {
		case <-p.arrived: // and then it ended
		default:
			ts.Fatalf("await %s: %v\n%s", args[0], errNoArrival, b.stderr.String())
		}
	case <-time.After(patience):
		ts.Fatalf("await %s: nobody came", args[0])
	}
}

// release POINT: lets the steps go on that wait at $HTTP/hold/POINT.
func release(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "release POINT")
	worldOf(ts).server.point(args[0]).release()
}

// registry-auth USER PASSWORD: from now on the registry wants them.
func registryAuth(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "registry-auth USER PASSWORD")
	s := worldOf(ts).server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user, s.password = args[0], args[1]
}

// registry-refuse REGEXP STATUS MESSAGE: from now on the registry refuses requests whose "METHOD /path" matches.
func registryRefuse(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "registry-refuse REGEXP STATUS MESSAGE")
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	status, err := strconv.Atoi(args[1])
	ts.Check(err)
	s := worldOf(ts).server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, refusal{re, status, args[2]})
}

// registry-hold POINT REGEXP: from now on the registry waits at the point with requests whose "METHOD /path" matches; see await and release.
func registryHold(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "registry-hold POINT REGEXP")
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	s := worldOf(ts).server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, hold{re, args[0]})
}

// ssh-agent: starts an agent with one key and sets SSH_AUTH_SOCK.
func sshAgent(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 0, "ssh-agent")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	ring := agent.NewKeyring()
	ts.Check(ring.Add(agent.AddedKey{PrivateKey: key, Comment: "test"}))
	path := ts.MkAbs("agent.sock")
	l, err := net.Listen("unix", path)
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, c)
		}
	}()
	ts.Setenv("SSH_AUTH_SOCK", path)
}

// dockerEngine starts something that takes images as Docker does, and writes the archive that it is given to a file.
func dockerEngine(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "docker-engine FILE")
	file := ts.MkAbs(args[0])
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	engine := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/images/load" {
			return // a ping
		}
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(file, b, 0o644)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	go engine.Serve(l)
	ts.Defer(func() { engine.Close() })
	ts.Setenv("DOCKER_HOST", "tcp://"+l.Addr().String())
}
