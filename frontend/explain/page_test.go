package explain

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"golang.org/x/tools/txtar"
)

// TestPageStandsAlone: whatever is in a Dockerfile, the page has exactly the elements of the template, runs its own script only and loads nothing.
func TestPageStandsAlone(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		a, _, _ := account(t, archive)
		var b bytes.Buffer
		if err := HTML(&b, a); err != nil {
			t.Fatal(err)
		}
		doc, err := html.Parse(&b)
		if err != nil {
			t.Fatal(err)
		}
		scripts := 0
		for n := range doc.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			if !slices.Contains(strings.Fields("html head meta title style body h1 h2 p div section span pre ul li code br table tbody tr th td b script"), n.Data) {
				t.Errorf("%s: element %s", file, n.Data)
			}
			for _, attr := range n.Attr {
				if !slices.Contains(strings.Fields("lang charset http-equiv content name class data-of"), attr.Key) {
					t.Errorf("%s: %s has attribute %s=%q", file, n.Data, attr.Key, attr.Val)
				}
			}
			switch n.Data {
			case "meta":
				checkPolicy(t, n)
			case "script":
				scripts++
				if n.FirstChild.Data != pageScript {
					t.Errorf("%s: another script: %s", file, n.FirstChild.Data)
				}
			case "style":
				if n.FirstChild.Data != pageStyle {
					t.Errorf("%s: another style: %s", file, n.FirstChild.Data)
				}
			}
		}
		if scripts != 1 {
			t.Errorf("%s: %d scripts", file, scripts)
		}
	}
	for _, name := range []string{"page.css", "page.js", "page.tmpl"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"://", "url(", "@import", "import("} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s holds %s", name, bad)
			}
		}
	}
}

func checkPolicy(t *testing.T, meta *html.Node) {
	t.Helper()
	for _, a := range meta.Attr {
		if a.Key != "content" || !strings.Contains(a.Val, "src") {
			continue
		}
		want := "default-src 'none'"
		for kind, text := range map[string]string{"style": pageStyle, "script": pageScript} {
			sum := sha256.Sum256([]byte(text))
			if s := kind + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(a.Val, s) {
				t.Errorf("the policy %q lacks %q", a.Val, s)
			}
		}
		if !strings.HasPrefix(a.Val, want) {
			t.Errorf("the policy %q does not begin with %q", a.Val, want)
		}
	}
}

// TestVisible: nothing that a terminal would obey is left.
func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\n":       "plain\ttext\n",
		"crlf\r\nline\r":      "crlf\nline",
		"\x1b[2J":             `\u001b[2J`,
		"over\rwritten":       `over\u000dwritten`,
		"\u202egnp.exe\u0085": `\u202egnp.exe\u0085`,
		"\xff":                "\xff",
	} {
		if got := Visible(in); got != want {
			t.Errorf("Visible(%q) = %q, want %q", in, got, want)
		}
	}
}
