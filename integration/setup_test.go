package integration

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/optbuild/optbuild/integration/tree"
)

// passedOn are the variables of our environment that scripts see: what a step needs to reach apt's mirrors.
var passedOn = []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}

// world is what one script has for itself.
type world struct {
	ground *ground
	server *server
	state  string                 // the state directory
	procs  map[string]*background // by the name that the script gave them
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func setup(g *ground, e *testscript.Env) error {
	w := &world{
		ground: g,
		// Beside the script's directory, so that a context of `.` does not hold it; short, for the socket in it.
		state: filepath.Join(filepath.Dir(e.WorkDir), strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")+".state"),
		procs: map[string]*background{},
	}
	var err error
	if w.server, err = newServer(g, e.WorkDir); err != nil {
		return err
	}
	e.Defer(w.server.Close)
	e.Values[worldKey{}] = w
	home := filepath.Join(e.WorkDir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	e.Vars = append(e.Vars,
		"HOME="+home,
		"PATH="+filepath.Join(g.Dir, "bin")+":"+os.Getenv("PATH"),
		"OPTBUILD_ROOT="+w.state,
		"STATE="+w.state,
		"REGISTRY="+w.server.Addr,
		"HTTP=http://"+w.server.Addr,
		"BUILDKIT_PROGRESS=plain",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.com",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.com",
	)
	for _, name := range passedOn {
		if v, ok := os.LookupEnv(name); ok {
			e.Vars = append(e.Vars, name+"="+v)
		}
	}
	e.Defer(func() {
		w.killAll()
		if err := w.server.checkPushed(context.Background(), g.bases()); err != nil {
			e.T().(interface{ Error(...any) }).Error(err)
		}
		if os.Getenv("OPTBUILD_TEST_KEEP") == "" {
			_ = tree.Remove(w.state)
		}
	})
	return expandFiles(e.WorkDir, w.server.Addr)
}

// expandFiles replaces $REGISTRY in the script's files, so that a Dockerfile can say FROM $REGISTRY/busybox.
func expandFiles(dir, registry string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		expanded := bytes.ReplaceAll(b, []byte("$REGISTRY"), []byte(registry))
		if bytes.Equal(b, expanded) {
			return nil
		}
		return os.WriteFile(path, expanded, 0o644)
	})
}
