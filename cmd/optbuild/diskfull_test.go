package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestExplainFull(t *testing.T) {
	var got strings.Builder
	for _, text := range []string{
		"mount callback failed: write /state/cache/ingest/1/data: no space left on device",
		"failed to copy: /state/run/mount/big: write /out/.x.tar.tmp: no space left on device",
		"write other/.x.tar.tmp: no space left on device",
		"solver said: no space left on device",
		"rpc error: code = ResourceExhausted desc = write /dev/stdout: no space left on device",
		"mkdir /home/me/out/a: disk quota exceeded",
	} {
		message, hint := explainFull(text, "/state")
		fmt.Fprintf(&got, "%v %s: %s\n", full(text, nil), message, hint)
	}
	want := "true no space left on the disk of the state directory /state: make room with `optbuild prune` (`optbuild df` shows what takes it), or choose another disk: optbuild --root DIR\n" +
		"true no space left on the disk of /out: free some there, or choose another destination\n" +
		"true no space left on the disk of other: free some there, or choose another destination\n" +
		"true no space left on the disk of the state directory /state: make room with `optbuild prune` (`optbuild df` shows what takes it), or choose another disk: optbuild --root DIR\n" +
		"true no space left where standard output goes: free some there, or choose another destination\n" +
		"true no space left on the disk of /home/me/out: free some there, or choose another destination\n"
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
	if full("no such device", nil) {
		t.Error("another error is taken for a full disk")
	}
}
