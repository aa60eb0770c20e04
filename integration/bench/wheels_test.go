package main

import (
	"archive/zip"
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestWheel(t *testing.T) {
	l := library{"some-lib", "python3-some-lib", []string{"other"}}
	file, wheel, err := l.wheel(map[string][]byte{
		"Some_Lib-1.2.egg-info/PKG-INFO":            []byte("Name: Some_Lib\n"),
		"Some_Lib-1.2.egg-info/entry_points.txt":    []byte("[console_scripts]\nsome = some:main\n"),
		"some/__init__.py":                          []byte("pass\n"),
		"some/fast.cpython-311-x86_64-linux-gnu.so": []byte("ELF"),
	}, "1.2")
	if err != nil {
		t.Fatal(err)
	}
	if want := "some_lib-1.2-cp311-cp311-linux_x86_64.whl"; file != want {
		t.Errorf("the file is %s, want %s", file, want)
	}
	r, err := zip.NewReader(bytes.NewReader(wheel), int64(len(wheel)))
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	var names []string
	for _, f := range r.File {
		content, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		names, text[f.Name] = append(names, f.Name), string(b)
	}
	const about = "some_lib-1.2.dist-info/"
	want := []string{"some/__init__.py", "some/fast.cpython-311-x86_64-linux-gnu.so", about + "METADATA", about + "WHEEL", about + "entry_points.txt", about + "RECORD"}
	if got, want := strings.Join(names, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("files are\n%s\nwant\n%s", got, want)
	}
	if want := "Metadata-Version: 2.1\nName: some-lib\nVersion: 1.2\nRequires-Dist: other\n"; text[about+"METADATA"] != want {
		t.Errorf("METADATA is\n%s\nwant\n%s", text[about+"METADATA"], want)
	}
	// echo pass | sha256sum, in base64
	if want := "some/__init__.py,sha256=n1bnYdeb_bNDBKASWGywTRa0Ne9hMAkal3AuVZJgovI,5\n"; !strings.Contains(text[about+"RECORD"], want) {
		t.Errorf("RECORD is\n%s\nwant in it\n%s", text[about+"RECORD"], want)
	}
}
