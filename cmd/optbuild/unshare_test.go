package main

import (
	"errors"
	"testing"

	"github.com/optbuild/optbuild/builder/outcome"
	"github.com/optbuild/optbuild/builder/request"
	"github.com/optbuild/optbuild/frontend"
)

// TestSharedNames: what frontend and engine say to each other, who know nothing of each other, has the same names.
func TestSharedNames(t *testing.T) {
	if frontend.SharedKey != outcome.SharedKey || frontend.CompareKey != outcome.CompareKey || frontend.AttrChecked != outcome.AttrSharedChecked {
		t.Error("the names differ")
	}
}

func TestUnshare(t *testing.T) {
	e := &outcome.SharedCodeError{
		Program: outcome.ForeignProgram{Platform: "linux/arm64", Architecture: "amd64", Paths: []string{"/a.node"}, Step: "COPY /a /"},
		Stage:   outcome.SharedStage{Stage: "modules", By: "lock"},
	}
	const want = "the image for linux/arm64 has programs for amd64: /a.node, made by COPY /a /: stage modules ran once for all platforms, and what is copied from it is not the same for all; building again, for each platform (--optimize-disable=share-stages does so at once)"
	if got := sharedCode(errors.New("failed to solve: " + e.Error())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	attrs := map[string]string{frontend.AttrDisable: "link", frontend.AttrShare: "web"}
	b := &build{solve: &request.Solve{}}
	b.solve.FrontendAttrs = attrs
	b.unshare()
	if got := b.solve.FrontendAttrs; got[frontend.AttrDisable] != "share-stages,link" || got[frontend.AttrShare] != "" {
		t.Error(got)
	}
	if attrs[frontend.AttrShare] != "web" {
		t.Error("the attributes of the first build were changed")
	}
}
