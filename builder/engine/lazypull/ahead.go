package lazypull

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"mvdan.cc/sh/v3/syntax"
)

// The programs that a step names are read before it begins: from when their layer is mounted on, while layers above it are still fetched and unpacked, and from the front to the end. A program of 100 MB that is started is asked
// for in pieces, wherever the kernel happens to need one. What is read stays in the kernel's page cache, which the step's root shares.

const (
	// Smaller programs come with one request, whoever asks. Of larger ones than the other bound nobody knows whether all of it will be needed.
	leastAhead, mostAhead = 1 << 20, 256 << 20
	// aheadPrograms is how many are looked for.
	aheadPrograms = 16
	aheadPiece    = 1 << 20
	mostLinks     = 40
)

// launchers are scripts that start another program, which may be in a layer that is here before they are.
var launchers = map[string]string{
	"npm": "node", "npx": "node", "yarn": "node", "pnpm": "node", "corepack": "node",
	"pip": "python3", "pip3": "python3", "pipenv": "python3", "poetry": "python3",
	"mvn": "java", "gradle": "java", "sbt": "java",
	"bundle": "ruby", "gem": "ruby", "rake": "ruby",
	"composer": "php",
}

type commandKey struct{}

// command is what a step runs.
type command struct{ args, env []string }

// WithCommand returns a context in which a Manager's New knows what is to be run on what it makes. It has to end when that has been run.
func WithCommand(ctx context.Context, args, env []string) context.Context {
	return context.WithValue(ctx, commandKey{}, command{args, env})
}

// readAhead reads the programs of the context's command in the layers of a record, as these get mounted. It returns at once.
func (m manager) readAhead(ctx context.Context, r cache.ImmutableRef, g session.Group) {
	c, ok := ctx.Value(commandKey{}).(command)
	if !ok || m.p == nil || !m.wantsParts(g) {
		return
	}
	names := c.programs()
	ids := m.layerIDs(ctx, r, g)
	if len(names) == 0 || len(ids) == 0 {
		return
	}
	a := &ahead{p: m.p, ids: ids, names: names, path: c.path()}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(m.p.closing, cancel)
	m.p.reading.Go(func() {
		defer cancel()
		defer stop()
		a.run(ctx)
	})
}

// layerIDs are the ids of those layers of a record that can be mounted, the topmost first.
func (m manager) layerIDs(ctx context.Context, r cache.ImmutableRef, g session.Group) (ids []string) {
	remotes, err := r.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: compression.New(compression.Default)}, false, g)
	if err != nil || len(remotes) == 0 {
		return nil
	}
	for _, d := range slices.Backward(remotes[0].Descriptors) {
		l := layer{Digest: d.Digest}
		if h := r.DescHandler(d.Digest); hasTwin(h) {
			l, _, _ = fromLabels(h.SnapshotLabels)
		}
		if l.TOC == "" {
			l.TOC = digest.Digest(d.Annotations[estargz.TOCJSONDigestAnnotation])
		}
		if l.TOC != "" {
			ids = append(ids, l.id())
		}
	}
	return ids
}

// programs are the names of what a command starts, as far as its text tells.
func (c command) programs() (names []string) {
	add := func(name string) {
		if name != "" && len(names) < aheadPrograms && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	each := func(word string) {
		add(word)
		add(launchers[path.Base(word)])
	}
	script, ok := c.script()
	if !ok {
		if len(c.args) > 0 {
			each(c.args[0])
		}
		return names
	}
	file, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if err != nil {
		return nil // the shell says what is wrong
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		if call, ok := n.(*syntax.CallExpr); ok && len(call.Args) > 0 {
			each(call.Args[0].Lit())
		}
		return true
	})
	return names
}

// script is what a shell is given to run, as in `/bin/bash -o pipefail -c SCRIPT` or `sh -ec SCRIPT`.
func (c command) script() (string, bool) {
	n := len(c.args)
	if n < 3 || !strings.HasSuffix(c.args[0], "sh") {
		return "", false
	}
	option := c.args[n-2]
	return c.args[n-1], strings.HasPrefix(option, "-") && strings.HasSuffix(option, "c")
}

// path is where programs are looked for.
func (c command) path() (dirs []string) {
	value := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range c.env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			value = v
		}
	}
	for _, d := range strings.Split(value, ":") {
		if path.IsAbs(d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// ahead reads the programs of one step.
type ahead struct {
	p     *Puller
	ids   []string // of layers, the topmost first
	names []string // of programs, "" for those that were found
	path  []string
}

func (a *ahead) run(ctx context.Context) {
	for {
		mounted := a.p.nextMount()
		if a.readFound(ctx) {
			return
		}
		select {
		case <-mounted:
		case <-ctx.Done():
			return
		}
	}
}

// readFound reads the programs that are in layers that are mounted by now. It is true if those were all.
func (a *ahead) readFound(ctx context.Context) (all bool) {
	u := a.p.union(a.ids)
	defer u.close()
	all = true
	for i := 0; i < len(a.names); i++ { // it grows
		if a.names[i] == "" {
			continue
		}
		f, found := a.find(u, a.names[i])
		if !found {
			all = false
			continue
		}
		a.names[i] = ""
		if err := a.read(ctx, f); err != nil && ctx.Err() == nil {
			logrus.WithError(err).Debug("a program is not read ahead")
		}
	}
	return all
}

// find returns a program.
func (a *ahead) find(u union, name string) (f unionFile, ok bool) {
	if path.IsAbs(name) {
		return u.file(name)
	}
	if strings.Contains(name, "/") {
		return f, false // it is relative to a directory that is not known
	}
	for _, dir := range a.path {
		if f, ok := u.file(path.Join(dir, name)); ok {
			return f, true
		}
	}
	return f, false
}

// read reads a program whole, and has the interpreter of a script read, too.
func (a *ahead) read(ctx context.Context, at unionFile) error {
	if !a.p.firstRead(at.root.Name() + "/" + at.path) {
		return nil
	}
	f, err := at.root.Open(at.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if at.bytes < leastAhead {
		b := make([]byte, 256)
		n, err := f.ReadAt(b, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if name := interpreter(string(b[:n])); name != "" && len(a.names) < 2*aheadPrograms {
			a.names = append(a.names, name)
		}
		return nil
	}
	if at.bytes > mostAhead {
		return nil
	}
	for b := make([]byte, aheadPiece); ctx.Err() == nil; {
		if _, err := f.Read(b); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// interpreter is what the first line of a script names; "" if it names none.
func interpreter(begin string) string {
	line, _, _ := strings.Cut(begin, "\n")
	rest, ok := strings.CutPrefix(line, "#!")
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return ""
	}
	if path.Base(words[0]) == "env" {
		words = slices.DeleteFunc(words[1:], func(w string) bool { return w == "-S" })
	}
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// union is layers as a step sees them, the topmost first; without what is deleted in them.
type union []*os.Root

type unionFile struct {
	root  *os.Root
	path  string
	bytes int64
}

// union opens those layers that are mounted.
func (p *Puller) union(ids []string) (u union) {
	for _, id := range ids {
		if r, err := os.OpenRoot(p.o.Layers.RemotePath(id)); err == nil {
			u = append(u, r)
		}
	}
	return u
}

func (u union) close() {
	for _, r := range u {
		r.Close()
	}
}

// file returns the regular file of a name. Links are followed in the layers, and lead nowhere else.
func (u union) file(name string) (f unionFile, ok bool) {
	at, rest := "", components(name)
	for links := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		root, fi := u.lstat(next)
		switch {
		case fi == nil:
			return f, false
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := root.Readlink(next)
			if links++; err != nil || links > mostLinks {
				return f, false
			}
			if !path.IsAbs(target) {
				target = path.Join("/", at, target)
			}
			at, rest = "", append(components(target), rest...)
		case len(rest) == 0:
			return unionFile{root, next, fi.Size()}, fi.Mode().IsRegular()
		default:
			at = next
		}
	}
	return f, false
}

func components(name string) []string {
	return strings.FieldsFunc(path.Clean(name), func(r rune) bool { return r == '/' })
}

// lstat looks for a name in the topmost layer that has it.
func (u union) lstat(name string) (*os.Root, fs.FileInfo) {
	for _, r := range u {
		if fi, err := r.Lstat(name); err == nil {
			return r, fi
		}
	}
	return nil, nil
}
