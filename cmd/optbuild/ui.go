package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/optbuild/optbuild/builder/process"
	"github.com/optbuild/optbuild/builder/registry"
)

// This file owns the terminal: everything that is not a command's result goes through it to stderr.

// Exit codes.
const (
	exitFailed      = 1   // the build, or whatever was asked for, failed
	exitUsage       = 2   // the command was wrong
	exitInterrupted = 130 // Ctrl-C
	exitTerminated  = 143 // SIGTERM
)

// usageErr is an error of the command line.
type usageErr struct{ error }

func (e *usageErr) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageErr{fmt.Errorf(format, args...)} }

// errDone is returned by a command for which a signal was the ordinary end.
var errDone = errors.New("ended as it was asked to")

// hinted is an error with a line that says what to do about it.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// withHint adds a remedy to an error; the hint may have several lines.
func withHint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// hintFor finds the remedy for an error: the one that it carries, or the one that its package knows.
func hintFor(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	if hint := process.Remedy(err); hint != "" {
		return hint
	}
	_, hint := registry.Explain(err)
	return hint
}

// messageFor is the text of an error: where its package knows a better one than the chain of its causes, that one.
func messageFor(err error) string {
	var h *hinted
	if !errors.As(err, &h) && process.Remedy(err) == "" {
		if message, _ := registry.Explain(err); message != "" {
			return message
		}
	}
	return err.Error()
}

// resultWriter is standard output. It remembers the first error of writing to it: who asked for a result that could not be
// written must not be told that all went well.
type resultWriter struct {
	io.Writer
	err error
}

func (w *resultWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err == nil {
		return n, nil
	}
	// Without a hint of its own it would get that of a state directory without space.
	err = withHint(fmt.Errorf("write the result: %w", err), "")
	if w.err == nil {
		w.err = err
	}
	return n, err
}

func warn(line string) { fmt.Fprintln(os.Stderr, "optbuild: "+line) }

// report prints an error, what shows how it came about, and the remedies.
func report(err error) {
	message, hints := "", []string(nil)
	var failed *buildError
	if errors.As(err, &failed) {
		message, hints = failed.Error(), failed.Hints
		if failed.shown {
			fmt.Fprintln(os.Stderr)
		}
	} else {
		message, hints = messageFor(err), []string{hintFor(err)}
	}
	fmt.Fprintln(os.Stderr, "optbuild: error: "+message)
	if failed != nil {
		fmt.Fprint(os.Stderr, failed.Excerpt)
		if failed.log != nil && failed.lines > 0 {
			failed.log.print(os.Stderr, failed.lines)
		}
	}
	for _, hint := range hints {
		if hint != "" {
			fmt.Fprintln(os.Stderr, "hint: "+strings.ReplaceAll(hint, "\n", "\n      "))
		}
	}
	if failed != nil {
		annotate(os.Stderr, errorAnnotation(failed))
	}
}

func fatal(err error) { os.Exit(finish(err, nil)) }

// finish reports the error of a command, if any, and returns the process's exit code.
func finish(err error, sig os.Signal) int {
	switch {
	case err == nil && sig == nil, errors.Is(err, errDone):
		return 0
	case sig == syscall.SIGTERM:
		warn("terminated")
		return exitTerminated
	case sig != nil:
		warn("interrupted")
		return exitInterrupted
	}
	report(err)
	return exitCode(err)
}

func exitCode(err error) int {
	var u *usageErr
	if errors.As(err, &u) {
		return exitUsage
	}
	return exitFailed
}

// withSignals returns a context that ends with the first SIGINT or SIGTERM, and a function that tells which it was (nil if
// none came). A second signal ends the process at once.
func withSignals(ctx context.Context) (context.Context, func() os.Signal) {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	var mu sync.Mutex
	var got os.Signal
	go func() {
		for s := range ch {
			mu.Lock()
			second := got != nil
			if !second {
				got = s
			}
			mu.Unlock()
			if second {
				os.Exit(finish(nil, s))
			}
			cancel()
		}
	}()
	return ctx, func() os.Signal {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}
