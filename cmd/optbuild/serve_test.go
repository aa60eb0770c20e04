package main

import (
	"testing"

	"github.com/urfave/cli/v2"
)

// The flags of a buildkitd, as BuildKit's own test suite passes them and more, written as buildkitd.toml.
func TestServeOverrides(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"none", nil, ""},
		{
			"those of BuildKit's suite",
			[]string{
				"--oci-worker=true", "--containerd-worker=false", "--oci-worker-gc=false",
				"--oci-worker-labels=org.mobyproject.buildkit.worker.sandbox=true", "--oci-worker-snapshotter=native",
				"--root", "/state", "--addr", "unix:///state/buildkitd.sock", "--debug",
			},
			`[grpc]
address = ['unix:///state/buildkitd.sock']

[log]
level = 'debug'

[worker]
[worker.containerd]
enabled = false

[worker.oci]
enabled = true
gc = false
snapshotter = 'native'

[worker.oci.labels]
'org.mobyproject.buildkit.worker.sandbox' = 'true'
`,
		},
		{
			"several of a kind",
			[]string{
				"--addr", "unix:///a", "--addr=tcp://0.0.0.0:1", "--tlscert", "c", "--tlskey", "k", "--tlscacert", "ca", "--group", "12",
				"--oci-worker-gc-keepstorage", "1,2,3", "--oci-max-parallelism", "2", "--oci-worker-net", "bridge",
				"--allow-insecure-entitlement", "network.host",
			},
			`insecure-entitlements = ['network.host']

[grpc]
address = ['unix:///a', 'tcp://0.0.0.0:1']
gid = 12

[grpc.tls]
ca = 'ca'
cert = 'c'
key = 'k'

[worker]
[worker.oci]
max-parallelism = 2
maxUsedSpace = '3000000'
minFreeSpace = '2000000'
networkMode = 'bridge'
reservedSpace = '1000000'
`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, root := runServeFlags(t, tt.args...)
			if got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
			if tt.name == "those of BuildKit's suite" && root != "/state" {
				t.Errorf("root %q", root)
			}
		})
	}
}

func TestServeDebugAndRootBeforeTheCommand(t *testing.T) {
	var doc, root string
	app := serveApp(func(c *cli.Context) (err error) {
		doc, err = serveOverrides(c)
		root = inherited(c, "root")
		return err
	})
	if err := app.Run(normaliseArgs([]string{"optbuild", "-D", "--root", "/state", "serve"})); err != nil {
		t.Fatal(err)
	}
	if want := "[log]\nlevel = 'debug'\n"; doc != want || root != "/state" {
		t.Errorf("root %q, got:\n%s\nwant:\n%s", root, doc, want)
	}
}

func TestServeOverridesErrors(t *testing.T) {
	for _, tt := range []struct{ flag, value, want string }{
		{"--oci-worker-labels", "x", "--oci-worker-labels x: it has to be KEY=VALUE"},
		{"--oci-worker-gc-keepstorage", "1,x", `--oci-worker-gc-keepstorage 1,x: strconv.ParseInt: parsing "x": invalid syntax`},
		{"--group", "no-such-group", "--group: group: unknown group no-such-group"},
	} {
		app := serveApp(func(c *cli.Context) error { _, err := serveOverrides(c); return err })
		err := app.Run([]string{"optbuild", "serve", tt.flag, tt.value})
		if _, usage := err.(*usageErr); !usage || err.Error() != tt.want {
			t.Errorf("%s %s: got %v (%T), want %s", tt.flag, tt.value, err, err, tt.want)
		}
	}
}

func runServeFlags(t *testing.T, args ...string) (doc, root string) {
	t.Helper()
	app := serveApp(func(c *cli.Context) (err error) {
		doc, err = serveOverrides(c)
		root = inherited(c, "root")
		return err
	})
	if err := app.Run(normaliseArgs(append([]string{"optbuild", "serve"}, args...))); err != nil {
		t.Fatal(err)
	}
	return doc, root
}

// serveApp is the command line with another action for serve.
func serveApp(action cli.ActionFunc) *cli.App {
	app := newApp()
	for _, c := range app.Commands {
		if c.Name == "serve" {
			c.Action = action
		}
	}
	return app
}
