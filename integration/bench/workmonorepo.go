package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

const monorepoPackages = 12

// monorepoProject has 12 packages, each of which depends on five of 60 that are made here, and is built by a script of its own.
func monorepoProject(ctx context.Context, b *bench) (*project, error) {
	image, err := node.push(ctx, b)
	if err != nil {
		return nil, err
	}
	content := served{}
	address, err := b.serve(content)
	if err != nil {
		return nil, err
	}
	workspaces := map[string]any{"name": "mono", "version": "1.0.0", "private": true, "workspaces": []string{"packages/*"}}
	packages := map[string]any{"": workspaces}
	files := docs(450)
	var copies, stages, results, builds strings.Builder
	for i := range monorepoPackages {
		name, dir := fmt.Sprintf("p%d", i), fmt.Sprintf("packages/p%d", i)
		dependencies := map[string]any{}
		for k := range 5 {
			dependency := fmt.Sprintf("mono-%d", 5*i+k)
			archive, integrity, err := npmPackage(dependency, 60)
			if err != nil {
				return nil, err
			}
			path := fmt.Sprintf("/%s/-/%[1]s-1.0.0.tgz", dependency)
			content[path], dependencies[dependency] = archive, "1.0.0"
			packages["node_modules/"+dependency] = map[string]any{"version": "1.0.0", "resolved": address + path, "integrity": integrity}
		}
		own := map[string]any{"name": name, "version": "1.0.0", "dependencies": dependencies}
		packages["node_modules/"+name] = map[string]any{"resolved": dir, "link": true}
		packages[dir] = own
		manifest := maps.Clone(own)
		manifest["scripts"] = map[string]string{"build": "node build.js"}
		text, err := json.MarshalIndent(manifest, "", "  ")
		if err != nil {
			return nil, err
		}
		files[dir+"/package.json"] = string(text)
		files[dir+"/build.js"] = "const fs = require('fs');\nfs.writeFileSync('dist.js', fs.readdirSync('src').map(f => fs.readFileSync('src/' + f, 'utf8')).join('') + require('mono-" +
			fmt.Sprint(5*i) + "'));\n"
		for k := range 20 {
			files[fmt.Sprintf("%s/src/%d.js", dir, k)] = source(fmt.Sprint(dir, k), 2<<10)
		}
		build := "RUN npm run build -w " + dir + "\n"
		builds.WriteString(build)
		fmt.Fprintf(&copies, "COPY %s/package.json %[1]s/\n", dir)
		fmt.Fprintf(&stages, "FROM installed AS %s\nCOPY %s %[2]s\n%s", name, dir, build)
		fmt.Fprintf(&results, "COPY --from=%s /app/%s/dist.js %[2]s/\n", name, dir)
	}
	lock, err := json.MarshalIndent(map[string]any{"name": "mono", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": packages}, "", "  ")
	if err != nil {
		return nil, err
	}
	root, err := json.MarshalIndent(workspaces, "", "  ")
	if err != nil {
		return nil, err
	}
	const edited = "packages/p3/src/7.js"
	maps.Copy(files, map[string]string{"package.json": string(root), "package-lock.json": string(lock), ".dockerignore": "node_modules\n",
		edited: files[edited] + "// " + marked + "\n"})
	from := "FROM " + image
	top := fmt.Sprintf("\nENV npm_config_registry=%s npm_config_update_notifier=false npm_config_audit=false\nWORKDIR /app\n", address)
	p, err := b.newProject("monorepo", files, map[string]string{
		"naive": from + top + "COPY . .\nRUN npm ci\n" + builds.String(),
		"by-hand": from + " AS installed" + top + "COPY package.json package-lock.json ./\n" + copies.String() +
			"RUN --mount=type=cache,target=/root/.npm npm ci\n" + stages.String() + "FROM installed\nCOPY . .\n" + results.String(),
		"lock": string(lock), "p0": files["packages/p0/package.json"],
	})
	if err == nil {
		p.edit = edited
	}
	return p, err
}

// monorepoManifest drops and adds a dependency of one package, which nothing imports.
func monorepoManifest(p *project, serial int) error {
	files := map[string]string{}
	for file, kept := range map[string]string{"packages/p0/package.json": "p0", "package-lock.json": "lock"} {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(p.dir), kept))
		if err != nil {
			return err
		}
		files[file] = string(text)
	}
	return npmManifest(p, serial, "mono-4", "packages/p0", files)
}
