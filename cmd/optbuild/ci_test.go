package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
	"mvdan.cc/sh/v3/syntax"
)

// TestCI: what integration/ci offers to be copied parses, and calls commands and flags that there are.
func TestCI(t *testing.T) {
	const dir = "../../integration/ci"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, e := range entries {
		if e.IsDir() || e.Name() == "README.md" { // kubernetes has tests of its own
			continue
		}
		files++
		t.Run(e.Name(), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			var scripts []string
			if strings.HasSuffix(e.Name(), ".yml") {
				scripts = yamlScripts(t, text)
			} else {
				scripts = groovyScripts(t, string(text))
			}
			builds := 0
			for _, s := range scripts {
				builds += checkScript(t, s)
			}
			if builds == 0 {
				t.Error("it builds nothing")
			}
			if !strings.Contains(string(text), "OPTBUILD_CACHE") {
				t.Error("it names no cache")
			}
		})
	}
	if files < 4 {
		t.Errorf("there are %d files", files)
	}
}

// scriptKeys are the keys below which CI systems have shell commands.
var scriptKeys = map[string]bool{"run": true, "script": true, "before_script": true, "command": true}

func yamlScripts(t *testing.T, text []byte) (scripts []string) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var walk func(n *yaml.Node, script bool)
	walk = func(n *yaml.Node, script bool) {
		switch n.Kind {
		case yaml.ScalarNode:
			if script {
				scripts = append(scripts, n.Value)
			}
		case yaml.MappingNode:
			seen := map[string]bool{}
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := n.Content[i].Value
				if seen[key] {
					t.Errorf("line %d: %s is there twice", n.Content[i].Line, key)
				}
				seen[key] = true
				walk(n.Content[i+1], scriptKeys[key])
			}
		default:
			for _, c := range n.Content {
				walk(c, script)
			}
		}
	}
	walk(&doc, false)
	return scripts
}

var groovyScript = regexp.MustCompile(`(?s)\bsh '''(.*?)'''`)

// groovyScripts finds the shell scripts of a Jenkinsfile, and sees whether brackets match outside of them.
func groovyScripts(t *testing.T, text string) (scripts []string) {
	for _, m := range groovyScript.FindAllStringSubmatch(text, -1) {
		scripts = append(scripts, m[1])
	}
	var open []rune
	closing := map[rune]rune{'}': '{', ')': '(', ']': '['}
	for _, r := range groovyScript.ReplaceAllString(text, "") {
		if strings.ContainsRune("{([", r) {
			open = append(open, r)
		}
		if o, ok := closing[r]; ok {
			if len(open) == 0 || open[len(open)-1] != o {
				t.Fatalf("a %c has no beginning", r)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("%d brackets have no end", len(open))
	}
	return scripts
}

var expression = regexp.MustCompile(`\$\{\{.*?\}\}`) // GitHub replaces them before the shell sees them

// checkScript parses a script, checks its calls of optbuild, and counts the builds among them.
func checkScript(t *testing.T, script string) (builds int) {
	f, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(expression.ReplaceAllString(script, "x")), "")
	if err != nil {
		t.Errorf("%v in:\n%s", err, script)
		return 0
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 || call.Args[0].Lit() != "optbuild" {
			return true
		}
		var words []string
		for _, w := range call.Args[1:] {
			var b strings.Builder
			if err := syntax.NewPrinter().Print(&b, w); err != nil {
				t.Fatal(err)
			}
			words = append(words, b.String())
		}
		if checkCall(t, words) {
			builds++
		}
		return true
	})
	return builds
}

// checkCall checks the words after optbuild, and says whether it builds.
func checkCall(t *testing.T, words []string) (builds bool) {
	var command *cli.Command
	for _, c := range commands() {
		if len(words) > 0 && c.HasName(words[0]) {
			command = c
		}
	}
	if command == nil {
		t.Errorf("optbuild %s: there is no such command", strings.Join(words, " "))
		return false
	}
	arguments := 0
	for i := 1; i < len(words); i++ {
		name, _, joined := strings.Cut(strings.TrimLeft(words[i], "-"), "=")
		if !strings.HasPrefix(words[i], "-") {
			arguments++
			continue
		}
		flag := flagNamed(append(globalFlags(), command.Flags...), name)
		if flag == nil {
			t.Errorf("optbuild %s has no flag %s", command.Name, words[i])
			continue
		}
		if d, ok := flag.(cli.DocGenerationFlag); ok && d.TakesValue() && !joined {
			i++
		}
	}
	if arguments != 1 {
		t.Errorf("optbuild %s: %d arguments", strings.Join(words, " "), arguments)
	}
	return command.Name == "build"
}

func flagNamed(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}
