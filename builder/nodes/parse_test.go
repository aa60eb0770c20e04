package nodes

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"linux/arm64=tcp://a:1":                                 "linux/arm64 tcp://a:1 30s",
		"linux/arm64/v8=unix:///run/b.sock":                     "linux/arm64 unix:///run/b.sock 30s",
		"arm64, linux/arm/v7 =tcp://a:1,timeout=5s":             "linux/arm64+linux/arm/v7 tcp://a:1 5s",
		"linux/arm64=kube-pod://p?namespace=n":                  "linux/arm64 kube-pod://p?namespace=n 30s",
		"linux/arm64=docker-container://n":                      "linux/arm64 docker-container://n 30s",
		"linux/arm64=ssh://u@h:22/run/b.sock":                   "linux/arm64 ssh://u@h:22/run/b.sock 30s",
		"linux/arm64=tcp://a:1,servername=b":                    "linux/arm64 tcp://a:1 30s as b",
		"":                                                      "! is not PLATFORM=ADDRESS, as in linux/arm64=tcp://HOST:PORT",
		"tcp://a:1":                                             "! is not PLATFORM=ADDRESS, as in linux/arm64=tcp://HOST:PORT",
		"linux/arm46=tcp://a:1":                                 "! platform linux/arm46 is no platform; did you mean linux/arm64?",
		"linux/arm64=a:1":                                       "! address a:1 has no scheme: one of tcp, unix, ssh, kube-pod, docker-container, podman-container, nerdctl-container, followed by ://",
		"linux/arm64=docker://n":                                "! docker is no scheme of a node; there are tcp, unix, ssh, kube-pod, docker-container, podman-container, nerdctl-container",
		"linux/arm64=tcp://a":                                   "! address tcp://a is not tcp://HOST:PORT",
		"linux/arm64=tcp://:1":                                  "! address tcp://:1 is not tcp://HOST:PORT",
		"linux/arm64=unix://b.sock":                             "! address unix://b.sock has no absolute path: unix:///PATH",
		"linux/arm64=kube-pod://":                               "! address kube-pod://: url lacks pod name",
		"linux/arm64=tcp://a:1,ca.pem":                          "! ca.pem is not KEY=VALUE; keys are cacert, cert, key, servername, timeout",
		"linux/arm64=tcp://a:1,sertname=b":                      "! sertname is no key; there are cacert, cert, key, servername, timeout",
		"linux/arm64=tcp://a:1,cerd=b":                          "! cerd is no key; did you mean cert?",
		"linux/arm64=tcp://a:1,servername=b,servername=b":       "! servername is given twice",
		"linux/arm64=tcp://a:1,cert=parse.go":                   "! cert and key belong together",
		"linux/arm64=tcp://a:1,cacert=parse.go":                 "! cacert: parse.go has no certificate in PEM form",
		"linux/arm64=tcp://a:1,cacert=none":                     "! cacert: open none: no such file or directory",
		"linux/arm64=ssh://a,cacert=parse.go":                   "! cacert, cert, key and servername are for tcp:// only",
		"linux/arm64=tcp://a:1,timeout=10":                      "! timeout=10 is not a time such as 30s, of a second at least",
		"linux/arm64=tcp://a:1,cert=parse.go,key=parse_test.go": "! cert and key: tls: failed to find any PEM data in certificate input",
	} {
		n, err := Parse(text)
		got := fmt.Sprint(strings.Join(n.Platforms, "+"), " ", n.Address, " ", n.Timeout)
		if n.ServerName != "" {
			got += " as " + n.ServerName
		}
		if err != nil {
			got = "! " + err.Error()
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
}

func TestOpen(t *testing.T) {
	for address, want := range map[string]bool{
		"tcp://10.0.0.1:1": true, "tcp://arm.example.com:1": true, "tcp://127.0.0.1:1": false, "tcp://[::1]:1": false, "tcp://localhost:1": false, "unix:///b": false, "ssh://a": false,
	} {
		if got := (&Node{Address: address}).Open(); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	if (&Node{Address: "tcp://10.0.0.1:1", Cert: "c", Key: "k", Timeout: time.Second}).Open() {
		t.Error("with TLS nobody can read it")
	}
}
