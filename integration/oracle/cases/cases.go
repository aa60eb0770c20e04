// Package cases reads and writes the cases of the equivalence tests: a Dockerfile with its context as a txtar archive.
//
//	What it shows, in a sentence or two.
//
//	opt: build-arg VERSION=1
//	rewrite: cache-mounts,merge-run
//	-- Dockerfile --
//	FROM debian:12
//	...
//	-- src/file --
//	...
//
// Lines of the comment that begin with a keyword:
//
//	opt: KIND VALUE         an option of the build: build-arg, label, target, platform, network, file, add-hosts, context NAME=URL
//	second: KIND VALUE      the same, only for the second build
//	rewrite: PASS,...       the passes that rewrite it; "none" for a Dockerfile that must not be rewritten by any
//	never: PASS,...         passes that must not rewrite it, whatever others do: what the case is a trap for
//	fails: TEXT             stock BuildKit does not build it, and says TEXT
//
// Sections are files of the context but for these: "second/PATH" replaces or adds a file for a second build ("second/PATH (gone)"
// removes it); "named/NAME/PATH" is a file of the named context NAME; "http/PATH" is served at $HTTP/PATH. "PATH -> TARGET" is a
// symbolic link. "setup.sh" is run by sh in the context, for what an archive of text can't hold; $HTTP stands for its http directory
// there, too. A Dockerfile says $HTTP and $GIT for the addresses of the served files and of the git repositories among them.
package cases

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
)

// Case is one Dockerfile with all that a build of it needs.
type Case struct {
	Name    string
	About   string
	Options [][2]string
	Second  [][2]string
	// Rewrites are the passes that are to rewrite it, in order; Listed says that the case tells.
	Rewrites []string
	Listed   bool
	// Never are passes that must not be among Rewrites.
	Never []string
	// Fails is what stock BuildKit says when it fails, "" if it builds.
	Fails string
	Files []txtar.File
}

// Load reads a case.
func Load(file string) (*Case, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read case %s: %w", file, err)
	}
	c.Name = strings.TrimSuffix(filepath.Base(file), ".txtar")
	return c, nil
}

// Parse reads a case's text.
func Parse(text []byte) (*Case, error) {
	a := txtar.Parse(text)
	c := &Case{Files: a.Files}
	for line := range strings.Lines(string(a.Comment)) {
		keyword, rest, found := strings.Cut(strings.TrimSpace(line), ": ")
		if !found {
			keyword = ""
		}
		kind, value, _ := strings.Cut(rest, " ")
		switch keyword {
		case "opt":
			c.Options = append(c.Options, [2]string{kind, value})
		case "second":
			c.Second = append(c.Second, [2]string{kind, value})
		case "fails":
			c.Fails = rest
		case "never":
			c.Never = strings.Split(rest, ",")
		case "rewrite":
			c.Listed = true
			if rest != "none" {
				c.Rewrites = strings.Split(rest, ",")
				slices.Sort(c.Rewrites)
			}
		default:
			c.About += line
		}
	}
	c.About = strings.TrimSpace(c.About)
	if c.file("Dockerfile") < 0 && !slices.ContainsFunc(c.Options, func(o [2]string) bool { return o[0] == "file" }) {
		return nil, fmt.Errorf("no Dockerfile")
	}
	for _, o := range slices.Concat(c.Options, c.Second) {
		if !slices.Contains(kinds, o[0]) {
			return nil, fmt.Errorf("unknown option %q", o[0])
		}
	}
	return c, nil
}

var kinds = []string{"build-arg", "label", "target", "platform", "network", "file", "add-hosts", "context"}

// Format writes what Parse reads.
func (c *Case) Format() []byte {
	var b strings.Builder
	b.WriteString(c.About + "\n\n")
	for _, o := range c.Options {
		fmt.Fprintf(&b, "opt: %s %s\n", o[0], o[1])
	}
	for _, o := range c.Second {
		fmt.Fprintf(&b, "second: %s %s\n", o[0], o[1])
	}
	if c.Fails != "" {
		fmt.Fprintf(&b, "fails: %s\n", c.Fails)
	}
	if c.Never != nil {
		fmt.Fprintf(&b, "never: %s\n", strings.Join(c.Never, ","))
	}
	if c.Listed {
		fmt.Fprintf(&b, "rewrite: %s\n", c.Rewrite())
	}
	return txtar.Format(&txtar.Archive{Comment: []byte(b.String()), Files: c.Files})
}

// Rewrite is the value of the line "rewrite:".
func (c *Case) Rewrite() string {
	if len(c.Rewrites) == 0 {
		return "none"
	}
	return strings.Join(c.Rewrites, ",")
}

func (c *Case) file(name string) int {
	return slices.IndexFunc(c.Files, func(f txtar.File) bool { return f.Name == name })
}

// Dockerfile is the file's text.
func (c *Case) Dockerfile() string {
	if i := c.file("Dockerfile"); i >= 0 {
		return string(c.Files[i].Data)
	}
	return ""
}

// WithDockerfile is the case with another Dockerfile.
func (c *Case) WithDockerfile(text string) *Case {
	d := *c
	d.Files = slices.Clone(c.Files)
	if i := d.file("Dockerfile"); i >= 0 {
		d.Files[i].Data = []byte(text)
	}
	return &d
}

// WithoutFile is the case without a file.
func (c *Case) WithoutFile(name string) *Case {
	d := *c
	d.Files = slices.DeleteFunc(slices.Clone(c.Files), func(f txtar.File) bool { return f.Name == name })
	return &d
}

// HasSecond says that there is something to build a second time.
func (c *Case) HasSecond() bool {
	return len(c.Second) > 0 || slices.ContainsFunc(c.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "second/") })
}

// Place says where a case is written and served.
type Place struct {
	Dir       string // that the case gets for itself; made anew
	HTTP, Git string // addresses of Dir
}

// Context is the directory of the build context.
func (p Place) Context() string { return filepath.Join(p.Dir, "context") }

// Named is the directory of a named context.
func (p Place) Named(name string) string { return filepath.Join(p.Dir, "named", name) }

// Write writes the files of the first build.
func (c *Case) Write(p Place) error {
	if err := os.MkdirAll(p.Context(), 0o755); err != nil {
		return err
	}
	for _, f := range c.Files {
		name := f.Name
		switch {
		case strings.HasPrefix(name, "second/"):
			continue
		case !strings.HasPrefix(name, "named/") && !strings.HasPrefix(name, "http/"):
			name = "context/" + name
		}
		if err := p.write(name, f.Data); err != nil {
			return err
		}
	}
	return p.setup()
}

// WriteSecond changes the files for the second build.
func (c *Case) WriteSecond(p Place) error {
	for _, f := range c.Files {
		name, ok := strings.CutPrefix(f.Name, "second/")
		if !ok {
			continue
		}
		if !strings.HasPrefix(name, "named/") {
			name = "context/" + name
		}
		if gone, ok := strings.CutSuffix(name, " (gone)"); ok {
			if err := os.RemoveAll(filepath.Join(p.Dir, gone)); err != nil {
				return err
			}
			continue
		}
		if err := p.write(name, f.Data); err != nil {
			return err
		}
	}
	return p.setup()
}

func (p Place) write(name string, data []byte) error {
	name, target, link := strings.Cut(name, " -> ")
	file := filepath.Join(p.Dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if link {
		return os.Symlink(target, file)
	}
	data = bytes.ReplaceAll(data, []byte("$HTTP/"), []byte(p.HTTP+"/http/"))
	data = bytes.ReplaceAll(data, []byte("$GIT/"), []byte(p.Git+"/")) // and not $GIT_SHA
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	return os.Chmod(file, fs.FileMode(0o644)) // whatever the umask says
}

func (p Place) setup() error {
	script := filepath.Join(p.Context(), "setup.sh")
	b, err := os.ReadFile(script)
	if err != nil {
		return nil
	}
	if err := os.Remove(script); err != nil {
		return err
	}
	sh := exec.Command("sh", "-euc", "umask 022\n"+string(b))
	sh.Dir = p.Context()
	sh.Env = append(os.Environ(), "GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.com", "GIT_COMMITTER_NAME=test",
		"GIT_COMMITTER_EMAIL=test@example.com", "GIT_AUTHOR_DATE=2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2020-01-01T00:00:00Z", "GIT_CONFIG_NOSYSTEM=1")
	if out, err := sh.CombinedOutput(); err != nil {
		return fmt.Errorf("set up: %w\n%s", err, out)
	}
	return nil
}

// Attrs are the options of a build as attributes of BuildKit's Dockerfile frontend.
func (c *Case) Attrs(p Place, second bool) (attrs map[string]string, contexts map[string]string) {
	attrs, contexts = map[string]string{}, map[string]string{}
	options := c.Options
	if second {
		options = slices.Concat(options, c.Second)
	}
	for _, o := range options {
		switch kind, value := o[0], o[1]; kind {
		case "build-arg", "label":
			k, v, _ := strings.Cut(value, "=")
			attrs[kind+":"+k] = v
		case "network":
			attrs["force-network-mode"] = value
		case "file":
			attrs["filename"] = value
		case "context":
			name, url, remote := strings.Cut(value, "=")
			if !remote {
				url = "local:" + name
				contexts[name] = p.Named(name)
			}
			attrs["context:"+name] = url
		default:
			attrs[kind] = value
		}
	}
	if _, ok := attrs["platform"]; ok && strings.Contains(attrs["platform"], ",") {
		attrs["multi-platform"] = "true"
	}
	return attrs, contexts
}
