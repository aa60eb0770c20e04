package integration

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// plainScripts are the scripts in which TestRoot has seen nothing replayed. An engine that verifies does there what it has done in TestRoot.
type plainScripts struct {
	mu    sync.Mutex
	names map[string]bool
}

var plain plainScripts

func (p *plainScripts) has(script string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names[script]
}

const stepsLog = "OPTBUILD_STEPS_LOG"

// watch has the builds of a script say what becomes of their steps, and remembers the script if they say that nothing is replayed.
func (p *plainScripts) watch(g *ground, e *testscript.Env) error {
	name := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")
	text, err := os.ReadFile(filepath.Join(g.Scripts, name+".txtar"))
	if err != nil {
		return err
	}
	log := filepath.Join(filepath.Dir(e.WorkDir), name+".steps") // not below the script's directory, which may be a context
	e.Setenv(stepsLog, log)
	e.Defer(func() {
		steps, err := os.ReadFile(log)
		if failed := e.T().(interface{ Failed() bool }).Failed(); failed || err != nil && !errors.Is(err, fs.ErrNotExist) || mayReplay(string(text), string(steps)) {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.names == nil {
			p.names = map[string]bool{}
		}
		p.names[name] = true
	})
	return nil
}

// unseen is what builds are made with whose log of steps is not the harness's: those in the background, which may be killed before they write it,
// those that another client has an engine do, and those of scripts that have a log of their own.
var unseen = regexp.MustCompile(`(?m)^(start|remote-build) |` + stepsLog + `|env -i`)

// mayReplay tells from a script and its builds' log of steps whether a step of it was, or may have been, replayed.
func mayReplay(script, steps string) bool {
	return unseen.MatchString(script) || strings.Contains(steps, `"outcome":"replayed"`)
}

func TestMayReplay(t *testing.T) {
	const executed, replayed = `{"step":"RUN x","outcome":"executed"}` + "\n", `{"step":"RUN x","outcome":"replayed"}` + "\n"
	for _, test := range []struct {
		script, steps string
		want          bool
	}{
		{"exec optbuild build app\n", "", false},
		{"exec optbuild build app\n", executed + executed, false},
		{"exec optbuild build app\n", executed + replayed, true},
		{"exec optbuild build app\nstart one optbuild build app\nsignal one KILL\n", executed, true},
		{"remote-build $STATE app\n", executed, true},
		{"env " + stepsLog + "=$WORK/steps\nexec optbuild build app\n", "", true},
	} {
		if got := mayReplay(test.script, test.steps); got != test.want {
			t.Errorf("%q with the steps %q: got %t", test.script, test.steps, got)
		}
	}
}
