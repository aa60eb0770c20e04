package lazypull

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

func TestPrograms(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"/bin/sh", "-c", "npm ci && npm run build"}, "npm node"},
		{[]string{"/bin/bash", "-c", "A=1 make -j2 | tee log; if true; then $CC x.c; fi"}, "make tee true"},
		{[]string{"/bin/sh", "-c", "echo $(go version)"}, "echo go"},
		{[]string{"/bin/sh", "-c", "for x in"}, ""},
		{[]string{"/bin/bash", "-o", "pipefail", "-ec", "go build"}, "go"},
		{[]string{"/bin/bash", "script", "x"}, "/bin/bash"},
		{[]string{"/usr/bin/java", "-jar", "x"}, "/usr/bin/java"},
		{[]string{"/opt/maven/bin/mvn", "package"}, "/opt/maven/bin/mvn java"},
		{nil, ""},
	} {
		if got := strings.Join(command{args: test.args}.programs(), " "); got != test.want {
			t.Errorf("programs of %q are %q, want %q", test.args, got, test.want)
		}
	}
	many := "true"
	for i := range 100 {
		many += "; p" + strings.Repeat("x", i)
	}
	if got := len((command{args: []string{"sh", "-c", many}}).programs()); got != aheadPrograms {
		t.Errorf("of 101 programs %d are looked for, want %d", got, aheadPrograms)
	}
}

func TestInterpreter(t *testing.T) {
	for begin, want := range map[string]string{
		"#!/usr/bin/env node\nx":       "node",
		"#!/usr/bin/env -S node --x\n": "node",
		"#! /bin/sh -e\n":              "/bin/sh",
		"#!/usr/bin/env":               "",
		"#!":                           "",
		"\x7fELF":                      "",
	} {
		if got := interpreter(begin); got != want {
			t.Errorf("interpreter of %q is %q, want %q", begin, got, want)
		}
	}
}

// show puts files where a layer would be mounted: content, or "-> target".
func show(t *testing.T, p *Puller, l layer, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(p.o.Layers.RemotePath(l.id()), name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, file)
		} else {
			err = os.WriteFile(file, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnion(t *testing.T) {
	p, all := puller(t, "base", "top")
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	show(t, p, all["base"], map[string]string{
		"usr/bin/tool": "base's", "bin": "-> usr/bin", "usr/bin/other": "-> /opt/other", "usr/bin/loop": "-> loop", "usr/bin/out": "-> ../../../../../../.." + outside,
		"etc/dir": "-> " + filepath.Dir(outside),
	})
	show(t, p, all["top"], map[string]string{"usr/bin/tool": "the top's", "opt/other": "far", "usr/bin/up": "-> ../../../opt/other"})
	u := p.union([]string{all["top"].id(), all["base"].id(), "not mounted"})
	defer u.close()
	for name, want := range map[string]string{
		"/usr/bin/tool": "the top's", "/bin/tool": "the top's", "/bin/other": "far", "/usr/bin/up": "far",
		"/usr/bin/none": "", "/usr/bin": "", "/usr/bin/loop": "", "/bin/tool/x": "", "/usr/bin/out": "", "/etc/dir/secret": "",
	} {
		f, ok := u.file(name)
		if ok != (want != "") {
			t.Errorf("%s: found %v, want %v", name, ok, want != "")
			continue
		}
		if !ok {
			continue
		}
		if got, err := f.root.ReadFile(f.path); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", name, got, err, want)
		}
	}
}

// A program is read as soon as its layer is there, and its interpreter when that is.
func TestReadAhead(t *testing.T) {
	p, all := puller(t, "base", "top")
	had := func(l layer, name string) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.read[p.o.Layers.RemotePath(l.id())+"/"+name]
	}
	synctest.Test(t, func(t *testing.T) {
		a := &ahead{p: p, ids: []string{all["top"].id(), all["base"].id()}, names: []string{"run", "unknown"}, path: []string{"/usr/bin"}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.run(t.Context())
		}()
		synctest.Wait()
		show(t, p, all["top"], map[string]string{"usr/bin/run": "#!/usr/bin/env interpreter\n"})
		p.noteMount()
		synctest.Wait()
		if !had(all["top"], "usr/bin/run") {
			t.Error("the program is not read when its layer is mounted")
		}
		show(t, p, all["base"], map[string]string{"usr/bin/interpreter": strings.Repeat("x", 3<<20), "usr/bin/unused": "x"})
		p.noteMount()
		synctest.Wait()
		if !had(all["base"], "usr/bin/interpreter") || had(all["base"], "usr/bin/unused") {
			t.Error("the interpreter of the program, and nothing else, is to be read")
		}
		select {
		case <-done:
			t.Error("it does not wait for what is not there yet")
		default:
		}
		show(t, p, all["base"], map[string]string{"usr/bin/unknown": "x"})
		p.noteMount()
		synctest.Wait()
		<-done
		if slices.ContainsFunc(a.names, func(n string) bool { return n != "" }) {
			t.Errorf("not read: %q", a.names)
		}
	})
}
