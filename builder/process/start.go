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
	"syscall"
	"time"
)

// Names under which the binary starts itself again.
const (
	engineArg0  = "optbuild-engine"
	mappingArg0 = "optbuild-mapping"
)

// File descriptors of a child.
const (
	lockFD  = 3
	paramFD = 4
	readyFD = 5
	filesFD = 6 // the first of Options.Files
)

// params go from the starter to the engine, as JSON over a pipe that the starter keeps open until it has joined.
type params struct {
	Dir      string          `json:"dir"`
	Build    string          `json:"build"`
	Shape    Shape           `json:"shape"`
	Settings json.RawMessage `json:"settings,omitempty"`
	PID      int             `json:"pid"`
	Notices  []string        `json:"notices,omitempty"`
	Sync     bool            `json:"sync,omitempty"`
	// Files is how many files follow the fixed ones.
	Files int `json:"files,omitempty"`
}

// ready comes back from the engine when it serves, or when it can't.
type ready struct {
	Error string `json:"error,omitempty"`
	// MaskedProc asks the starter to try again without a pid namespace: a fresh /proc can't be mounted here.
	MaskedProc bool `json:"maskedProc,omitempty"`
	// Errno is the system's error number behind the error, if there is one; with Op it is the kernel's answer to a step of
	// setting up namespaces.
	Op    string        `json:"op,omitempty"`
	Errno syscall.Errno `json:"errno,omitempty"`
	// Code tells other errors apart that the starter's user needs to branch on; empty for the rest.
	Code string `json:"code,omitempty"`
}

// Options are what Connect needs to know.
type Options struct {
	// Build identifies the binary; commands join only engines of the same build.
	Build string
	// Settings is passed on to the engine's Serve function by the starter, as JSON.
	Settings any
	// Say, if set, is called with a line for the user when Connect has to wait.
	Say func(line string)
	// Wait bounds how long Connect waits for an engine that neither answers nor ends. 0 means [DefaultWait].
	Wait time.Duration
	// SingleID forces the single-id mode (for tests and for measuring).
	SingleID bool
	// Sync makes the engine that this command starts write everything to disk before it ends, for machines that are thrown
	// away after the build while the state directory is kept.
	Sync bool
	// Own asks for an engine of one's own settings: one that runs already is waited for, not joined.
	Own bool
	// Files are handed to the engine, see Engine.Files. Only with Own.
	Files []*os.File
	// Log is where the engine's log goes. Nil means the state directory's log file.
	Log *os.File
}

// DefaultWait is how long a command waits for an engine that is starting or ending.
const DefaultWait = 60 * time.Second

// ErrBusy is wrapped by Connect's error when an engine holds the state directory and can't be joined.
var ErrBusy = errors.New("the state directory is in use")

// Connect joins the engine of the state directory, or starts it.
func Connect(ctx context.Context, d Dir, o Options) (*Conn, error) {
	if o.Wait == 0 {
		o.Wait = DefaultWait
	}
	begin, said := time.Now(), false
	for {
		c, err := joinBriefly(ctx, d, o)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if c, err := d.startLocked(ctx, o); c != nil || err != nil {
			return c, err
		}
		// Somebody holds the lock and can't be joined: an engine that starts, ends, hangs, or is of another build.
		other := errors.Is(err, errOtherBuild)
		if waited := time.Since(begin); o.Own && waited > o.Wait {
			return nil, fmt.Errorf("%w: %s is held by another optbuild (process %s)", ErrBusy, d.path, d.holderPID())
		} else if !other && waited > o.Wait {
			return nil, fmt.Errorf("%w: %s is held by process %s, which does not answer (%v)", ErrBusy, d.path, d.holderPID(), err)
		} else if !said && (other || waited > time.Second) && o.Say != nil {
			o.Say(d.waitLine(other, o.Own))
			said = true
		}
		pause := 5 * time.Millisecond
		if said {
			pause = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

var errOwn = errors.New("another optbuild uses it")

// joinBriefly gives up after a while, so that a command that waits for an engine that hangs can say so.
func joinBriefly(ctx context.Context, d Dir, o Options) (*Conn, error) {
	if o.Own {
		return nil, errOwn
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return join(ctx, d, o.Build)
}

func (d Dir) holderPID() string {
	if h := d.readHolder(); h.PID != 0 {
		return fmt.Sprint(h.PID)
	}
	return "unknown"
}

func (d Dir) waitLine(other, own bool) string {
	switch {
	case own:
		return fmt.Sprintf("waiting: another optbuild uses %s (process %s)", d.path, d.holderPID())
	case other:
		return fmt.Sprintf("waiting: another version of optbuild uses %s (process %s)", d.path, d.holderPID())
	}
	return fmt.Sprintf("waiting: an engine that is starting or ending holds %s (process %s)", d.path, d.holderPID())
}

// startLocked starts the engine if the lock is free; (nil, nil) means that it is not.
func (d Dir) startLocked(ctx context.Context, o Options) (*Conn, error) {
	lock, err := d.tryLock()
	if lock == nil || err != nil {
		return nil, err
	}
	defer lock.Close() // the engine has its own descriptor of the same open file, and with it the lock
	last := d.readHolder()
	if err := last.awaitEnd(ctx, o.Wait); err != nil {
		return nil, err
	}
	if last.Strays {
		d.killStrays(last.UserNS)
	}
	shapes, err := shapesHere(o.SingleID)
	if err != nil {
		return nil, err
	}
	var refused error // why the best shape does not work here
	for len(shapes) > 0 {
		s := shapes[0]
		shapes = shapes[1:]
		if refused != nil && s.Kind == SingleID {
			s.Why = refused.Error()
		}
		c, err := d.start(ctx, lock, s, o)
		var ne *NamespaceError
		switch {
		case errors.Is(err, errMaskedProc) && !s.NoPIDNamespace:
			s.NoPIDNamespace = true
			shapes = append([]Shape{s}, shapes...)
		case errors.As(err, &ne):
			if refused == nil {
				refused = err
			}
		default:
			return c, err
		}
	}
	return nil, refused
}

// EngineError is what the engine said when it could not start.
type EngineError struct {
	Message string
	Code    string
	// Log is the log file; empty when the log went to Options.Log.
	Log string
	// Errno is the system's error number behind it, or 0.
	Errno syscall.Errno
}

func (e *EngineError) Error() string { return e.Message }

func (e *EngineError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// start runs the engine in the given shape and joins it when it serves. A *NamespaceError means that the shape itself does
// not work here.
func (d Dir) start(ctx context.Context, lock *os.File, s Shape, o Options) (*Conn, error) {
	settings, err := json.Marshal(o.Settings)
	if err != nil {
		return nil, err
	}
	child, err := d.spawn(lock, s, o)
	if err != nil {
		return nil, err
	}
	defer child.params.Close()
	defer child.ready.Close()
	if s.Kind == SubIDs {
		if err := writeMappings(child.pid(), s); err != nil {
			child.kill()
			return nil, newNamespaceError(s, "map ids", err)
		}
		_, _ = child.params.Write([]byte{'\n'}) // if the child is gone we hear so from the other pipe
	}
	h := holder{PID: child.pid(), Start: startTime(child.pid()), Strays: s.NoPIDNamespace}
	if s.ownUserNS() {
		h.UserNS = userNS(child.pid())
	}
	if err := writeHolder(lock, h); err != nil {
		child.kill()
		return nil, &DirError{Path: d.path, Err: err}
	}
	p := params{Dir: d.path, Build: o.Build, Shape: s, Settings: settings, PID: child.pid(), Notices: s.notices(), Sync: o.Sync, Files: len(o.Files)}
	if err := json.NewEncoder(child.params).Encode(p); err != nil && !errors.Is(err, syscall.EPIPE) {
		child.kill()
		return nil, err
	}
	if err := d.awaitReady(ctx, child, s, o); err != nil {
		return nil, err
	}
	c, err := join(ctx, d, o.Build)
	if err != nil {
		return nil, fmt.Errorf("join the engine just started: %w", err)
	}
	c.Started = true
	return c, nil
}

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
