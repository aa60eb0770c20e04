package main

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
)

func TestHolds(t *testing.T) {
	img, err := crane.Image(map[string][]byte{"usr/bin/x": []byte("x"), "etc/y": []byte("y")})
	if err != nil {
		t.Fatal(err)
	}
	if err := holds(img, []string{"etc/y", "usr/bin/x"}); err != nil {
		t.Error(err)
	}
	if err := holds(img, []string{"etc/y", "usr/bin/z"}); err == nil {
		t.Error("usr/bin/z is not missed")
	}
}
