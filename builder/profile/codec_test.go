package profile

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

const one = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

func sample() *Profile {
	return &Profile{
		Image: "docker.io/library/app:latest", Platform: "linux/amd64", Until: "port 8080", Layers: nil,
		Files: []File{
			{Path: "/usr", Type: Directory},
			{Path: "/usr/<app> & co", Type: Regular, Read: true, Bytes: 12},
			{Path: "/usr/l", Type: Symlink, Layer: 3},
			{Path: "/usr/looked", Type: Regular, Bytes: 7},
			{Path: "/usr/empty", Type: Regular, Read: true},
			{Path: "/dev/null", Type: Other, Read: true},
		},
	}
}

func TestEncode(t *testing.T) {
	p := sample()
	b, err := Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"image":"docker.io/library/app:latest","platform":"linux/amd64","until":"port 8080","files":[
{"path":"/usr","type":"directory","layer":0},
{"path":"/usr/<app> & co","type":"file","read":true,"bytes":12,"layer":0},
{"path":"/usr/l","type":"symlink","layer":3},
{"path":"/usr/looked","type":"file","bytes":7,"layer":0},
{"path":"/usr/empty","type":"file","read":true,"layer":0},
{"path":"/dev/null","type":"other","read":true,"layer":0}
]}
`
	if string(b) != want {
		t.Errorf("got\n%s\nwant\n%s", b, want)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v, want %+v", got, p)
	}
	if names := got.Prioritized(); !reflect.DeepEqual(names, []string{"usr/<app> & co", "usr/empty"}) {
		t.Errorf("got %q", names)
	}
	if files, bytes := got.Read(); files != 2 || bytes != 12 {
		t.Errorf("got %d files, %d bytes", files, bytes)
	}
}

// What is wrong with a profile is found, whether it is written or read.
func TestWrong(t *testing.T) {
	file := func(f File) func(*Profile) { return func(p *Profile) { p.Files = append(p.Files, f) } }
	for name, c := range map[string]struct {
		change func(*Profile)
		want   string
	}{
		"relative":     {file(File{Path: "usr/x", Type: Regular}), "no absolute path"},
		"root":         {file(File{Path: "/", Type: Directory}), "no absolute path"},
		"dots":         {file(File{Path: "/usr/../x", Type: Regular}), "no absolute path"},
		"slash":        {file(File{Path: "/usr/x/", Type: Directory}), "no absolute path"},
		"zero":         {file(File{Path: "/usr/\x00", Type: Regular}), "no absolute path"},
		"long":         {file(File{Path: "/" + strings.Repeat("x", maxPath), Type: Regular}), "no absolute path"},
		"no text":      {file(File{Path: "/\xff", Type: Regular}), "no absolute path"},
		"twice":        {file(File{Path: "/usr", Type: Directory}), "comes twice"},
		"type":         {file(File{Path: "/x", Type: "door"}), "unknown type"},
		"negative":     {file(File{Path: "/x", Type: Regular, Bytes: -1}), "-1 bytes"},
		"directory":    {file(File{Path: "/x", Type: Directory, Bytes: 1}), "1 bytes"},
		"layer":        {file(File{Path: "/x", Type: Regular, Layer: -1}), "in layer -1"},
		"many layers":  {file(File{Path: "/x", Type: Regular, Layer: maxLayer}), "in layer 1000"},
		"no layer":     {func(p *Profile) { p.Layers = append(p.Layers, one, one, one) }, "/usr/l is in layer 3"},
		"digest":       {func(p *Profile) { p.Layers = append(p.Layers, "x") }, `layer "x"`},
		"text":         {func(p *Profile) { p.Until = strings.Repeat("x", maxText+1) }, "too long"},
		"many files":   {func(p *Profile) { p.Files = make([]File, MaxFiles+1) }, "too many"},
		"right":        {func(p *Profile) { p.Layers = append(p.Layers, one, one, one, one) }, ""},
		"right, least": {func(p *Profile) { *p = Profile{} }, ""},
	} {
		p := sample()
		c.change(p)
		if err := p.check(); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if _, err := Encode(p); (err == nil) != (c.want == "") {
			t.Errorf("%s: encode: got %v", name, err)
		}
	}
}

func TestDecodeWrong(t *testing.T) {
	for text, want := range map[string]string{
		``:               "EOF",
		`[]`:             "cannot unmarshal",
		`{}`:             "another version",
		`{"version":2}`:  "another version",
		`{"version":1}x`: "behind its end",
		`{"version":1,"files":[{"path":"x","type":"file"}]}`: "no absolute path",
		`{"version":1,"files":{}}`:                           "cannot unmarshal",
	} {
		if _, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	if _, err := Decode([]byte(`{"version":7}`)); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v", err)
	}
	// A later version of the program may say more.
	if _, err := Decode([]byte(`{"version":1,"colour":"red","files":[{"path":"/x","type":"file","hot":true}]}`)); err != nil {
		t.Error(err)
	}
	if _, err := ReadFrom(bytes.NewReader(make([]byte, MaxBytes+10))); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"files":[{"path":"/x","type":"file","layer":1}],"layers":["` + one + `"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(p)
		if err != nil {
			t.Fatalf("what was decoded can't be encoded: %v", err)
		}
		q, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		third, err := Encode(q)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%v\n%s\n%s", err, again, third)
		}
		for _, name := range p.Prioritized() {
			if name == "" || strings.HasPrefix(name, "/") {
				t.Errorf("%q", name)
			}
		}
	})
}

func TestMerge(t *testing.T) {
	a := &Profile{Files: []File{{Path: "/b", Type: Regular, Read: true}, {Path: "/a", Type: Regular, Read: true}}}
	b := &Profile{Files: []File{{Path: "/a", Type: Regular, Read: true}, {Path: "/c", Type: Regular, Read: true}}}
	if got, want := Merge(a, b), []string{"b", "a", "c"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Merge(); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestAttribute(t *testing.T) {
	names := []string{"a,b", "c\nd", `e"`}
	v, err := FormatPrioritized(names)
	if err != nil {
		t.Fatal(err)
	}
	attrs := map[string]string{AttrPrioritized: v, "name": "app"}
	got, err := TakePrioritized(attrs)
	if err != nil || !reflect.DeepEqual(got, names) || !reflect.DeepEqual(attrs, map[string]string{"name": "app"}) {
		t.Errorf("got %q, %v; left %q", got, err, attrs)
	}
	if got, err := TakePrioritized(attrs); got != nil || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := TakePrioritized(map[string]string{AttrPrioritized: "x"}); err == nil {
		t.Error("no error")
	}
}

func TestMark(t *testing.T) {
	env := []string{"A=1", Mark("one"), "B=2"}
	token, rest := TakeMark(env)
	if token != "one" || !reflect.DeepEqual(rest, []string{"A=1", "B=2"}) || len(env) != 3 || env[1] != Mark("one") {
		t.Errorf("got %q, %q; left %q", token, rest, env)
	}
	if token, rest := TakeMark([]string{"A=1"}); token != "" || len(rest) != 1 {
		t.Errorf("got %q, %q", token, rest)
	}
	// Of an image's own and ours, which is last, ours counts.
	if token, _ := TakeMark([]string{Mark("theirs"), Mark("ours")}); token != "ours" {
		t.Errorf("got %q", token)
	}
}
