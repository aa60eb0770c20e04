package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRewriteFile: the file's mode stays, a link stays a link, nothing is left behind, and somebody else's edit is not lost.
func TestRewriteFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "real", "Dockerfile"), filepath.Join(dir, "Dockerfile")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("a"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real/Dockerfile", link); err != nil {
		t.Fatal(err)
	}
	if err := rewriteFile(link, []byte("a"), []byte("b")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); string(b) != "b" || info.Mode() != 0o640 {
		t.Errorf("got %q, %v", b, info.Mode())
	}
	if to, err := os.Readlink(link); err != nil || to != "real/Dockerfile" {
		t.Errorf("the link is %q, %v", to, err)
	}
	if err := rewriteFile(link, []byte("a"), []byte("c")); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("a file that is no longer the one that was read: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestUnifiedDiff(t *testing.T) {
	for path, want := range map[string]string{
		"./x/Dockerfile":  "--- a/x/Dockerfile\n+++ b/x/Dockerfile\n@@ -1,2 +1,2 @@\n-a\n+c\n b\n",
		"/tmp/Dockerfile": "--- /tmp/Dockerfile\n+++ /tmp/Dockerfile\n@@ -1,2 +1,2 @@\n-a\n+c\n b\n",
	} {
		if got := string(unifiedDiff(path, "a\nb\n", "c\nb\n")); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
		}
	}
	if got := unifiedDiff("Dockerfile", "a\n", "a\n"); len(got) != 0 {
		t.Errorf("no difference: %q", got)
	}
}
