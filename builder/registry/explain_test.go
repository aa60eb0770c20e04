package registry

import (
	"errors"
	"testing"
)

// The texts are what came out of an engine on 2026-11-20, with other host names.
func TestExplain(t *testing.T) {
	const solve = "failed to solve: "
	for _, tt := range []struct{ err, message, hint string }{
		{"failed to solve: process \"/bin/sh -c curl x\" did not complete successfully: exit code: 6", "", ""},
		{"failed to solve: process \"/bin/sh -c git push r.example/x: 401 Unauthorized\" did not complete successfully: exit code: 1", "", ""},
		{"failed to calculate checksum of ref x::y: \"/foo\": not found", "", ""},
		{
			solve + "r.example/nope:1: failed to resolve source metadata for r.example/nope:1: r.example/nope:1: not found",
			"pull r.example/nope:1: registry r.example has no such image",
			"check the spelling of the name and the tag; if the repository is private, log in: optbuild login r.example",
		},
		{
			solve + "failed to push r.example/app:1: /etc/docker/daemon.json:2: invalid character ','",
			"push r.example/app:1: /etc/docker/daemon.json:2: invalid character ','",
			"correct this file: it says how registries are talked to",
		},
		{
			"pull ubunut:latest: resolve: ubunut:latest: not found (did you mean ubuntu?)",
			"pull ubunut:latest: registry docker.io has no such image: not found (did you mean ubuntu?)",
			"a name without a registry is one of Docker Hub: write HOST/NAME for another registry\ncheck the spelling of the name and the tag; if the repository is private, log in: optbuild login",
		},
		{
			solve + "nope: failed to resolve source metadata for docker.io/library/nope:latest: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
			"pull docker.io/library/nope:latest: registry docker.io: unauthorized: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
			"log in: optbuild login\n(some registries answer the same when the repository does not exist)",
		},
		{
			solve + "failed to push r.example:5000/app:1: unexpected status from HEAD request to http://r.example:5000/v2/app/blobs/sha256:7e: 401 Unauthorized",
			"push r.example:5000/app:1: registry r.example:5000: unauthorized: unexpected status from HEAD request to http://r.example:5000/v2/app/blobs/sha256:7e: 401 Unauthorized",
			"log in: optbuild login r.example:5000\n(some registries answer the same when the repository does not exist)",
		},
		{
			solve + "fetch token for r.example: unknown: incorrect username or password",
			"registry r.example: unauthorized: unknown: incorrect username or password",
			"log in: optbuild login r.example\n(some registries answer the same when the repository does not exist)",
		},
		{
			solve + "failed to push r.example/app:1: denied: requested access denied: quota of project exceeded",
			"push r.example/app:1: registry r.example says: denied: requested access denied: quota of project exceeded",
			"log in as a user who may do this: optbuild login r.example\n" + pushAgain,
		},
		{
			solve + "failed to push r.example/app:1: unknown: disk is full",
			"push r.example/app:1: registry r.example says: unknown: disk is full",
			pushAgain,
		},
		{
			"push r.example/app:1: unexpected status from PUT request to https://r.example/v2/app/manifests/1: 500 Internal Server Error\nunknown: disk is full",
			"push r.example/app:1: registry r.example says: unexpected status from PUT request to https://r.example/v2/app/manifests/1: 500 Internal Server Error: unknown: disk is full",
			"the registry has a problem of its own: try again later; " + pushAgain,
		},
		{
			solve + "r.example/x:1: failed to resolve source metadata for r.example/x:1: failed to do request: Head \"https://r.example/v2/x/manifests/1\": dial tcp 192.0.2.1:443: connect: connection refused",
			"pull r.example/x:1: registry r.example: nothing listens at 192.0.2.1:443 (connection refused)",
			"check the name and the port, and that the registry is running",
		},
		{
			solve + "docker.io/library/busybox: failed to resolve source metadata for docker.io/library/busybox:latest: failed to do request: Head \"https://registry-1.docker.io/v2/library/busybox/manifests/latest\": dial tcp: lookup registry-1.docker.io on 192.0.2.53:53: no such host (did you mean docker.io/librarybusybox?)",
			"pull docker.io/library/busybox:latest: registry docker.io: no such host: registry-1.docker.io",
			"check the spelling and this machine's DNS; behind a proxy, set HTTPS_PROXY",
		},
		{
			solve + "r.example/x:1: failed to resolve source metadata for r.example/x:1: failed to do request: Head \"https://r.example/v2/x/manifests/1\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
			"pull r.example/x:1: registry r.example: its certificate is not trusted: x509: certificate signed by unknown authority",
			"put the certificate of its authority into ~/.docker/certs.d/r.example/ca.crt or /etc/docker/certs.d/r.example/ca.crt,\nor do without the check: --insecure-registry r.example",
		},
		{
			"failed to configure registry cache importer: failed to do request: Head \"https://r.example:5000/v2/c/manifests/1\": http: server gave HTTP response to HTTPS client",
			"registry r.example:5000 speaks plain http",
			"if that is as it should be: --insecure-registry r.example:5000",
		},
		{
			"pull r.example/x:1: failed to do request: Head \"https://r.example/v2/x/manifests/1\": proxyconnect tcp: dial tcp 192.0.2.9:3128: connect: connection refused",
			"pull r.example/x:1: registry r.example: the proxy can't be reached: dial tcp 192.0.2.9:3128: connect: connection refused",
			"check HTTPS_PROXY and HTTP_PROXY; NO_PROXY=r.example goes around it",
		},
		{
			solve + "get credentials for r.example: error getting credentials - err: exec: \"docker-credential-nonesuch\": executable file not found in $PATH, out: ``",
			"get credentials for r.example: docker-credential-nonesuch is not installed",
			"install it, or take its name (\"credsStore\", \"credHelpers\") out of docker's config.json and log in again: optbuild login r.example",
		},
		{
			solve + "x: failed to resolve source metadata for docker.io/library/x:latest: unexpected status from HEAD request to https://registry-1.docker.io/v2/library/x/manifests/latest: 429 Too Many Requests\ntoo many requests: You have reached your pull rate limit",
			"pull docker.io/library/x:latest: registry docker.io: too many requests: unexpected status from HEAD request to https://registry-1.docker.io/v2/library/x/manifests/latest: 429 Too Many Requests: too many requests: You have reached your pull rate limit",
			"wait, or raise the limit by logging in: optbuild login",
		},
	} {
		message, hint := Explain(errors.New(tt.err))
		if message != tt.message || hint != tt.hint {
			t.Errorf("%s\ngot:\n%s\nhint: %s\nwant:\n%s\nhint: %s", tt.err, message, hint, tt.message, tt.hint)
		}
	}
}
