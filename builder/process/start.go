package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
