package fuzzbuild

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/optbuild/optbuild/integration/oracle/cases"
)

//go:embed projects/*.txtar
var archives embed.FS

// Project is a Dockerfile with a context. It is written as a case of package cases, with more keywords:
//
//	probe: PATH PATH...   names that a step might look for and that are not there: they are created in several ways
//	pulse: PATH           a file that no step reads; some mutations change it along, so that COPY gives another layer
//	times:                what comes out depends on time stamps of the context; every mutation changes the pulse
//	secret: ID VALUE      a secret of the build
//	image: NAME           a base image of images.go, without which the project is skipped
type Project struct {
	Case    *cases.Case
	Name    string
	Probes  []string
	Pulse   string
	Times   bool
	Secrets map[string]string
	Image   string
}

// Projects are those below projects, by name.
func Projects() ([]*Project, error) {
	entries, err := archives.ReadDir("projects")
	if err != nil {
		return nil, err
	}
	var all []*Project
	for _, e := range entries {
		text, err := archives.ReadFile(path.Join("projects", e.Name()))
		if err != nil {
			return nil, err
		}
		p, err := ParseProject(strings.TrimSuffix(e.Name(), ".txtar"), text)
		if err != nil {
			return nil, fmt.Errorf("read project %s: %w", e.Name(), err)
		}
		all = append(all, p)
	}
	return all, nil
}

// ParseProject reads a project's text.
func ParseProject(name string, text []byte) (*Project, error) {
	p := &Project{Name: name, Secrets: map[string]string{}}
	a := txtar.Parse(text)
	var rest strings.Builder
	for line := range strings.Lines(string(a.Comment)) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch keyword {
		case "probe":
			p.Probes = append(p.Probes, strings.Fields(value)...)
		case "pulse":
			p.Pulse = value
		case "times":
			p.Times = true
		case "secret":
			id, secret, _ := strings.Cut(value, " ")
			p.Secrets[id] = secret
		case "image":
			p.Image = value
		default:
			rest.WriteString(line)
		}
	}
	a.Comment = []byte(rest.String())
	c, err := cases.Parse(txtar.Format(a))
	if err != nil {
		return nil, err
	}
	c.Name = name
	p.Case = c
	if p.Times && p.Pulse == "" {
		return nil, fmt.Errorf("a project with times needs a pulse")
	}
	return p, nil
}

// long is what files of a context look like: written long before any build, each at a second of its own, in the order of their names.
var long = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// Write writes the context below dir and returns its directory. Files have old time stamps, unless setup.sh gave them others.
func (p *Project) Write(dir string) (string, error) {
	begin := time.Now().Add(-time.Hour)
	place := cases.Place{Dir: dir}
	if err := p.Case.Write(place); err != nil {
		return "", err
	}
	var paths []string
	err := filepath.WalkDir(place.Context(), func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return "", err
	}
	slices.Sort(paths)
	hasSetup := slices.ContainsFunc(p.Case.Files, func(f txtar.File) bool { return f.Name == "setup.sh" })
	for i, path := range slices.Backward(paths) { // directories after what is in them
		fi, err := os.Lstat(path)
		if err != nil {
			return "", err
		}
		if fi.IsDir() && !hasSetup {
			if err := os.Chmod(path, 0o755); err != nil { // whatever the umask says
				return "", err
			}
		}
		if fi.ModTime().After(begin) {
			if err := setTime(path, long.Add(time.Duration(i)*time.Second)); err != nil {
				return "", err
			}
		}
	}
	return place.Context(), nil
}
