package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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

// params go from the starter to the engine, as JSON over a pipe.
type params struct {
	Dir      string          `json:"dir"`
	Build    string          `json:"build"`
	Shape    Shape           `json:"shape"`
	Settings json.RawMessage `json:"settings,omitempty"`
	PID      int             `json:"pid"`
	Notices  []string        `json:"notices,omitempty"`
	// Files is how many files follow the fixed ones.
	Files int `json:"files,omitempty"`
}

// ready comes back from the engine when it serves, or when it can't.
type ready struct {
	Error string `json:"error,omitempty"`
	// MaskedProc asks the starter to try again without a pid namespace: a fresh /proc can't be mounted here.
	MaskedProc bool `json:"maskedProc,omitempty"`
	// Code tells errors apart that the starter's user needs to branch on; empty for the rest.
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
	wait := o.Wait
	if wait == 0 {
		wait = DefaultWait
	}
	begin, said := time.Now(), false
	for {
		c, err := joinUnlessOwn(ctx, d, o)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if c, err := d.startLocked(ctx, o); c != nil || err != nil {
			return c, err
		}
		// Somebody holds the lock and can't be joined: an engine that starts, ends, or is of another build.
		other := errors.Is(err, errOtherBuild)
		if waited := time.Since(begin); o.Own && waited > wait {
			return nil, fmt.Errorf("%w: %s is held by another optbuild (process %s)", ErrBusy, d.path, d.holder())
		} else if !other && waited > wait {
			return nil, fmt.Errorf("%w: %s is held by an engine that does not answer (%v)", ErrBusy, d.path, err)
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

func joinUnlessOwn(ctx context.Context, d Dir, o Options) (*Conn, error) {
	if o.Own {
		return nil, errOwn
	}
	return join(ctx, d, o.Build)
}

// holder is the process id of the engine that uses, or used last, the state directory.
func (d Dir) holder() string {
	m, err := d.readMarker()
	if err != nil {
		return "unknown"
	}
	return fmt.Sprint(m.PID)
}

func (d Dir) waitLine(other, own bool) string {
	switch {
	case own:
		return fmt.Sprintf("waiting: another optbuild uses %s (process %s)", d.path, d.holder())
	case other:
		return fmt.Sprintf("waiting: another version of optbuild uses %s (process %s)", d.path, d.holder())
	}
	return fmt.Sprintf("waiting: another optbuild that is starting or ending holds %s (process %s)", d.path, d.holder())
}

// startLocked starts the engine if the lock is free; (nil, nil) means that it is not.
func (d Dir) startLocked(ctx context.Context, o Options) (*Conn, error) {
	lock, err := d.tryLock()
	if lock == nil || err != nil {
		return nil, err
	}
	defer lock.Close() // the engine has its own descriptor of the same open file, and with it the lock
	shapes, err := shapesHere(o.SingleID)
	if err != nil {
		return nil, err
	}
	var failed []error
	for i := 0; i < len(shapes); i++ {
		s := shapes[i]
		r, err := d.start(ctx, lock, s, o)
		if err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			failed = append(failed, err)
			continue
		}
		switch {
		case r.MaskedProc && !s.NoPIDNamespace:
			s.NoPIDNamespace = true
			shapes = append(shapes[:i+1:i+1], append([]Shape{s}, shapes[i+1:]...)...)
			continue
		case r.Error != "":
			e := &EngineError{Message: r.Error, Code: r.Code}
			if o.Log == nil {
				e.Log = d.Log()
			}
			return nil, e
		}
		c, err := join(ctx, d, o.Build)
		if err != nil {
			return nil, fmt.Errorf("join the engine just started: %w", err)
		}
		c.Started = true
		return c, nil
	}
	return nil, errors.Join(failed...)
}

// EngineError is what the engine said when it could not start.
type EngineError struct {
	Message string
	Code    string
	// Log is the log file; empty when the log went to Options.Log.
	Log string
}

func (e *EngineError) Error() string { return e.Message }

func (d Dir) tryLock() (*os.File, error) {
	f, err := os.OpenFile(d.file(lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &DirError{Path: d.path, Err: err}
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, &DirError{Path: d.path, Err: fmt.Errorf("lock: %w", err)}
}

// start runs the engine in the given shape and waits until it serves or says why not. An error means that the shape itself
// does not work here.
func (d Dir) start(ctx context.Context, lock *os.File, s Shape, o Options) (ready, error) {
	settings, err := json.Marshal(o.Settings)
	if err != nil {
		return ready{}, err
	}
	logFile := o.Log
	if logFile == nil {
		if logFile, err = os.OpenFile(d.Log(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600); err != nil {
			return ready{}, &DirError{Path: d.path, Err: err}
		}
		defer logFile.Close()
	}
	paramR, paramW, err := os.Pipe()
	if err != nil {
		return ready{}, err
	}
	defer paramW.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		paramR.Close()
		return ready{}, err
	}
	defer readyR.Close()

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
	err = cmd.Start()
	paramR.Close()
	readyW.Close()
	if err != nil {
		return ready{}, newNamespaceError(s, "clone", err)
	}
	go cmd.Wait() // collects the exit status if we are still there when it ends
	if s.Kind == SubIDs {
		if err := writeMappings(cmd.Process.Pid, s); err != nil {
			cmd.Process.Kill()
			return ready{}, newNamespaceError(s, "map ids", err)
		}
		if _, err := paramW.Write([]byte{'\n'}); err != nil {
			return ready{}, newNamespaceError(s, "start in namespace", err)
		}
	}
	p := params{Dir: d.path, Build: o.Build, Shape: s, Settings: settings, PID: cmd.Process.Pid, Notices: s.notices(), Files: len(o.Files)}
	if err := json.NewEncoder(paramW).Encode(p); err != nil && !errors.Is(err, syscall.EPIPE) {
		return ready{}, err
	}
	paramW.Close()

	stop := context.AfterFunc(ctx, func() { readyR.SetReadDeadline(time.Now()) })
	defer stop()
	answer, err := io.ReadAll(readyR)
	if ctx.Err() != nil {
		cmd.Process.Kill()
		return ready{}, context.Cause(ctx)
	}
	var r ready
	if err != nil || json.Unmarshal(answer, &r) != nil {
		return ready{}, newNamespaceError(s, "start in namespace", fmt.Errorf("the engine ended before it was ready: %s", o.lastWords(d)))
	}
	return r, nil
}

// startGOGC keeps the garbage collector out of an engine's start and of a build in which everything is cached; runEngine
// sets it back to Go's default when the engine lives longer than startPhase.
const startGOGC = "400"

// engineEnv is the environment of an engine: its user's, with what BuildKit and runc read at start pointing into the state
// directory.
func (d Dir) engineEnv(env []string, s Shape) []string {
	set := map[string]string{
		"TMPDIR":          d.file(tmpName), // latched by BuildKit's packages when they are initialised
		"XDG_RUNTIME_DIR": d.file(runName), // where runc keeps its state when it is not the host's root
		"GOGC":            startGOGC,
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
	for k, v := range set {
		out = append(out, k+"="+v)
	}
	return out
}

func (o Options) lastWords(d Dir) string {
	if o.Log != nil {
		return "see its log"
	}
	return tail(d.Log())
}

// tail returns the last lines of a log file, for an error message.
func tail(path string) string {
	const size = 2048
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "it wrote no log"
	}
	if len(b) > size {
		b = b[len(b)-size:]
	}
	return strings.TrimSpace(string(b))
}
