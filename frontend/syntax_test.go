package frontend

import "testing"

func TestServes(t *testing.T) {
	for ref, want := range map[string]bool{
		"docker/dockerfile":                     true,
		"docker/dockerfile:latest":              true,
		"docker/dockerfile:1":                   true,
		"docker/dockerfile:1.4":                 true,
		"docker/dockerfile:1.7.1":               true,
		"docker/dockerfile:1.27":                true,
		"docker/dockerfile:1-labs":              true,
		"docker/dockerfile:1.7-labs":            true,
		"docker/dockerfile:labs":                true,
		"docker/dockerfile:experimental":        true,
		"docker/dockerfile:1.0-experimental":    true,
		"docker.io/docker/dockerfile:1":         true,
		"index.docker.io/docker/dockerfile:1.4": true,

		"docker/dockerfile:1.99":          false, // newer than what is linked in
		"docker/dockerfile:1.99-labs":     false,
		"docker/dockerfile:2":             false,
		"docker/dockerfile:1.7-rc1":       false,
		"docker/dockerfile:master":        false,
		"docker/dockerfile-upstream:1":    false,
		"docker/dockerfile-upstream":      false,
		"example.com/docker/dockerfile:1": false,
		"dockerfile:1":                    false,
		"docker/dockerfile:1@sha256:ac85f380a63b13dfcefa89046420e1781752bab202122f8f50032edf31be0021": false,
		"":    false,
		"A B": false,
	} {
		if got := serves(ref); got != want {
			t.Errorf("serves(%q) = %v, want %v", ref, got, want)
		}
	}
}
