package fuzzbuild

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Mutation is one change of a context.
type Mutation struct {
	Kind string
	Path string
	// Pulse says that the project's pulse changes along.
	Pulse bool
	// SetsBack says that a time stamp becomes older, and nothing else changes.
	SetsBack bool

	do func(dir string) error
}

func (m Mutation) String() string {
	s := m.Kind
	if m.Path != "" {
		s += " " + m.Path
	}
	if m.Pulse {
		s += " + pulse"
	}
	return s
}

// Apply changes the context. What it did not touch keeps its time stamp; what it wrote has that of now.
func (m Mutation) Apply(p *Project, dir string) error {
	if err := m.do(dir); err != nil {
		return fmt.Errorf("mutate: %s: %w", m, err)
	}
	if !m.Pulse {
		return nil
	}
	return beat(filepath.Join(dir, p.Pulse))
}

// beat changes the pulse to a value that it never had.
func beat(file string) error {
	return os.WriteFile(file, []byte(fmt.Sprintf("%d\n", time.Now().UnixNano())), 0o644)
}

// Mutations are all changes of single things in a context: of each file, directory and link, and of each name in probes that is
// not there. The same seed gives the same.
func Mutations(p *Project, s State, seed uint64) []Mutation {
	m := &mutator{state: s, rand: rand.New(rand.NewPCG(seed, 1)), pulse: p.Pulse != ""}
	files := slices.DeleteFunc(s.files(), func(f string) bool { return f == p.Pulse })
	for i, f := range files {
		m.file(f, files[(i+1)%len(files)])
	}
	for _, d := range append(s.dirs(), ".") {
		m.directory(d)
	}
	for _, l := range s.links() {
		m.link(l)
	}
	for _, name := range p.Probes {
		m.probe(name, files)
	}
	m.whole(files)
	for i := range m.out {
		if p.Times {
			m.out[i].Pulse = true
		}
	}
	return m.out
}

type mutator struct {
	state State
	rand  *rand.Rand
	pulse bool
	out   []Mutation
}

func (m *mutator) add(kind, path string, do func(path string) error) {
	m.out = append(m.out, Mutation{Kind: kind, Path: path, do: func(dir string) error { return do(filepath.Join(dir, path)) }})
}

// file changes a file; other is another one of the context.
func (m *mutator) file(f, other string) {
	was := m.state[f]
	m.add("same-size", f, func(path string) error { return rewrite(path, sameSize(was.Content)) })
	m.add("same-size-and-time", f, func(path string) error {
		if err := rewrite(path, sameSize(was.Content)); err != nil {
			return err
		}
		return setTime(path, was.Time)
	})
	m.add("grow", f, func(path string) error { return rewrite(path, grown(was.Content)) })
	m.add("append", f, func(path string) error { return rewrite(path, was.Content+"\n") })
	m.add("empty", f, func(path string) error { return rewrite(path, "") })
	m.add("replace", f, func(path string) error { // as editors do that write a new file
		if err := os.WriteFile(path+".new", []byte(grown(was.Content)), was.Mode.Perm()); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	})
	m.add("delete", f, os.Remove)
	mode := fs.FileMode(0o755)
	if was.Mode.Perm()&0o111 != 0 {
		mode = 0o644
	}
	for _, mode := range []fs.FileMode{mode, 0o664, 0o600} {
		if mode != was.Mode.Perm() {
			m.add(fmt.Sprintf("chmod-%o", mode), f, func(path string) error { return os.Chmod(path, mode) })
		}
	}
	m.add("to-directory", f, func(path string) error { return instead(path, func() error { return os.Mkdir(path, 0o755) }) })
	m.add("to-link", f, func(path string) error {
		target, err := filepath.Rel(filepath.Dir(f), other)
		if err != nil {
			return err
		}
		return instead(path, func() error { return os.Symlink(target, path) })
	})
	m.add("to-dangling-link", f, func(path string) error { return instead(path, func() error { return os.Symlink("nowhere", path) }) })
	m.add("rename", f, func(path string) error {
		return os.Rename(path, filepath.Join(filepath.Dir(path), "renamed-"+filepath.Base(path)))
	})
	if other != f {
		m.out = append(m.out, Mutation{Kind: "swap", Path: f, do: func(dir string) error { return swap(filepath.Join(dir, f), filepath.Join(dir, other)) }})
	}
	m.time("touch", f, time.Time{})
	m.time("future", f, time.Now().Add(time.Hour))
	m.time("older", f, was.Time.Add(-1000*time.Hour))
}

// time gives a file another time stamp; the zero time is now.
func (m *mutator) time(kind, f string, t time.Time) {
	do := func(path string) error {
		if t.IsZero() {
			return setTime(path, time.Now())
		}
		return setTime(path, t)
	}
	m.add(kind, f, do)
	if m.pulse { // else BuildKit's own cache has the result
		m.out[len(m.out)-1].Pulse = true
	}
	m.out[len(m.out)-1].SetsBack = kind == "older"
}

func (m *mutator) directory(d string) {
	extension := ""
	var inside []string
	for _, p := range slices.Sorted(maps.Keys(m.state)) {
		if p != "." && filepath.Dir(p) == d {
			inside = append(inside, p)
			if m.state[p].Mode.IsRegular() && p != "Dockerfile" {
				extension = filepath.Ext(p)
			}
		}
	}
	m.add("add-file", filepath.Join(d, "added"+extension), func(path string) error { return os.WriteFile(path, []byte("added 1\n"), 0o644) })
	m.add("add-hidden-file", filepath.Join(d, ".added"), func(path string) error { return os.WriteFile(path, []byte("added\n"), 0o644) })
	m.add("add-directory", filepath.Join(d, "added.d"), func(path string) error { return os.Mkdir(path, 0o755) })
	m.add("add-link", filepath.Join(d, "added"+extension), func(path string) error { return os.Symlink("nowhere", path) })
	if d == "." {
		return
	}
	for _, mode := range []fs.FileMode{0o700, 0o777} {
		if mode == m.state[d].Mode.Perm() {
			continue
		}
		m.add(fmt.Sprintf("chmod-%o", mode), d, func(path string) error { return os.Chmod(path, mode) })
		m.out[len(m.out)-1].Pulse = m.pulse // else the key of a COPY is the same
	}
	m.add("delete-all", d, os.RemoveAll)
	m.add("rename-directory", d, func(path string) error { return os.Rename(path, path+"-renamed") })
	m.add("to-link-to-directory", d, func(path string) error {
		if err := os.Rename(path, path+"-real"); err != nil {
			return err
		}
		return os.Symlink(filepath.Base(path)+"-real", path)
	})
	m.add("to-file", d, func(path string) error {
		return instead(path, func() error { return os.WriteFile(path, []byte("a file 1\n"), 0o644) })
	})
	if len(inside) > 0 {
		m.add("clear", d, func(path string) error { return instead(path, func() error { return os.Mkdir(path, 0o755) }) })
	}
}

func (m *mutator) link(l string) {
	was := m.state[l]
	m.add("retarget", l, func(path string) error { return instead(path, func() error { return os.Symlink("nowhere", path) }) })
	m.add("retarget-same", l, func(path string) error {
		return instead(path, func() error { return os.Symlink("./"+was.Content, path) })
	})
	m.add("delete", l, os.Remove)
	m.add("link-to-file", l, func(path string) error {
		return instead(path, func() error { return os.WriteFile(path, []byte("no link 1\n"), 0o644) })
	})
	m.add("link-to-directory", l, func(path string) error { return instead(path, func() error { return os.Mkdir(path, 0o755) }) })
}

// probe creates a name that is not there.
func (m *mutator) probe(name string, files []string) {
	create := func(kind string, do func(path string) error) {
		m.add(kind, name, func(path string) error {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			return do(path)
		})
	}
	like := "made 1\n"
	for _, f := range files { // what a step would find there should be of the kind that it expects
		if filepath.Ext(f) == filepath.Ext(name) {
			like = sameSize(m.state[f].Content)
		}
	}
	create("create", func(path string) error { return os.WriteFile(path, []byte(like), 0o644) })
	create("create-empty", func(path string) error { return os.WriteFile(path, nil, 0o755) })
	create("create-directory", func(path string) error { return os.Mkdir(path, 0o755) })
	create("create-dangling-link", func(path string) error { return os.Symlink("nowhere", path) })
	if len(files) > 0 {
		to := files[m.rand.IntN(len(files))]
		create("create-link", func(path string) error {
			target, err := filepath.Rel(filepath.Dir(name), to)
			if err != nil {
				return err
			}
			return os.Symlink(target, path)
		})
	}
}

// whole changes the context as a checkout does.
func (m *mutator) whole(files []string) {
	order := m.rand.Perm(len(files))
	checkout := func(dir string) error {
		now := time.Now()
		for i, n := range order {
			if err := setTime(filepath.Join(dir, files[n]), now.Add(-time.Duration(i)*10*time.Millisecond)); err != nil {
				return err
			}
		}
		return nil
	}
	m.out = append(m.out, Mutation{Kind: "checkout", do: checkout})
	if m.pulse {
		m.out = append(m.out, Mutation{Kind: "checkout", Pulse: true, do: checkout},
			Mutation{Kind: "nothing", Pulse: true, do: func(string) error { return nil }})
	}
	for _, f := range files {
		was := m.state[f]
		m.out = append(m.out, Mutation{Kind: "checkout, edit", Path: f, do: func(dir string) error {
			if err := checkout(dir); err != nil {
				return err
			}
			return rewrite(filepath.Join(dir, f), sameSize(was.Content))
		}})
	}
	m.out = append(m.out, Mutation{Kind: "comment", Path: "Dockerfile", do: func(dir string) error {
		return rewrite(filepath.Join(dir, "Dockerfile"), m.state["Dockerfile"].Content+"# a comment\n")
	}})
}

// sameSize is the content with its last digit, or else its last letter, another one.
func sameSize(content string) string {
	if i := strings.LastIndexAny(content, "0123456789"); i >= 0 {
		return content[:i] + string('0'+(content[i]-'0'+1)%10) + content[i+1:]
	}
	if i := strings.LastIndexAny(content, "abcdefghijklmnopqrstuvwxyz"); i >= 0 {
		return content[:i] + string('a'+(content[i]-'a'+1)%26) + content[i+1:]
	}
	if content == "" {
		return "1"
	}
	if other := strings.Repeat("#", len(content)); other != content {
		return other
	}
	return strings.Repeat("~", len(content))
}

// grown is the content with a digit or a letter more.
func grown(content string) string {
	if i := strings.LastIndexAny(content, "0123456789"); i >= 0 {
		return content[:i+1] + "1" + content[i+1:]
	}
	if i := strings.LastIndexAny(content, "abcdefghijklmnopqrstuvwxyz"); i >= 0 {
		return content[:i+1] + "x" + content[i+1:]
	}
	return content + "1"
}

// rewrite writes into the file that is there.
func rewrite(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(content); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// instead removes what is at a path and makes something else.
func instead(path string, do func() error) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return do()
}

func swap(a, b string) error {
	if err := os.Rename(a, a+".swap"); err != nil {
		return err
	}
	if err := os.Rename(b, a); err != nil {
		return err
	}
	return os.Rename(a+".swap", b)
}
