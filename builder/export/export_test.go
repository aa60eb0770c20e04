package export

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/export/strip"
)

func history(texts ...string) (h []ocispecs.History) {
	for _, t := range texts {
		word, _, _ := strings.Cut(t, " ")
		h = append(h, ocispecs.History{CreatedBy: t, EmptyLayer: !slices.Contains([]string{"RUN", "COPY", "WORKDIR"}, word)})
	}
	return h
}

func TestUnits(t *testing.T) {
	base := history("COPY base /", "CMD sh")
	for _, test := range []struct {
		squash Squash
		steps  []string
		want   string // units, as ranges of layers
	}{
		{SquashRuns, []string{"RUN a", "ENV x", "RUN b", "COPY c", "RUN d"}, "1-2 3-3 4-4"},
		{SquashRuns, []string{"WORKDIR /a", "RUN a", "WORKDIR /b", "RUN b", "WORKDIR /c", "COPY d"}, "1-1 2-4 5-5 6-6"},
		{SquashRuns, []string{"RUNNING a", "RUN b"}, "1-1"},
		{SquashOff, []string{"RUN a", "RUN b"}, "1-1 2-2"},
		{SquashStage, []string{"RUN a", "COPY b", "RUN c"}, "1-3"},
		{SquashRuns, []string{"ENV x"}, ""},
	} {
		h := append(slices.Clone(base), history(test.steps...)...)
		layers := 1
		for _, e := range h[len(base):] {
			if !e.EmptyLayer {
				layers++
			}
		}
		steps, err := stepsOf(h, base, 1, layers)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range unitsOf(steps, 1, test.squash) {
			got = append(got, fmt.Sprintf("%d-%d", u.first, u.last))
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("--squash=%s %q: units %s, want %s", test.squash, test.steps, s, test.want)
		}
	}
}

// An image whose history can't be paired with its layers is left alone.
func TestHistoryThatDoesNotFit(t *testing.T) {
	base := history("COPY base /")
	for name, err := range map[string]error{
		"other base":       second(stepsOf(history("COPY other /", "RUN a"), base, 1, 2)),
		"shorter":          second(stepsOf(nil, base, 1, 2)),
		"layers too few":   second(stepsOf(history("COPY base /", "RUN a", "RUN b"), base, 1, 2)),
		"layers too many":  second(stepsOf(history("COPY base /", "RUN a"), base, 1, 3)),
		"less than a base": second(stepsOf(history("COPY base /"), base, 1, 0)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := stepsOf(history("COPY base /", "RUN a"), base, 5, 6); err != nil { // a base image may have more layers than its history
		t.Error(err)
	}
}

func second(_ []step, err error) error { return err }

func TestDescribe(t *testing.T) {
	h := history("RUN a # buildkit", "ENV x", "RUN b # buildkit")
	steps, err := stepsOf(h, nil, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	times := []time.Time{time.Unix(1, 0).UTC(), time.Unix(2, 0).UTC()}
	unitsOf(steps, 0, SquashRuns)[0].describe(h, times, []Stripped{{"apt-lists", 2, 2500}})
	var got []string
	for _, e := range h {
		created := "unknown"
		if e.Created != nil {
			created = fmt.Sprint(e.Created.Unix())
		}
		got = append(got, fmt.Sprintf("%s|%t|%s|%s", e.CreatedBy, e.EmptyLayer, created, e.Comment))
	}
	want := []string{
		"RUN a # buildkit|true|1|optbuild: in one layer with: RUN b",
		"ENV x|true|unknown|",
		"RUN b # buildkit|false|2|optbuild: one layer of 2 steps; left out: apt-lists (2.5kB, 2 files)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The configuration keeps what is not known here.
func TestWithHistoryKeepsFields(t *testing.T) {
	got, err := withHistory([]byte(`{"config":{"Cmd":["a"]},"x.unknown":[1],"history":[]}`), history("RUN a"))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"config":{"Cmd":["a"]},"history":[{"created_by":"RUN a"}],"x.unknown":[1]}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOptions(t *testing.T) {
	o, rest, err := takeOptions(map[string]string{AttrSquash: "runs", AttrStrip: "apt-lists,tmp", "name": "x"})
	if err != nil || o.Squash != SquashRuns || o.Strip.String() != "apt-lists,tmp" || len(rest) != 1 || rest["name"] != "x" {
		t.Errorf("%v %v %v", o, rest, err)
	}
	if o, _, _ := takeOptions(map[string]string{"name": "x"}); !o.nothing() {
		t.Errorf("without attributes: %v", o)
	}
	for off, want := range map[string]string{
		"": "runs apt-lists,tmp", "*": "off off", "squash": "off apt-lists,tmp", "strip": "runs off", "strip-tmp": "runs apt-lists", "link,strip-tmp,squash": "off apt-lists",
		"tmp": "runs apt-lists,tmp",
	} {
		w := o.without(off)
		if got := string(w.Squash) + " " + w.Strip.String(); got != want {
			t.Errorf("without %q: %s, want %s", off, got, want)
		}
	}
}

// Of an outcome that was damaged nothing is believed.
func TestIndex(t *testing.T) {
	x, k := index(t.TempDir()), newKey()
	k.add("record", "1")
	if _, ok := x.get(k); ok {
		t.Fatal("an outcome that was never put")
	}
	desc := ocispecs.Descriptor{Digest: digest.FromString("blob"), Size: 4}
	if err := x.put(k, outcome{Desc: &desc, Stripped: []Stripped{{"tmp", 1, 2}}}); err != nil {
		t.Fatal(err)
	}
	o, ok := x.get(k)
	if !ok || o.Desc.Digest != desc.Digest || o.Stripped[0].Bytes != 2 {
		t.Fatalf("got %v %t", o, ok)
	}
	b, err := os.ReadFile(x.file(k))
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		damaged := slices.Clone(b)
		damaged[i] ^= 1
		if err := os.WriteFile(x.file(k), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := x.get(k); ok {
			t.Fatalf("byte %d was altered, and nobody saw it", i)
		}
	}
	if err := os.WriteFile(x.file(k), b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.get(k); ok {
		t.Fatal("half an outcome")
	}
}

func TestIndexForgetsTheOldest(t *testing.T) {
	x := index(t.TempDir())
	var keys []*key
	for i := range 5 {
		k := newKey()
		k.add("n", fmt.Sprint(i))
		if err := x.put(k, outcome{}); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(x.file(k), at, at); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	left := filepath.Join(string(x), "half.tmp")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := x.collect(2); err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		if _, ok := x.get(k); ok != (i >= 3) {
			t.Errorf("outcome %d is there: %t", i, ok)
		}
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed process left is still there")
	}
}

// Two keys are the same only if all is.
func TestKeyDepends(t *testing.T) {
	level := 3
	u := unit{first: 0, last: 0, steps: []step{{kind: run}}}
	keys := map[string]string{}
	for name, j := range map[string]*job{
		"gzip":       {Merger: &Merger{}, comp: compression.New(compression.Gzip)},
		"zstd":       {Merger: &Merger{}, comp: compression.New(compression.Zstd)},
		"level":      {Merger: &Merger{}, comp: compression.Config{Type: compression.Gzip, Level: &level}},
		"compressor": {Merger: &Merger{Compressor: "2"}, comp: compression.New(compression.Gzip)},
		"rules":      {Merger: &Merger{}, comp: compression.New(compression.Gzip), strip: strip.New(strip.Set{"tmp"}, strip.Config{})},
	} {
		sum := j.common(u).sum()
		if other, ok := keys[sum]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		keys[sum] = name
	}
}

func TestSummary(t *testing.T) {
	for want, img := range map[string]Image{
		"":                                       {Runs: 1},
		"layers: 3 became 1":                     {Layers: []Layer{{Steps: []string{"a", "b", "c"}}}},
		"layers: left as they are: no overlayfs": {Alone: "no overlayfs"},
		"layers: 4 became 2; 3MB of apt-lists, npm left out": {Layers: []Layer{
			{Steps: []string{"a", "b"}, Stripped: []Stripped{{"npm", 1, 1_000_000}}}, {Steps: []string{"c", "d"}, Stripped: []Stripped{{"apt-lists", 1, 2_000_000}}},
		}},
		"layers: 1kB of npm left out": {Layers: []Layer{{Steps: []string{"a"}, Stripped: []Stripped{{"npm", 1, 1000}}}}},
	} {
		if got := (&Report{[]Image{img}}).Summary(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := (*Report)(nil).Summary(); got != "" {
		t.Errorf("without a report: %q", got)
	}
}
