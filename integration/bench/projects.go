package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// project is a directory to build, and the Dockerfiles that it may be built with. They are no part of the directory.
type project struct {
	dir string // the build's context
	// naive is a Dockerfile in which COPY . . comes first; byHand has the order and the cache mounts of an expert; fresh is naive with the word
	// STAMP in the step that is measured, in place of which something else is written each time, so that it is another step.
	naive, byHand, fresh string
	edit                 string // the source file that is changed, below dir
	serial               int
	marked               int // the serial number that its mark has, see workloads.go
}

// change edits one source file.
func (p *project) change() error {
	p.serial++
	path := filepath.Join(p.dir, p.edit)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	kept, _, _ := strings.Cut(string(text), "//edit ")
	return os.WriteFile(path, fmt.Appendf(nil, "%s//edit %d\n", kept, p.serial), 0o644)
}

// newProject writes a context and its Dockerfiles.
func (b *bench) newProject(name string, files map[string]string, dockerfiles map[string]string) (*project, error) {
	root := filepath.Join(b.Dir, "projects", name)
	p := &project{dir: filepath.Join(root, "context")}
	if err := writeFiles(p.dir, files); err != nil {
		return nil, err
	}
	if err := writeFiles(root, dockerfiles); err != nil {
		return nil, err
	}
	p.naive, p.byHand, p.fresh = filepath.Join(root, "naive"), filepath.Join(root, "by-hand"), filepath.Join(root, "fresh")
	return p, nil
}

// docs are files that no step needs: pictures, texts, tests.
func docs(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		path := fmt.Sprintf("docs/%d/%d.md", i/50, i)
		files[path] = source(path, 2<<10)
	}
	return files
}

// npmProject installs 100 packages of 100 files each, and joins 40 source files.
func npmProject(ctx context.Context, b *bench) (*project, error) {
	image, err := node.push(ctx, b)
	if err != nil {
		return nil, err
	}
	content := served{}
	address, err := b.serve(content)
	if err != nil {
		return nil, err
	}
	dependencies, packages := map[string]string{}, map[string]any{}
	for i := range 100 {
		name := fmt.Sprintf("bench-%d", i)
		archive, integrity, err := npmPackage(name, 100)
		if err != nil {
			return nil, err
		}
		path := fmt.Sprintf("/%s/-/%s-1.0.0.tgz", name, name)
		content[path], dependencies[name] = archive, "1.0.0"
		packages["node_modules/"+name] = map[string]string{"version": "1.0.0", "resolved": address + path, "integrity": integrity}
	}
	app := map[string]any{"name": "app", "version": "1.0.0", "dependencies": dependencies}
	packages[""] = app
	lock, err := json.Marshal(map[string]any{"name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": packages})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(map[string]any{"name": "app", "version": "1.0.0", "dependencies": dependencies,
		"scripts": map[string]string{"build": "node build.js"}})
	if err != nil {
		return nil, err
	}
	files := docs(450)
	maps.Copy(files, map[string]string{
		"package.json": string(manifest), "package-lock.json": string(lock), ".dockerignore": "node_modules\n",
		"build.js": `const fs = require('fs');
fs.mkdirSync('dist', {recursive: true});
fs.writeFileSync('dist/app.js', fs.readdirSync('src').map(f => fs.readFileSync('src/' + f, 'utf8')).join('') + require('bench-0'));
`})
	for i := range 40 {
		path := fmt.Sprintf("src/%d.js", i)
		files[path] = source(path, 2<<10)
	}
	top := fmt.Sprintf("FROM %s\nENV npm_config_registry=%s npm_config_update_notifier=false\nWORKDIR /app\n", image, address)
	p, err := b.newProject("npm", files, map[string]string{
		"naive": top + "COPY . .\nRUN npm ci\nRUN npm run build\n",
		"by-hand": top + "COPY package.json package-lock.json ./\nRUN --mount=type=cache,target=/root/.npm npm ci\n" +
			"COPY . .\nRUN npm run build\n",
		"fresh": top + "COPY . .\nRUN : STAMP; npm ci\n",
	})
	if err != nil {
		return nil, err
	}
	p.edit = "src/7.js"
	return p, nil
}

// goFiles are a program in Go with 30 packages of its own, and the address at which the 40 modules of 20 files each are served that it needs. begin and imported are statements that
// it begins with, and the packages that these need.
func goFiles(b *bench, begin string, imported ...string) (files map[string]string, address string, err error) {
	content := served{}
	if address, err = b.serve(content); err != nil {
		return nil, "", err
	}
	files = docs(450)
	var imports, uses strings.Builder
	for _, path := range imported {
		fmt.Fprintf(&imports, "\t%q\n", path)
	}
	mod := "module example.test/app\n\ngo 1.21\n\n"
	for i := range 40 {
		path := fmt.Sprintf("example.test/lib/m%d", i)
		module, err := goModule(path, "v1.0.0", 20)
		if err != nil {
			return nil, "", err
		}
		maps.Copy(content, module)
		mod += "require " + path + " v1.0.0\n"
		fmt.Fprintf(&imports, "\t%q\n", path)
		fmt.Fprintf(&uses, "\tn += m%d.F%d(a)\n", i, i%20)
	}
	for i := range 30 {
		path := fmt.Sprintf("internal/p%d", i)
		for j := range 5 {
			files[fmt.Sprintf("%s/f%d.go", path, j)] = fmt.Sprintf("package p%d\n\n%s\nfunc F%d(n int) int { return n + %d }\n",
				i, source(path, 1<<10), j, j)
		}
		fmt.Fprintf(&imports, "\t%q\n", "example.test/app/"+path)
		fmt.Fprintf(&uses, "\tn += p%d.F%d(n)\n", i, i%5)
	}
	files["go.mod"] = mod
	files["cmd/app/main.go"] = "package main\n\nimport (\n\t\"fmt\"\n\n" + imports.String() +
		")\n\nfunc main() {\n" + begin + "\ta, n := []int{1}, 0\n" + uses.String() + "\tfmt.Println(n)\n}\n"
	return files, address, nil
}

// tidy makes go.sum.
func (p *project) tidy(ctx context.Context, b *bench, address string) error {
	c := exec.CommandContext(ctx, "go", "mod", "tidy")
	c.Dir = p.dir
	c.Env = append(os.Environ(), "GOPROXY="+address, "GOSUMDB=off", "GOFLAGS=-mod=mod -modcacherw", "GOWORK=off",
		"GOMODCACHE="+filepath.Join(b.Dir, "modules"))
	return execute(c)
}

// goProject is that program for this machine's platform.
func goProject(ctx context.Context, b *bench) (*project, error) {
	image, err := golang.push(ctx, b)
	if err != nil {
		return nil, err
	}
	files, address, err := goFiles(b, "")
	if err != nil {
		return nil, err
	}
	top := fmt.Sprintf("FROM %s AS build\nENV GOPROXY=%s\nWORKDIR /src\n", image, address)
	end := "FROM scratch\nCOPY --from=build /usr/local/bin/app /app\n"
	p, err := b.newProject("go", files, map[string]string{
		"naive": top + "COPY . .\nRUN go mod download\n" +
			"RUN CGO_ENABLED=0 go build -o /usr/local/bin/app ./cmd/app\n" + end,
		"by-hand": top + "COPY go.mod go.sum ./\nRUN --mount=type=cache,target=/go/pkg/mod go mod download\nCOPY . .\n" +
			"RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build " +
			"CGO_ENABLED=0 go build -o /usr/local/bin/app ./cmd/app\n" + end,
		"fresh": top + "COPY . .\nRUN : STAMP; go build -o /usr/local/bin/app ./cmd/app\n",
	})
	if err != nil {
		return nil, err
	}
	p.edit = "cmd/app/main.go"
	return p, p.tidy(ctx, b, address)
}

// aptProject installs 10 packages of 300 files each.
func aptProject(ctx context.Context, b *bench) (*project, error) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		return nil, skipped("there is no dpkg-deb to make packages with")
	}
	content := served{}
	address, err := b.serve(content)
	if err != nil {
		return nil, err
	}
	var names []string
	index := ""
	for i := range 10 {
		name := fmt.Sprintf("bench-%d", i)
		archive, part, err := debPackage(filepath.Join(b.Dir, "debs"), name, 300)
		if err != nil {
			return nil, err
		}
		content["/./"+name+".deb"], content["/"+name+".deb"] = archive, archive
		index, names = index+part, append(names, name)
	}
	content["/./Packages"], content["/Packages"] = []byte(index), []byte(index)
	files := docs(450)
	maps.Copy(files, map[string]string{"src/menu.txt": "soup\n",
		"build.sh": "mkdir -p /srv/www && cat src/*.txt /usr/share/bench-0/0.txt > /srv/www/index.html\n"})
	top := "FROM debian:12\nRUN rm -rf /etc/apt/sources.list.d/* && echo 'deb [trusted=yes] " + address + "/ ./' > /etc/apt/sources.list\nWORKDIR /app\n"
	get := "apt-get update && apt-get install -y " + strings.Join(names, " ")
	p, err := b.newProject("apt", files, map[string]string{
		"naive":   top + "COPY . .\nRUN " + get + "\nRUN sh build.sh\n",
		"by-hand": top + "RUN " + get + " && rm -rf /var/lib/apt/lists/*\nCOPY . .\nRUN sh build.sh\n",
		"fresh":   top + "COPY . .\nRUN : STAMP; " + get + "\n",
	})
	if err != nil {
		return nil, err
	}
	p.edit = "src/menu.txt"
	return p, nil
}

// cFunctions writes 60 files of C and a header below dir, and returns the text that uses them.
func cFunctions(files map[string]string, dir string) (uses string) {
	declared := ""
	for i := range 60 {
		declared += fmt.Sprintf("int f%d(int);\n", i)
		uses += fmt.Sprintf("\tn += f%d(n);\n", i)
		files[fmt.Sprintf("%s/f%d.c", dir, i)] = fmt.Sprintf("#include <stdio.h>\n#include <stdlib.h>\n#include \"all.h\"\nint f%d(int n) { return n + %[1]d; }\n", i)
	}
	files[dir+"/all.h"] = declared
	return uses
}

// makeProject compiles 60 files of C.
func makeProject(ctx context.Context, b *bench) (*project, error) {
	image, err := gcc.push(ctx, b)
	if err != nil {
		return nil, err
	}
	files := docs(450)
	uses := cFunctions(files, "src")
	files["src/main.c"] = "#include \"all.h\"\nint main(void) {\n\tint n = 0;\n" + uses + "\treturn n == 0;\n}\n"
	files["Makefile"] = "app: $(patsubst %.c,%.o,$(wildcard src/*.c))\n\t$(CC) -o $@ $^\n" +
		"src/%.o: src/%.c src/all.h\n\t$(CC) -O1 -c -o $@ $<\n"
	top := fmt.Sprintf("FROM %s\nWORKDIR /app\nCOPY . .\n", image)
	p, err := b.newProject("make", files, map[string]string{
		"naive": top + "RUN make\n",
		"fresh": top + "RUN : STAMP; make\n",
	})
	if err != nil {
		return nil, err
	}
	p.edit = "src/main.c"
	return p, nil
}

// lookingProject has 7,000 files, and steps that look at all of them: nothing can be replayed.
func lookingProject(_ context.Context, b *bench) (*project, error) {
	files := docs(7000)
	files["src/main.js"] = "let x = 1\n"
	top := "FROM debian:12\nWORKDIR /app\nCOPY . .\n"
	p, err := b.newProject("looking", files, map[string]string{
		"naive": top + "RUN cp -r /app /copy\nRUN ls -lR . > /list\nRUN grep -r nothing-has-this . > /found; true\n",
		"fresh": top + "RUN : STAMP; grep -r nothing-has-this . > /found; true\n",
	})
	if err != nil {
		return nil, err
	}
	p.edit = "src/main.js"
	return p, nil
}

// installedProject has a step that makes so many files, and one that runs on top of them after each edit.
func installedProject(files int) func(context.Context, *bench) (*project, error) {
	return func(_ context.Context, b *bench) (*project, error) {
		p, err := b.newProject(fmt.Sprint("installed-", files), map[string]string{
			"list.txt": fmt.Sprintln(files), "src/main.js": "let x = 1\n",
		}, map[string]string{
			"naive": "FROM debian:12\nWORKDIR /app\nCOPY . .\n" +
				"RUN n=$(cat list.txt); for d in $(seq $((n / 100))); do mkdir -p m/$d; for i in $(seq 100); do echo $d $i > m/$d/$i; done; done\n" +
				"RUN cat src/main.js m/1/1 > out.js\n",
		})
		if err != nil {
			return nil, err
		}
		p.edit = "src/main.js"
		return p, nil
	}
}
