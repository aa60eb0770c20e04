package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// coldProject is a project that runners check out.
type coldProject struct {
	name     string
	generate func(context.Context, *bench) (*project, error)
	// drop1 takes the n-th dependency from the end out of a checkout's list.
	drop1  func(p *project, n int) error
	made   string // a file of the image that is made of the source file that is edited
	binary bool   // it does not hold that file's text

	project *project // as it was when the caches were written
	dropped int
}

func (p *coldProject) image(g *coldGround, side string) string {
	return g.registry + "/" + p.name + "-" + side + "/app:1"
}

func (p *coldProject) cache(g *coldGround, side string) string {
	return g.registry + "/" + p.name + "-" + side + "/cache"
}

// checkout copies the project as it was written.
func (p *coldProject) checkout(root string) (*project, error) {
	from := filepath.Dir(p.project.dir)
	if err := os.CopyFS(root, os.DirFS(from)); err != nil {
		return nil, err
	}
	p.project.serial++ // each checkout is edited in its own way
	return &project{dir: filepath.Join(root, filepath.Base(p.project.dir)), naive: filepath.Join(root, filepath.Base(p.project.naive)),
		byHand: filepath.Join(root, filepath.Base(p.project.byHand)), edit: p.project.edit, serial: p.project.serial}, nil
}

func (p *coldProject) change(c *project) error { return c.change() }

// drop leaves one dependency out, another one each time.
func (p *coldProject) drop(c *project) error {
	p.dropped++
	return p.drop1(c, p.dropped)
}

func dropNpm(p *project, n int) error {
	name := fmt.Sprintf("bench-%d", 100-n)
	for _, file := range []string{"package.json", "package-lock.json"} {
		path := filepath.Join(p.dir, file)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var v map[string]any
		if err := json.Unmarshal(text, &v); err != nil {
			return err
		}
		lists := []any{v["dependencies"]}
		if packages, ok := v["packages"].(map[string]any); ok {
			delete(packages, "node_modules/"+name)
			lists = append(lists, packages[""].(map[string]any)["dependencies"])
		}
		for _, l := range lists {
			if l, ok := l.(map[string]any); ok {
				delete(l, name)
			}
		}
		if text, err = json.Marshal(v); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func dropGo(p *project, n int) error {
	i := 40 - n
	return errors.Join(
		cutText(filepath.Join(p.dir, "go.mod"), fmt.Sprintf("require example.test/lib/m%d v1.0.0\n", i), fmt.Sprintf("\texample.test/lib/m%d v1.0.0\n", i)),
		cutText(filepath.Join(p.dir, "cmd", "app", "main.go"), fmt.Sprintf("\t\"example.test/lib/m%d\"\n", i)),
		cutText(filepath.Join(p.dir, "cmd", "app", "main.go"), fmt.Sprintf("\tn += m%d.F%d(a)\n", i, i%20)),
	)
}

func dropApt(p *project, n int) error {
	name := fmt.Sprintf(" bench-%d", 10-n)
	return errors.Join(cutText(p.naive, name), cutText(p.byHand, name))
}

// cutText removes one of the texts, which has to be there, from a file.
func cutText(path string, texts ...string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, t := range texts {
		if before, after, ok := strings.Cut(string(b), t); ok {
			return os.WriteFile(path, []byte(before+after), 0o644)
		}
	}
	return fmt.Errorf("%s has no %q", path, texts)
}
