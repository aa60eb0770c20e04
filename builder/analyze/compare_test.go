package analyze

import (
	"strings"
	"testing"
	"time"
)

func TestCompare(t *testing.T) {
	same := "a 3\nd/\nd/b 100000"
	for name, test := range map[string]struct {
		first, second []string
		want          string // "" for no difference
		times         bool
	}{
		"the same":         {[]string{same, "", "x 1"}, []string{same, "", "x 1"}, "", false},
		"content":          {[]string{same, "x 3a"}, []string{same, "x 3b"}, `#2 RUN 2: /x: content: "aaa" at byte 0, then "bbb"`, false},
		"size":             {[]string{"x 3"}, []string{"x 4"}, "#1 RUN 1: /x: content: 3 bytes, then 4 bytes", false},
		"mode":             {[]string{"x 3"}, []string{"x 3 mode=600"}, "#1 RUN 1: /x: mode: 0644, then 0600", false},
		"owner":            {[]string{"x 3"}, []string{"x 3 owner=7"}, "#1 RUN 1: /x: owner: 0:0, then 7:0", false},
		"attribute":        {[]string{"x 3"}, []string{"x 3 xattr=v"}, `#1 RUN 1: /x: attribute user.test: not there, then "v"`, false},
		"target":           {[]string{"x -> a"}, []string{"x -> b"}, "#1 RUN 1: /x: target: a, then b", false},
		"type":             {[]string{"x -> a"}, []string{"x 1"}, "#1 RUN 1: /x: type: symbolic link, then file", false},
		"more":             {[]string{"a 1"}, []string{"a 1\nb 1"}, "#1 RUN 1: /b: existence: not there, then there", false},
		"less":             {[]string{"a 1\nb 1"}, []string{"a 1"}, "#1 RUN 1: /b: existence: there, then not there", false},
		"another":          {[]string{"a 1\nb 1\nc 1"}, []string{"a 1\nc 1"}, "#1 RUN 1: /b: existence: there, then not there (or later)", false},
		"time":             {[]string{"a 1\nb 1"}, []string{"a 1\nb 1 time=5"}, "#1 RUN 1: /b: time: 1970-01-01T00:16:40Z, then 1970-01-01T00:00:05Z", true},
		"content, later":   {[]string{"a 1\nb 1x"}, []string{"a 1 time=5\nb 1y"}, `#1 RUN 1: /b: content: "x" at byte 0, then "y"`, false},
		"content, a layer": {[]string{"a 1", "b 1x"}, []string{"a 1 time=5", "b 1y"}, `#2 RUN 2: /b: content: "x" at byte 0, then "y"`, false},
		"layers":           {[]string{"a 1", "b 1"}, []string{"a 1"}, "configuration: rootfs: layers: 2, then 1", false},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Compare(t.Context(), newImage(t, test.first...), newImage(t, test.second...))
			if err != nil {
				t.Fatal(err)
			}
			got, times := "", false
			if d != nil {
				got, times = d.String(), d.TimesOnly
			}
			if got != test.want || times != test.times {
				t.Errorf("got  %s (times: %v)\nwant %s", got, times, test.want)
			}
		})
	}
}

// TestCompareConfig: with equal layers, the configuration's first difference is told, and that of times is known as one.
func TestCompareConfig(t *testing.T) {
	now := time.Unix(7, 0).UTC()
	for name, test := range map[string]struct {
		change func(*Image)
		want   string
		times  bool
	}{
		"environment": {func(im *Image) { im.Config.Config.Env = []string{"A=b"} }, `configuration: config.Env: value: null, then ["A=b"]`, false},
		"created":     {func(im *Image) { im.Config.Created = &now }, `configuration: created: value: null, then "1970-01-01T00:00:07Z"`, true},
		"history":     {func(im *Image) { im.Config.History[1].Created = &now }, `configuration: history[1].created: value: null, then "1970-01-01T00:00:07Z"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newImage(t, "a 1", ""), newImage(t, "a 1", "")
			test.change(&b)
			b.RawConf = []byte(jsonOf(b.Config))
			b.Manifest.Config.Digest, b.Digest = "sha256:other", "sha256:other"
			d, err := Compare(t.Context(), a, b)
			if err != nil || d == nil {
				t.Fatal(d, err)
			}
			if d.String() != test.want || d.TimesOnly != test.times {
				t.Errorf("got  %s (times: %v)\nwant %s", d, d.TimesOnly, test.want)
			}
		})
	}
	if d := compareValue("", map[string]any{"a": 1.0}, map[string]any{"a": 1.0}); d != nil {
		t.Error(d)
	}
}

// TestCompareLarge finds a difference far from the beginning.
func TestCompareLarge(t *testing.T) {
	d, err := Compare(t.Context(), newImage(t, "a 300000x"), newImage(t, "a 300000x\na 1"))
	if err != nil || d == nil || !strings.Contains(d.String(), "existence") {
		t.Fatal(d, err)
	}
	a := strings.NewReader(strings.Repeat("x", 200_000) + "yz")
	b := strings.NewReader(strings.Repeat("x", 200_000) + "zz")
	at, err := new(comparer).firstDifference(t.Context(), a, b)
	if err != nil || at.offset != 200_000 || string(at.first) != "yz" || string(at.second) != "zz" {
		t.Errorf("got %+v %v", at, err)
	}
}
