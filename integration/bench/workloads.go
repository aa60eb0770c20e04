package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// workload is a project that is built as people write its Dockerfile, and as an expert does.
type workload struct {
	name     string // "W1": what people select by. Part of the names of images: letters, digits and hyphens
	what     string
	generate func(context.Context, *bench) (*project, error)
	apt      bool   // its steps download from Debian's mirrors: through a proxy that fetches once
	made     string // a file of the image in which the mark of the source file that was edited stands; "": none
	// manifest drops a dependency or adds it again; a serial number that was not there before makes the file another one each time. nil: there is no
	// list of dependencies.
	manifest  func(p *project, serial int) error
	platforms string
	onlyNaive bool // there is nothing to do better by hand

	made1 *project
	err   error
}

// workloads are the issue tracker's W1 to W6. Each is generated when its first cell is measured.
func (b *bench) workloads() []*workload {
	return []*workload{
		{name: "W1", what: "npm: react, webpack, typescript, eslint; bundled", generate: webpackProject, made: "app/dist/main.js", manifest: webpackManifest},
		{name: "W2", what: "Debian, six RUNs of apt-get", generate: sixRunsProject, apt: true, made: "srv/www/index.html", manifest: sixRunsManifest},
		{name: "W3", what: "Go server, some 30 modules", generate: serverProject, made: "server", manifest: serverManifest},
		{name: "W4", what: "Python, wheels", generate: flaskProject, made: "app/app.py", manifest: flaskManifest},
		{name: "W5", what: "monorepo of 12 packages", generate: monorepoProject, made: "app/packages/p3/dist.js", manifest: monorepoManifest},
		{name: "W6", what: "C, make", generate: libraryProject, made: "usr/local/bin/app"},
	}
}

// filesWorkload copies very many files, and does nothing with them.
func (b *bench) filesWorkload(files int) *workload {
	return &workload{
		name: fmt.Sprintf("files-%d", files), what: "COPY . .", onlyNaive: true, made: "srv/main.txt",
		generate: func(_ context.Context, b *bench) (*project, error) {
			content := map[string]string{"main.txt": marked + "\n"}
			for i := range files {
				path := fmt.Sprintf("d%d/e%d/%d.txt", i/1000, i/50, i)
				content[path] = source(path, 100)
			}
			p, err := b.newProject(fmt.Sprint("files-", files), content, map[string]string{"naive": "FROM debian:12\nWORKDIR /srv\nCOPY . .\n"})
			if err == nil {
				p.edit = "main.txt"
			}
			return p, err
		},
	}
}

func (w *workload) dockerfiles() []string {
	if w.onlyNaive {
		return []string{"naive"}
	}
	return []string{"naive", "by-hand"}
}

// project makes the project, once.
func (w *workload) project(ctx context.Context, b *bench) (*project, error) {
	if w.made1 == nil && w.err == nil {
		w.made1, w.err = w.generate(ctx, b)
	}
	return w.made1, w.err
}

// A mark is a word in a source file that gets into what is made of it.
const marked = "EDIT-0-"

var mark = regexp.MustCompile(`EDIT-\d+-`)

// edited changes the mark.
func (p *project) edited() error {
	p.serial++
	p.marked = p.serial
	return replaceIn(filepath.Join(p.dir, p.edit), mark, p.mark())
}

func (p *project) mark() string { return fmt.Sprintf("EDIT-%d-", p.marked) }

// replaceIn replaces a pattern, which has to be there, in a file.
func replaceIn(path string, pattern *regexp.Regexp, with string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !pattern.Match(text) {
		return fmt.Errorf("%s has no %s", path, pattern)
	}
	return os.WriteFile(path, pattern.ReplaceAllLiteral(text, []byte(with)), 0o644)
}
