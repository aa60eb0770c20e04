package fuzzbuild

import (
	"bufio"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/optbuild/optbuild/integration/oracle"
)

func TestReadSteps(t *testing.T) {
	p := &progress{lines: bufio.NewReader(strings.NewReader(`{"vertexes":[{"digest":"sha256:1","name":"[2/3] RUN a"}]}
something else
{"vertexes":[{"digest":"sha256:1","name":"[2/3] RUN a","started":"2026-01-01T00:00:00Z"},{"digest":"sha256:2","name":"[3/3] RUN  b","cached":true}]}
{"logs":[{"data":"aGk="}]}
{"vertexes":[{"digest":"sha256:3","name":"[1/3] FROM x"},{"digest":"sha256:4","name":"RUN never"}]}
`))}
	lines := 0
	p.read(func(n int) { lines = n })
	got, err := readSteps(filepath.Join(t.TempDir(), "none"), p)
	want := []Step{{Name: "RUN a", Vertex: "sha256:1", Outcome: Executed}, {Name: "RUN b", Vertex: "sha256:2", Outcome: Cached}}
	if err != nil || !reflect.DeepEqual(got, want) || p.log.String() != "hi" || p.text.String() != "something else\n" || lines != 5 {
		t.Errorf("got %+v, %v, log %q, text %q, %d lines", got, err, p.log.String(), p.text.String(), lines)
	}
	file := filepath.Join(t.TempDir(), "steps")
	if err := os.WriteFile(file, []byte(`{"step":"RUN npm ci","vertex":"sha256:1","outcome":"replayed","observed":3}
{"step":"RUN b","vertex":"sha256:2","outcome":"executed","reason":"b changed"}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err = readSteps(file, p)
	want = []Step{{Name: "RUN npm ci", Vertex: "sha256:1", Outcome: Replayed, Observed: 3},
		{Name: "RUN b", Vertex: "sha256:2", Outcome: Executed, Reason: "b changed"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestNeedless(t *testing.T) {
	const dockerfile = "FROM x\nRUN other\nFROM y\nCOPY . .\nRUN one\nRUN two \\\n  more\nRUN same\nRUN same\n"
	image := func(one, two string) *oracle.Image {
		return &oracle.Image{Layers: []string{"base", "copy", one, two, "s", "t"}, Config: []byte(`{"history":[
			{"created_by":"base"},{"created_by":"COPY . . # buildkit"},{"created_by":"RUN /bin/sh -c one # buildkit"},
			{"created_by":"ENV a=b","empty_layer":true},{"created_by":"RUN /bin/sh -c two"},{"created_by":"RUN s"},{"created_by":"RUN s"}]}`)}
	}
	var ran []Step
	for _, name := range []string{"RUN one", "RUN two more", "RUN same", "RUN other"} {
		ran = append(ran, Step{Name: name, Outcome: Executed})
	}
	book := layerBook{}
	for i, c := range []struct {
		image *oracle.Image
		steps []Step
		want  []string
	}{
		{image("a", "b"), ran, nil},
		{image("a", "c"), ran, []string{"RUN one"}},
		{image("d", "b"), ran, []string{"RUN two more"}},
		{image("a", "b"), []Step{{Name: "RUN one", Outcome: Replayed}, {Name: "RUN two more", Outcome: Cached}}, nil},
	} {
		var got []string
		for _, s := range book.note(dockerfile, c.image, c.steps) {
			got = append(got, s.Name)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d: got %q, want %q", i, got, c.want)
		}
	}
}
