package request

import (
	"errors"
	"strings"
	"testing"

	"github.com/optbuild/optbuild/builder/export"
)

func TestLayers(t *testing.T) {
	build := func(f func(*Request)) (*Solve, error) {
		r := Request{Context: t.TempDir(), File: "-", Stdin: strings.NewReader("FROM scratch"), Tags: []string{"app"}, Squash: "runs", Strip: "tmp"}
		f(&r)
		s, err := New(t.Context(), r, "dockerfile.v0")
		if err == nil {
			t.Cleanup(s.Discard)
		}
		return s, err
	}
	s, err := build(func(r *Request) {
		r.Outputs = []string{"type=oci,dest=" + t.TempDir() + "/a", "type=tar,dest=" + t.TempDir() + "/b", "type=image"}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.Exports {
		want := "runs tmp"
		if e.Type == "tar" {
			want = " "
		}
		if got := e.Attrs[export.AttrSquash] + " " + e.Attrs[export.AttrStrip]; got != want {
			t.Errorf("output %s: %q, want %q", e.Type, got, want)
		}
	}
	if s, err = build(func(r *Request) { r.Squash, r.Strip = "off", "off" }); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Exports[0].Attrs[export.AttrSquash]; ok {
		t.Errorf("with both off the exporter is told: %v", s.Exports[0].Attrs)
	}
	if s, err = build(func(r *Request) { r.CacheTo = []string{"type=inline"} }); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Exports[0].Attrs[export.AttrSquash]; ok || !strings.Contains(strings.Join(s.Warnings, "\n"), "layers are left as they are") {
		t.Errorf("with an inline cache: %v, warnings %q", s.Exports[0].Attrs, s.Warnings)
	}
	for _, f := range []func(*Request){func(r *Request) { r.Squash = "some" }, func(r *Request) { r.Strip = "apt" }} {
		var fe *FlagError
		if _, err := build(f); !errors.As(err, &fe) {
			t.Errorf("a wrong value: %v", err)
		}
	}
}
