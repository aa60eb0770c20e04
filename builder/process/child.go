package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// child is an engine's process as its starter sees it.
type child struct {
	cmd    *exec.Cmd
	params *os.File // write end
	ready  *os.File // read end
	exited chan struct{}
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// kill ends the engine and returns when it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.exited
}

// spawn starts the binary again, in the namespaces of the given shape.
func (d Dir) spawn(lock *os.File, s Shape, o Options) (*child, error) {
	logFile := o.Log
	if logFile == nil {
		var err error
		if logFile, err = d.openLog(); err != nil {
			return nil, &DirError{Path: d.path, Err: err}
		}
		defer logFile.Close()
	}
	paramR, paramW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer paramR.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		paramW.Close()
		return nil, err
	}
	defer readyW.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{engineArg0}
	cmd.Dir = "/"
	cmd.Env = d.engineEnv(os.Environ(), s)
	cmd.ExtraFiles = append([]*os.File{lock, paramR, readyW}, o.Files...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = s.attr()
	if s.Kind == SubIDs {
		cmd.Args[0] = mappingArg0
	}
	if err := cmd.Start(); err != nil {
		paramW.Close()
		readyR.Close()
		return nil, newNamespaceError(s, "clone", err)
	}
	c := &child{cmd: cmd, params: paramW, ready: readyR, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // collects the exit status, if we are still there then
		close(c.exited)
	}()
	return c, nil
}

// openLog begins a new log. The one before is kept, for whoever was just told to look into it.
func (d Dir) openLog() (*os.File, error) {
	if fi, err := os.Stat(d.Log()); err == nil && fi.Size() > 0 {
		if err := os.Rename(d.Log(), d.Log()+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(d.Log(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
}

// awaitReady returns nil when the engine serves.
func (d Dir) awaitReady(ctx context.Context, c *child, s Shape, o Options) error {
	_ = c.ready.SetReadDeadline(time.Now().Add(o.Wait))
	stop := context.AfterFunc(ctx, func() { _ = c.ready.SetReadDeadline(time.Now()) })
	defer stop()
	answer, err := io.ReadAll(c.ready)
	switch {
	case ctx.Err() != nil:
		c.kill()
		return context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.kill()
		return fmt.Errorf("the engine did not start within %s; %s", o.Wait, o.lastWords(d))
	case err != nil:
		c.kill()
		return fmt.Errorf("wait for the engine to start: %w", err)
	}
	var r ready
	if json.Unmarshal(answer, &r) != nil {
		<-c.exited
		return fmt.Errorf("the engine ended before it was ready (%s); %s", c.cmd.ProcessState, o.lastWords(d))
	}
	if r.Error == "" {
		return nil
	}
	<-c.exited // it holds the lock, and its namespaces, until then
	switch {
	case r.MaskedProc:
		return errMaskedProc
	case r.Op != "":
		return newNamespaceError(s, r.Op, r.Errno)
	}
	e := &EngineError{Message: r.Error, Code: r.Code, Errno: r.Errno}
	if o.Log == nil {
		e.Log = d.Log()
	}
	return e
}

// engineEnv is the environment of an engine: its user's, with what BuildKit and runc read at start pointing into the state
// directory.
func (d Dir) engineEnv(env []string, s Shape) []string {
	set := map[string]string{
		"TMPDIR":          d.file(tmpName), // latched by BuildKit's packages when they are initialised
		"XDG_RUNTIME_DIR": d.file(runName), // where runc keeps its state when it is not the host's root
		// BuildKit cuts the logs of steps; commands show them in full. -1 is no limit.
		"BUILDKIT_STEP_LOG_MAX_SIZE":  "-1",
		"BUILDKIT_STEP_LOG_MAX_SPEED": "-1",
		"GOGC":                        "off", // see StartWithoutGC
	}
	drop := map[string]bool{"NOTIFY_SOCKET": true, "LISTEN_FDS": true, "LISTEN_PID": true}
	if s.Rootless() {
		// runc honours XDG_RUNTIME_DIR in a user namespace only for a user that does not call itself root.
		set["USER"] = "optbuild"
	}
	out := make([]string, 0, len(env)+len(set))
	for _, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		if _, ok := set[k]; !ok && !drop[k] {
			out = append(out, kv)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(set)) {
		out = append(out, k+"="+set[k])
	}
	return out
}

// lastWords says what the engine's log ends with.
func (o Options) lastWords(d Dir) string {
	if o.Log != nil {
		return "see its log"
	}
	if line := lastLine(d.Log()); line != "" {
		return "its log " + d.Log() + " ends with: " + line
	}
	return "it wrote no log"
}

// lastLine returns the last line of a file that is not blank.
func lastLine(path string) string {
	const size = 2048
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() > size {
		_, _ = f.Seek(-size, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}
