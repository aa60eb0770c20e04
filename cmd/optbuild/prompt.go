package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// prompt asks the user for a line on the terminal; a secret one is not shown. False means that there is no terminal.
func prompt(ctx context.Context, question string, secret bool) (answer string, ok bool, err error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return "", false, nil
	}
	state, err := term.GetState(fd)
	if err != nil {
		return "", false, err
	}
	fmt.Fprint(os.Stderr, question)
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() { // ends with the process when the user interrupts: a read of the terminal can't be called off
		if secret {
			b, err := term.ReadPassword(fd)
			fmt.Fprintln(os.Stderr)
			read <- line{string(b), err}
			return
		}
		s, err := bufio.NewReader(os.Stdin).ReadString('\n')
		read <- line{strings.TrimRight(s, "\r\n"), err}
	}()
	select {
	case l := <-read:
		return l.text, true, l.err
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
		_ = term.Restore(fd, state)
		return "", true, context.Cause(ctx)
	}
}
