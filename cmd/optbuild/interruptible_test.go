package main

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
)

func TestInterruptible(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	in := interruptible(ctx, r)
	if _, err := w.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(in, b); err != nil || string(b) != "text" {
		t.Errorf("read %q, %v", b, err)
	}
	cancel(stop) // the writer gives nothing more, and does not end
	if _, err := io.ReadAll(in); !errors.Is(err, stop) {
		t.Errorf("the end of the context gives the error %v", err)
	}
}

// TestInterruptibleReadsNothing: what nobody asks for stays where it is, for whoever has the same standard input.
func TestInterruptibleReadsNothing(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	interruptible(t.Context(), r)
	if b, err := io.ReadAll(r); err != nil || string(b) != "text" {
		t.Errorf("left are %q, %v", b, err)
	}
}
