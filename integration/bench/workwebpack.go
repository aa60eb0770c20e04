package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
)

// The dependencies of W1 are real ones, at fixed versions. What they depend on themselves is fixed by a lock file, made once and kept in the cache directory.
const webpackPackage = `{
  "name": "app", "version": "1.0.0", "private": true,
  "scripts": {"lint": "eslint --ext .ts,.tsx src", "build": "webpack --mode production"},
  "dependencies": {"left-pad": "1.3.0", "react": "18.3.1", "react-dom": "18.3.1"},
  "devDependencies": {
    "@types/react": "18.3.5", "@types/react-dom": "18.3.0", "@typescript-eslint/parser": "7.18.0", "eslint": "8.57.0",
    "ts-loader": "9.5.1", "typescript": "5.5.4", "webpack": "5.94.0", "webpack-cli": "5.1.4"
  }
}
`

const lockVersion = "1" // raised when webpackPackage changes

// webpackProject is an application for browsers: 40 components, checked by eslint, compiled by typescript and bundled by webpack.
func webpackProject(ctx context.Context, b *bench) (*project, error) {
	image, err := node.push(ctx, b)
	if err != nil {
		return nil, err
	}
	origin, err := output("npm", "config", "get", "registry")
	if err != nil {
		return nil, skipped("npm does not say which registry it uses")
	}
	lock, err := webpackLock(ctx, b)
	if err != nil {
		return nil, err
	}
	address, err := b.mirrorOf("npm", origin)
	if err != nil {
		return nil, err
	}
	files := docs(450)
	maps.Copy(files, map[string]string{
		"package.json": webpackPackage, "package-lock.json": lock, ".dockerignore": "node_modules\n",
		"tsconfig.json":  `{"compilerOptions": {"strict": true, "jsx": "react", "target": "es2020", "module": "es2020", "moduleResolution": "node", "esModuleInterop": true}, "include": ["src"]}` + "\n",
		".eslintrc.json": `{"root": true, "parser": "@typescript-eslint/parser", "parserOptions": {"ecmaVersion": 2020, "sourceType": "module"}, "rules": {"eqeqeq": "error", "no-var": "error"}}` + "\n",
		"webpack.config.js": "module.exports = {entry: './src/index.tsx', resolve: {extensions: ['.tsx', '.ts', '.js']},\n" +
			"  module: {rules: [{test: /\\.tsx?$/, use: 'ts-loader'}]}};\n",
	})
	imports, uses := "", ""
	for i := range 40 {
		files[fmt.Sprintf("src/components/c%d.tsx", i)] = fmt.Sprintf(
			"import React from 'react';\n\n%s\nexport const C%d = (p: {n: number}) => <li className=\"c%[2]d\">{p.n + %[2]d}</li>;\n", source(fmt.Sprint("c", i), 1<<10), i)
		imports += fmt.Sprintf("import {C%d} from './components/c%[1]d';\n", i)
		uses += fmt.Sprintf("<C%d n={%[1]d} />", i)
	}
	files["src/index.tsx"] = "import React from 'react';\nimport {createRoot} from 'react-dom/client';\n" + imports +
		"\ncreateRoot(document.body).render(<ul title=\"" + marked + "\">" + uses + "</ul>);\n"
	top := fmt.Sprintf("FROM %s\nENV npm_config_registry=%s npm_config_replace_registry_host=always npm_config_update_notifier=false npm_config_audit=false\nWORKDIR /app\n", image, address)
	const steps = "RUN npm run lint\nRUN npm run build\n"
	p, err := b.newProject("webpack", files, map[string]string{
		"naive": top + "COPY . .\nRUN npm ci\n" + steps,
		"by-hand": top + "COPY package.json package-lock.json ./\nRUN --mount=type=cache,target=/root/.npm npm ci\n" +
			"COPY . .\n" + steps,
		"lock": lock,
	})
	if err == nil {
		p.edit = "src/index.tsx"
	}
	return p, err
}

// webpackLock lets npm write the lock file, or takes the one that it wrote for an earlier bench.
func webpackLock(ctx context.Context, b *bench) (string, error) {
	kept, err := b.kept("npm-lock-" + lockVersion + ".json")
	if err != nil {
		return "", err
	}
	if text, err := os.ReadFile(kept); err == nil {
		return string(text), nil
	}
	dir := filepath.Join(b.Dir, "lock")
	if err := writeFiles(dir, map[string]string{"package.json": webpackPackage}); err != nil {
		return "", err
	}
	c := exec.CommandContext(ctx, "npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved=false")
	c.Dir = dir
	if err := execute(c); err != nil {
		return "", skipped(fmt.Sprintf("its lock file can't be made: %v", err))
	}
	text, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return "", err
	}
	return string(text), os.WriteFile(kept, text, 0o644)
}

// webpackManifest drops and adds left-pad, which nothing imports.
func webpackManifest(p *project, serial int) error {
	lock, err := os.ReadFile(filepath.Join(filepath.Dir(p.dir), "lock"))
	if err != nil {
		return err
	}
	return npmManifest(p, serial, "left-pad", "", map[string]string{"package.json": webpackPackage, "package-lock.json": string(lock)})
}

// npmManifest writes manifests, as they were at first, with another version, and every other time without a dependency of the workspace (of the root: "").
func npmManifest(p *project, serial int, name, workspace string, files map[string]string) error {
	for file, text := range files {
		var v map[string]any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		lists := []map[string]any{v}
		if packages, ok := v["packages"].(map[string]any); ok { // the lock
			if serial%2 == 1 {
				delete(packages, "node_modules/"+name)
			}
			own, ok := packages[workspace].(map[string]any)
			if !ok {
				return fmt.Errorf("%s has no package %q", file, workspace)
			}
			lists = append(lists, own)
		}
		for _, l := range lists {
			if dependencies, ok := l["dependencies"].(map[string]any); ok && serial%2 == 1 {
				delete(dependencies, name)
			}
			l["version"] = fmt.Sprintf("1.0.%d", serial)
		}
		out, err := json.MarshalIndent(v, "", "  ")
		if err := errors.Join(err, os.WriteFile(filepath.Join(p.dir, file), append(out, '\n'), 0o644)); err != nil {
			return err
		}
	}
	return nil
}
